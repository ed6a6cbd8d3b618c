"""PyTorch architectures at full size, from transformers' configurations: name -> how to build it, and its inputs for a batch.

Nothing is downloaded: the weights are random. Biases, norms and running statistics are drawn too, since fresh ones are zeros and ones
and would hide mistakes; convolutions keep the variance of what passes through them, so that deep networks neither explode nor die out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

TOKENS = 128  # the length of every text

Inputs = dict[str, torch.Tensor]


def images(batch: int, size: int = 224) -> Inputs:
    """Return random images."""
    return {"pixel_values": torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))}


def text(batch: int, length: int = TOKENS, name: str = "input_ids") -> Inputs:
    """Return random token ids."""
    return {name: torch.randint(10, 20_000, (batch, length), generator=torch.Generator().manual_seed(batch))}


def masked_text(batch: int) -> Inputs:
    """Return random token ids with a mask that hides nothing."""
    return text(batch) | {"attention_mask": torch.ones(batch, TOKENS, dtype=torch.long)}


def translated(batch: int) -> Inputs:
    return text(batch) | text(batch, 32, "decoder_input_ids")


def heard(batch: int) -> Inputs:
    """Return 30 seconds of noise and the start of a transcript."""
    sound = torch.randn(batch, 80, 3000, generator=torch.Generator().manual_seed(batch))
    return {"input_features": sound} | text(batch, 16, "decoder_input_ids")


def built(model: str, config: str, **sizes: Any) -> Callable[[], nn.Module]:
    """Return a function that builds a transformers model from a configuration."""

    def build() -> nn.Module:
        import transformers

        torch.manual_seed(0)
        made = getattr(transformers, model)(getattr(transformers, config)(**sizes))
        return randomised(made).eval()

    return build


@torch.no_grad()
def randomised(model: nn.Module) -> nn.Module:
    """Draw biases, norms and statistics, and convolutions that keep variance."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
        elif parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)
    for path, buffer in model.named_buffers():
        if path.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif path.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return model


#: A Llama of the proportions of the small ones: four query heads share a key head.
LLAMA = {
    "hidden_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 2816,
    "vocab_size": 32_000,
    "use_cache": False,
}
EFFICIENTNET_B0 = {"width_coefficient": 1.0, "depth_coefficient": 1.0, "image_size": 224, "hidden_dim": 1280, "num_labels": 1000}
ALBERT_BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
CLASSES = {"num_labels": 1000}

ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Inputs]]] = {
    "ResNet-50": (built("ResNetForImageClassification", "ResNetConfig", **CLASSES), images),
    "MobileNetV2": (built("MobileNetV2ForImageClassification", "MobileNetV2Config", **CLASSES), images),
    "EfficientNet-B0": (built("EfficientNetForImageClassification", "EfficientNetConfig", **EFFICIENTNET_B0), images),
    "ConvNeXt-T": (built("ConvNextForImageClassification", "ConvNextConfig", **CLASSES), images),
    "RegNetY-4GF": (built("RegNetForImageClassification", "RegNetConfig", **CLASSES), images),
    "ViT-B": (built("ViTForImageClassification", "ViTConfig", **CLASSES), images),
    "DeiT-B": (built("DeiTForImageClassification", "DeiTConfig", **CLASSES), images),
    "Swin-T": (built("SwinForImageClassification", "SwinConfig", **CLASSES), images),
    "BERT-base": (built("BertForSequenceClassification", "BertConfig"), masked_text),
    "RoBERTa-base": (built("RobertaForSequenceClassification", "RobertaConfig"), masked_text),
    "DistilBERT": (built("DistilBertForSequenceClassification", "DistilBertConfig"), masked_text),
    "ALBERT-base": (built("AlbertForSequenceClassification", "AlbertConfig", **ALBERT_BASE), masked_text),
    "ELECTRA-small": (built("ElectraForSequenceClassification", "ElectraConfig"), masked_text),
    "GPT-2": (built("GPT2LMHeadModel", "GPT2Config", use_cache=False), text),
    "Llama (GQA)": (built("LlamaForCausalLM", "LlamaConfig", **LLAMA), text),
    "T5-small": (built("T5ForConditionalGeneration", "T5Config", use_cache=False, num_heads=8, decoder_start_token_id=0), translated),
    "Whisper-tiny": (
        built(
            "WhisperForConditionalGeneration",
            "WhisperConfig",
            d_model=384,
            encoder_layers=4,
            decoder_layers=4,
            encoder_attention_heads=6,
            decoder_attention_heads=6,
            encoder_ffn_dim=1536,
            decoder_ffn_dim=1536,
            use_cache=False,
        ),
        heard,
    ),
}
