"""Small configurations of the architectures that people take from transformers: name -> (model, example inputs)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn

WIDTHS = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TEXT = WIDTHS | {"vocab_size": 100, "max_position_embeddings": 64}
PATCHES = WIDTHS | {"image_size": 32, "patch_size": 8}


def tokens(*names: str) -> dict[str, torch.Tensor]:
    """Return example inputs for a text model: random token ids under each name, and a full attention mask."""
    generator = torch.Generator().manual_seed(1)
    given = {name: torch.randint(5, 90, (2, 12), generator=generator) for name in names or ("input_ids",)}
    return given | {"attention_mask": torch.ones(2, 12, dtype=torch.long)}


def pixels(size: int = 32) -> torch.Tensor:
    """Return two random images."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def whisper() -> nn.Module:
    widths = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes = {"encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "vocab_size": 100, "num_mel_bins": 8, "max_source_positions": 16}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    return hf.WhisperForConditionalGeneration(hf.WhisperConfig(**widths, **sizes, **special, max_target_positions=32))


def heard() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "input_features": torch.randn(2, 8, 32, generator=generator),
        "decoder_input_ids": torch.randint(3, 90, (2, 6), generator=generator),
    }


def regnet() -> nn.Module:
    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 2, 1, 1], "groups_width": 8}
    return hf.RegNetForImageClassification(hf.RegNetConfig(**sizes, layer_type="y"))


def swin() -> nn.Module:
    sizes = {"image_size": 32, "patch_size": 2, "embed_dim": 32, "depths": [2, 2], "num_heads": [4, 8], "window_size": 4}
    return hf.SwinForImageClassification(hf.SwinConfig(**sizes))


def t5() -> nn.Module:
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
    return hf.T5ForConditionalGeneration(hf.T5Config(**sizes, decoder_start_token_id=0))


def bart() -> nn.Module:
    widths = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes = {"encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 100, "max_position_embeddings": 32}
    return hf.BartForConditionalGeneration(hf.BartConfig(**widths, **sizes))


def gpt2() -> nn.Module:
    return hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=100, n_positions=64))


def distilbert() -> nn.Module:
    return hf.DistilBertForSequenceClassification(hf.DistilBertConfig(dim=64, n_layers=2, n_heads=4, hidden_dim=128, vocab_size=100))


def resnet() -> nn.Module:
    return hf.ResNetForImageClassification(hf.ResNetConfig(embedding_size=16, hidden_sizes=[32, 48, 64, 96], depths=[1, 2, 1, 1]))


def bert(attention: str) -> nn.Module:
    return hf.BertForSequenceClassification(hf.BertConfig(**TEXT, attn_implementation=attention))


Build = Callable[[], nn.Module]

TRANSFORMERS: dict[str, tuple[Build, Callable[[], Any]]] = {
    "resnet": (resnet, lambda: pixels(64)),
    "mobilenet-v2": (lambda: hf.MobileNetV2ForImageClassification(hf.MobileNetV2Config(depth_multiplier=0.5)), lambda: pixels(64)),
    "efficientnet": (
        lambda: hf.EfficientNetForImageClassification(hf.EfficientNetConfig(width_coefficient=0.5, depth_coefficient=0.4, hidden_dim=640)),
        lambda: pixels(64),
    ),
    "convnext": (
        lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1])),
        lambda: pixels(64),
    ),
    "regnet": (regnet, lambda: pixels(64)),
    "vit": (lambda: hf.ViTForImageClassification(hf.ViTConfig(**PATCHES)), pixels),
    "deit": (lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**PATCHES)), pixels),
    "swin": (swin, pixels),
    "bert-eager": (lambda: bert("eager"), tokens),
    "bert-sdpa": (lambda: bert("sdpa"), tokens),
    "roberta": (lambda: hf.RobertaForSequenceClassification(hf.RobertaConfig(**TEXT)), tokens),
    "distilbert": (distilbert, tokens),
    "albert": (lambda: hf.AlbertForSequenceClassification(hf.AlbertConfig(**TEXT, embedding_size=32)), tokens),
    "electra": (lambda: hf.ElectraForSequenceClassification(hf.ElectraConfig(**TEXT, embedding_size=32)), tokens),
    "gpt2": (gpt2, tokens),
    "llama": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT, num_key_value_heads=2)), tokens),
    "t5": (t5, lambda: tokens("input_ids", "decoder_input_ids")),
    "bart": (bart, lambda: tokens("input_ids", "decoder_input_ids")),
    "whisper": (whisper, heard),
}
