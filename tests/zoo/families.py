"""Tiny models of many families in transformers: name -> (function that builds the model, example inputs)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn
from torch.nn.utils import parametrize

Family = tuple[Callable[[], nn.Module], dict[str, torch.Tensor]]

# No two sizes are alike, so that none is taken for another: 4 heads of 24, 80 neurons, 13 tokens, 99 words.
WIDTHS = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {**WIDTHS, "vocab_size": 99}
GROUPED = {**TEXT, **SPECIAL, "num_key_value_heads": 2}
PATCHES = {**WIDTHS, "image_size": 64, "patch_size": 16}
STAGES = {"hidden_sizes": [12, 28, 44, 72], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 4]}
HALVES = {
    "d_model": 96,
    "vocab_size": 99,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 80,
    **{f"{half}_{what}": number for half in ("encoder", "decoder") for what, number in (("layers", 1), ("attention_heads", 4))},
}
SOUNDS = {
    **WIDTHS,
    "conv_dim": [32, 32, 32],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_prob": 0.0,
}


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def ids() -> torch.Tensor:
    return torch.randint(3, 99, (2, 13), generator=torch.Generator().manual_seed(1))


def words() -> dict[str, torch.Tensor]:
    return {"input_ids": ids(), "attention_mask": torch.ones(2, 13, dtype=torch.long)}


def built(name: str, head: str, sizes: dict[str, Any]) -> Callable[[], nn.Module]:
    """Return a function that builds a model from its configuration."""
    return lambda: getattr(hf, name + head)(getattr(hf, name + "Config")(**sizes))


def encoder(name: str, **sizes: Any) -> Family:
    return built(name, "Model", {**TEXT, **sizes}), words()


def decoder(name: str, **sizes: Any) -> Family:
    return built(name, "ForCausalLM", {**GROUPED, **sizes}), {**words(), "use_cache": False}


def both(name: str, **sizes: Any) -> Family:
    return built(name, "Model", {**HALVES, **sizes}), {"input_ids": ids(), "decoder_input_ids": ids(), "use_cache": False}


def vision(name: str, head: str = "ForImageClassification", **sizes: Any) -> Family:
    return built(name, head, sizes), {"pixel_values": drawn(2, 3, 64, 64)}


def sounds(name: str, **sizes: Any) -> Family:
    """Return a model that listens, its weight norms folded into the weights: a weight that is computed is none that could be cut."""
    build = built(name, "Model", {**SOUNDS, **sizes})

    def folded() -> nn.Module:
        model = build()
        for module in [module for module in model.modules() if parametrize.is_parametrized(module, "weight")]:
            parametrize.remove_parametrizations(module, "weight")
        return model

    return folded, {"input_values": drawn(2, 800)}


def seen_and_read(name: str, text: dict[str, Any], vision: dict[str, Any], **sizes: Any) -> Family:
    return built(name, "Model", {"text_config": text, "vision_config": vision, **sizes}), {**words(), "pixel_values": drawn(2, 3, 64, 64)}


ENCODERS = {
    "albert": encoder("Albert", embedding_size=32),
    "bigbird": encoder("BigBird", attention_type="original_full"),
    "camembert": encoder("Camembert"),
    "convbert": encoder("ConvBert", embedding_size=96),
    "deberta": encoder("Deberta"),
    "deberta_v2": encoder("DebertaV2", relative_attention=True, pos_att_type=["p2c", "c2p"]),
    "ernie": encoder("Ernie"),
    "esm": encoder("Esm", pad_token_id=1),
    "fnet": (built("FNet", "Model", {**TEXT}), {"input_ids": ids()}),
    "funnel": (built("Funnel", "Model", {"vocab_size": 99, "block_sizes": [1, 1], "d_model": 96, "n_head": 4, "d_inner": 80}), words()),
    "layoutlm": encoder("LayoutLM"),
    "longformer": encoder("Longformer", attention_window=4),
    "megatron": encoder("MegatronBert"),
    "mobilebert": encoder("MobileBert", embedding_size=32, intra_bottleneck_size=32),
    "modernbert": encoder("ModernBert", **SPECIAL, cls_token_id=1, sep_token_id=2),
    "mpnet": encoder("MPNet"),
    "nystromformer": encoder("Nystromformer", segment_means_seq_len=13, num_landmarks=13),
    "roformer": encoder("RoFormer"),
    "squeezebert": encoder("SqueezeBert", embedding_size=96),
    "xlm": encoder("XLM", emb_dim=96, n_layers=2, n_heads=4),
    "xlm_roberta": encoder("XLMRoberta"),
    "xlnet": encoder("XLNet", d_model=96, n_layer=2, n_head=4, d_inner=80),
}
DECODERS = {
    "bloom": decoder("Bloom", n_head=4, n_layer=2),
    "biogpt": decoder("BioGpt"),
    "codegen": decoder("CodeGen", n_embd=96, n_layer=2, n_head=4, rotary_dim=8),
    "cohere": decoder("Cohere"),
    "ctrl": (built("CTRL", "Model", {"vocab_size": 99, "n_embd": 96, "n_layer": 2, "n_head": 4, "dff": 80}), {"input_ids": ids()}),
    "falcon": decoder("Falcon"),
    "gemma": decoder("Gemma", head_dim=24),
    "gemma2": decoder("Gemma2", head_dim=24),
    "gpt_bigcode": decoder("GPTBigCode", n_embd=96, n_layer=2, n_head=4),
    "gpt_neo": decoder("GPTNeo", num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]]),
    "gpt_neox": decoder("GPTNeoX"),
    "gptj": decoder("GPTJ", n_embd=96, n_layer=2, n_head=4, rotary_dim=8),
    "granite": decoder("Granite"),
    "mamba": (
        built("Mamba", "Model", {"vocab_size": 99, "hidden_size": 96, "num_hidden_layers": 2}),
        {"input_ids": ids(), "use_cache": False},
    ),
    "mistral": decoder("Mistral"),
    "mixtral": decoder("Mixtral", num_local_experts=2),
    "olmo": decoder("Olmo"),
    "olmo2": decoder("Olmo2"),
    "openai": (built("OpenAIGPT", "Model", {"vocab_size": 99, "n_embd": 96, "n_layer": 2, "n_head": 4}), {"input_ids": ids()}),
    "opt": decoder("OPT", ffn_dim=80, word_embed_proj_dim=96),
    "phi": decoder("Phi"),
    "phi3": decoder("Phi3"),
    "qwen2": decoder("Qwen2"),
    "qwen3": decoder("Qwen3", head_dim=24),
    "rwkv": (
        built("Rwkv", "Model", {"vocab_size": 99, "hidden_size": 96, "num_hidden_layers": 2}),
        {"input_ids": ids(), "use_cache": False},
    ),
    "smollm3": decoder("SmolLM3"),
    "stablelm": decoder("StableLm"),
    "starcoder2": decoder("Starcoder2"),
    "xglm": decoder("XGLM", d_model=96, num_layers=2, attention_heads=4, ffn_dim=80),
}
BOTH = {
    "bart": both("Bart"),
    "m2m": both("M2M100"),
    "marian": both("Marian", pad_token_id=0),
    "mt5": both("MT5", num_layers=1, num_heads=4, d_kv=24, d_ff=80),
    "pegasus": both("Pegasus"),
}
VISION = {
    "beit": vision("Beit", **PATCHES),
    "bit": vision("Bit", embedding_size=16, hidden_sizes=[32, 48, 64, 64], depths=[1, 1, 1, 1], num_groups=8),
    "blip": vision("BlipVision", "Model", **PATCHES),
    "data2vec": vision("Data2VecVision", **PATCHES),
    "dinov2": vision("Dinov2", **{**PATCHES, "mlp_ratio": 2}),
    "focalnet": vision(
        "FocalNet", image_size=64, embed_dim=24, depths=[1, 1], hidden_sizes=[24, 48], focal_levels=[1, 1], focal_windows=[3, 3]
    ),
    "hgnetv2": vision("HGNetV2", num_labels=2),
    "ijepa": vision("IJepa", **PATCHES),
    "levit": vision("Levit", image_size=64, hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], depths=[1, 1, 1], key_dim=[8, 8, 8]),
    "mobilenet_v1": vision("MobileNetV1", depth_multiplier=0.25),
    "mobilevit": vision(
        "MobileViT", hidden_sizes=[32, 48, 64], neck_hidden_sizes=[8, 16, 16, 24, 32, 48, 64], num_attention_heads=4, image_size=64
    ),
    "mobilevitv2": vision("MobileViTV2", width_multiplier=0.25, image_size=64),
    "poolformer": vision("PoolFormer", hidden_sizes=[16, 32, 40, 64], depths=[1, 1, 1, 1]),
    "pvt": vision("Pvt", image_size=64, **STAGES),
    "pvt_v2": vision("PvtV2", image_size=64, **STAGES),
    "regnet_x": vision("RegNet", hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], embedding_size=16, groups_width=8, layer_type="x"),
    "resnet_18": vision("ResNet", hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], embedding_size=16, layer_type="basic"),
    "segformer": vision("Segformer", "ForSemanticSegmentation", decoder_hidden_size=32, **STAGES),
    "swiftformer": vision("SwiftFormer", image_size=64, depths=[1, 1, 1, 1], embed_dims=[16, 24, 32, 48]),
    "swinv2": vision("Swinv2", embed_dim=24, depths=[1, 1], num_heads=[2, 4], image_size=64, patch_size=4, window_size=4),
    "vit_msn": vision("ViTMSN", **PATCHES),
    "yolos": vision("Yolos", "ForObjectDetection", **{**PATCHES, "image_size": [64, 64], "num_detection_tokens": 5}),
}
OTHERS = {
    "audio_spectrogram": (
        built("AST", "Model", {**WIDTHS, "patch_size": 16, "max_length": 64, "num_mel_bins": 32}),
        {"input_values": drawn(2, 64, 32)},
    ),
    "clip": seen_and_read("CLIP", {**TEXT, "max_position_embeddings": 20}, PATCHES, projection_dim=32),
    "hubert": sounds("Hubert"),
    "patchtst": (
        built(
            "PatchTST",
            "Model",
            {
                "num_input_channels": 2,
                "context_length": 32,
                "patch_length": 4,
                "patch_stride": 4,
                "d_model": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "ffn_dim": 48,
            },
        ),
        {"past_values": drawn(2, 32, 2)},
    ),
    "sew": sounds("SEW", squeeze_factor=2),
    "videomae": (built("VideoMAE", "Model", {**PATCHES, "num_frames": 4}), {"pixel_values": drawn(2, 4, 3, 64, 64)}),
    "vilt": (
        built("Vilt", "Model", {**TEXT, **PATCHES}),
        {**words(), "pixel_values": drawn(2, 3, 64, 64), "pixel_mask": torch.ones(2, 64, 64, dtype=torch.long)},
    ),
    "wav2vec2": sounds("Wav2Vec2"),
}
FAMILIES: dict[str, Family] = {**ENCODERS, **DECODERS, **BOTH, **VISION, **OTHERS}
