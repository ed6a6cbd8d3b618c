"""Tiny models of many families in keras_hub and keras.applications: name -> (function that builds the model, example inputs)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import numpy as np

Backbone = tuple[Callable[[], keras.Model], Any]

# No two sizes are alike, so that none is taken for another: 4 heads of 24, 80 neurons, 13 tokens, 99 words.
WIDTHS = {"num_layers": 2, "num_heads": 4, "hidden_dim": 96, "intermediate_dim": 80}
PLACED = {**WIDTHS, "max_sequence_length": 20}
GROUPED = {"num_layers": 2, "num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 96, "intermediate_dim": 80}
PATCHES = {**WIDTHS, "patch_size": 16}
EXPERTS = {"num_experts": 3, "top_k": 2}
HALVES = {
    f"{half}_{what}": number
    for half in ("encoder", "decoder")
    for what, number in {
        "hidden_dim": 96,
        "intermediate_dim": 80,
        "num_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "layer_types": ["full_attention"],
    }.items()
}
STAGES = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 80],
    "stackwise_num_blocks": [1, 1],
    "stackwise_num_strides": [1, 2],
}


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype("float32")


def ids() -> np.ndarray:
    return np.random.default_rng(1).integers(3, 99, (2, 13)).astype("int32")


def words(segments: bool = False) -> dict[str, np.ndarray]:
    given = {"token_ids": ids(), "padding_mask": np.ones_like(ids())}
    return {**given, "segment_ids": np.zeros_like(ids())} if segments else given


def built(name: str, **sizes: Any) -> Callable[[], keras.Model]:
    return lambda: getattr(keras_hub.models, name)(**sizes)


def text(name: str, segments: bool = False, **sizes: Any) -> Backbone:
    return built(name, vocabulary_size=99, **sizes), words(segments)


def both(name: str, **sizes: Any) -> Backbone:
    given = {f"{half}_{key}": value for half in ("encoder", "decoder") for key, value in words().items()}
    return built(name, vocabulary_size=99, **{**WIDTHS, "num_layers": 1, **sizes}), given


def vision(name: str, size: int = 64, **sizes: Any) -> Backbone:
    return built(name, image_shape=(size, size, 3), **sizes), drawn(2, size, size, 3)


def application(name: str, **sizes: Any) -> Backbone:
    build = getattr(keras.applications, name)
    return lambda: build(weights=None, input_shape=(64, 64, 3), classes=10, **sizes), drawn(2, 64, 64, 3)


ENCODERS = {
    "albert": text("AlbertBackbone", True, **PLACED, embedding_dim=32),
    "bert": text("BertBackbone", True, **PLACED),
    "clip_text": (built("CLIPTextEncoder", vocabulary_size=99, **PLACED, embedding_dim=96), {"token_ids": ids()}),
    "deberta_v3": text("DebertaV3Backbone", **PLACED, bucket_size=8),
    "distil_bert": text("DistilBertBackbone", **PLACED),
    "electra": (built("ElectraBackbone", vocab_size=99, **PLACED, embedding_dim=32), words(True)),
    "esm": (built("ESM2Backbone", vocabulary_size=99, **PLACED), {"token_ids": ids()}),
    "f_net": (
        built("FNetBackbone", vocabulary_size=99, num_layers=2, hidden_dim=96, intermediate_dim=80, max_sequence_length=20),
        {"token_ids": ids(), "segment_ids": np.zeros_like(ids())},
    ),
    "roberta": text("RobertaBackbone", **PLACED),
    "roformer_v2": (
        built("RoformerV2Backbone", vocabulary_size=99, **WIDTHS, head_size=24),
        {"token_ids": ids(), "segment_ids": np.zeros_like(ids())},
    ),
    "siglip_text": (
        built("SigLIPTextEncoder", vocabulary_size=99, **WIDTHS, max_sequence_length=13, embedding_dim=96),
        {"token_ids": ids()},
    ),
    "xlm_roberta": text("XLMRobertaBackbone", **PLACED),
    "xlnet": text("XLNetBackbone", True, **WIDTHS),
}
DECODERS = {
    "bloom": text("BloomBackbone", **WIDTHS),
    "falcon": text("FalconBackbone", num_layers=2, num_attention_heads=4, hidden_dim=96, intermediate_dim=80),
    "gemma": text("GemmaBackbone", **GROUPED, head_dim=24),
    "gemma3": text("Gemma3Backbone", **GROUPED, head_dim=24, image_size=16, vision_encoder=None),
    "gpt2": text("GPT2Backbone", **PLACED),
    "gpt_neo_x": text("GPTNeoXBackbone", **PLACED),
    "gpt_oss": text("GptOssBackbone", **GROUPED, **EXPERTS),
    "llama": text("LlamaBackbone", **GROUPED),
    "llama3": text("Llama3Backbone", **GROUPED),
    "mistral": text("MistralBackbone", **GROUPED),
    "mixtral": text("MixtralBackbone", **GROUPED, **EXPERTS),
    "opt": text("OPTBackbone", **PLACED),
    "phi3": text("Phi3Backbone", **GROUPED),
    "qwen": text("QwenBackbone", **GROUPED),
    "qwen3": text("Qwen3Backbone", **GROUPED, head_dim=24),
    "qwen3_moe": text("Qwen3MoeBackbone", **GROUPED, **EXPERTS, head_dim=24, moe_intermediate_dim=56),
    "qwen_moe": text("QwenMoeBackbone", **GROUPED, **EXPERTS, moe_intermediate_dim=56, shared_expert_intermediate_dim=64),
    "smollm3": text(
        "SmolLM3Backbone",
        **{key: value for key, value in WIDTHS.items() if key != "num_heads"},
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=False,
        attention_dropout=0.0,
        rope_layer_enabled_list=[True, False],
        layer_types=["full_attention", "full_attention"],
        mlp_bias=False,
        layer_norm_epsilon=1e-5,
        max_position_embeddings=20,
        rope_theta=1e4,
        partial_rotary_factor=1.0,
    ),
}
BOTH = {
    "bart": both("BartBackbone", max_sequence_length=20),
    "t5": both("T5Backbone"),
    "t5_gemma": (
        built("T5GemmaBackbone", vocabulary_size=99, **HALVES, query_pre_attn_scalar=24.0),
        {f"{half}_{key}": value for half in ("encoder", "decoder") for key, value in words().items()},
    ),
    "whisper": (
        built(
            "WhisperBackbone",
            vocabulary_size=99,
            **{**WIDTHS, "num_layers": 1},
            max_encoder_sequence_length=40,
            max_decoder_sequence_length=20,
        ),
        {"encoder_features": drawn(2, 40, 80), "decoder_token_ids": ids(), "decoder_padding_mask": np.ones_like(ids())},
    ),
}
VISION = {
    "clip_vision": vision("CLIPVisionEncoder", **PATCHES),
    "csp_darknet": vision(
        "CSPNetBackbone",
        stem_filters=16,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 1],
        stackwise_strides=[1, 2],
        stackwise_num_filters=[16, 32],
        expand_ratio=[2.0],
        stage_type="csp",
        block_type="dark_block",
    ),
    "deit": vision("DeiTBackbone", **PATCHES),
    "densenet": vision("DenseNetBackbone", stackwise_num_repeats=[2, 2], compression_ratio=0.5, growth_rate=8),
    "dinov2": vision("DINOV2Backbone", **PATCHES),
    "dinov3": vision("DINOV3Backbone", **PATCHES),
    "hgnet_v2": vision(
        "HGNetV2Backbone",
        depths=[1],
        embedding_size=16,
        hidden_sizes=[32],
        stem_channels=[3, 16, 24],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[[16, 24, 32, 1, 3, 3]],
        apply_downsample=[False],
        use_lightweight_conv_block=[False],
    ),
    "mit": vision(
        "MiTBackbone",
        max_drop_path_rate=0.0,
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[16, 32],
    ),
    "resnet": vision("ResNetBackbone", **STAGES, block_type="bottleneck_block"),
    "resnet_v2": vision("ResNetBackbone", **STAGES, block_type="basic_block", use_pre_activation=True),
    "siglip_vision": vision("SigLIPVisionEncoder", **PATCHES),
    "swin": vision("SwinTransformerBackbone", embed_dim=24, depths=[1, 1], num_heads=[2, 4], window_size=4, patch_size=4, drop_path=0.0),
    "vgg": vision("VGGBackbone", stackwise_num_repeats=[1, 1], stackwise_num_filters=[16, 32]),
    "vit": vision("ViTBackbone", **{key: value for key, value in PATCHES.items() if key != "intermediate_dim"}, mlp_dim=80),
    "vit_det": vision(
        "ViTDetBackbone",
        hidden_size=96,
        num_layers=2,
        intermediate_dim=80,
        num_heads=4,
        global_attention_layer_indices=[1],
        num_output_channels=32,
        window_size=2,
    ),
    "xception": vision("XceptionBackbone", stackwise_conv_filters=[[8, 16], [16, 16]], stackwise_pooling=[True, False]),
}
APPLICATIONS = {
    "efficientnet_v2": application("EfficientNetV2B0"),
    "mobilenet": application("MobileNet", alpha=0.25),
    "mobilenet_v3_large": application("MobileNetV3Large"),
    "mobilenet_v3_small": application("MobileNetV3Small"),
    "resnet50_v2": application("ResNet50V2"),
    "vgg16": application("VGG16"),
}
FAMILIES: dict[str, Backbone] = {**ENCODERS, **DECODERS, **BOTH, **VISION, **APPLICATIONS}
