"""The networks whose pruning is timed against Torch-Pruning: four of the architectures, and BERTs of growing depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torch_zoo import ARCHITECTURES, Inputs, built, text

#: For the first run, which pays for imports and lazy set-up.
SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 20_000}
NARROW = {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512, "vocab_size": 20_000}


def bert(depth: int, length: int = 32, **sizes: Any) -> tuple[Callable[[], nn.Module], Callable[[int], Inputs]]:
    """Return a BERT of a depth, and its inputs: texts of so many tokens."""
    build = built("BertForSequenceClassification", "BertConfig", num_hidden_layers=depth, **sizes)
    return build, lambda batch: text(batch, length) | {"attention_mask": torch.ones(batch, length, dtype=torch.long)}


NETWORKS = {
    "warm-up": bert(1, **SMALL),
    **{name: ARCHITECTURES[name] for name in ("ResNet-50", "MobileNetV2", "ViT-B", "BERT-base")},
    "BERT-base, 512 tokens": bert(12, length=512),
    **{f"BERT, {depth} layers of 128": bert(depth, **NARROW) for depth in (12, 24, 48)},
}
