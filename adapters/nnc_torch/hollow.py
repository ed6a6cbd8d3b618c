"""Operations that give zeros of the right shape in place of their numbers.

Which channels can only leave together follows from shapes. So where only the graph is asked for, the operations that take nearly all of
a forward pass's time are not computed: products, convolutions, attentions, normalisations, the dear pointwise functions. All others run:
positions, masks and indices are the real ones, and so is whatever the model's code decides by them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

aten = torch.ops.aten


def hollow(func: Any, args: Sequence[Any]) -> Any:
    """Return zeros in the place of what an operation gives, or NotImplemented for one that has to run."""
    zeros = HOLLOW.get(func)
    return NotImplemented if zeros is None else zeros(*args)


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a.new_zeros(*a.shape[:-1], b.shape[-1])


def _convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    if transposed or len(x.shape) != len(weight.shape):
        return NotImplemented
    spatial = len(x.shape) - 2
    stride, padding, dilation = (tuple(given) * (spatial // len(given)) for given in (stride, padding, dilation))
    sizes = [
        (size + 2 * around - apart * (kernel - 1) - 1) // step + 1
        for size, kernel, step, around, apart in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    return x.new_zeros(x.shape[0], weight.shape[0], *sizes)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    batch, heads, length, _ = query.shape
    # The kernel leaves positions outside of heads in memory; a reshape that follows sees that.
    result = query.new_zeros(batch, length, heads, value.shape[-1]).transpose(1, 2)
    return result, query.new_zeros(batch, heads, length)


def _layer_norm(x: torch.Tensor, normalized: Sequence[int], *_: Any) -> tuple[torch.Tensor, ...]:
    rows = [*x.shape[: x.dim() - len(normalized)], *(1 for _ in normalized)]
    return x.new_zeros(x.shape), x.new_zeros(rows), x.new_zeros(rows)


def _batch_norm(x: torch.Tensor, weight: Any, bias: Any, mean: torch.Tensor | None, variance: Any, training: bool, *_: Any) -> Any:
    if training or mean is None or prod(x.shape) == 0:
        return NotImplemented
    return torch.zeros_like(x), x.new_zeros(0), x.new_zeros(0)


def _alike(x: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.zeros_like(x)


HOLLOW: dict[Any, Callable[..., Any]] = {
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: lambda _, a, b: _product(a, b),
    aten.baddbmm.default: lambda _, a, b: _product(a, b),
    aten.convolution.default: _convolution,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_batch_norm.default: _batch_norm,
    aten.gelu.default: _alike,
    aten.silu.default: _alike,
    aten._softmax.default: _alike,
}
