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
    return NotImplemented if zeros is None or not _alike(args) else zeros(*args)


def _alike(args: Sequence[Any]) -> bool:
    """Tell whether all tensors are of one type and on one device; where they are not, the operation itself knows what to say."""
    first = args[0]
    return all(arg.dtype == first.dtype and arg.device == first.device for arg in args if isinstance(arg, torch.Tensor))


def _product(a: torch.Tensor, b: torch.Tensor) -> Any:
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        return NotImplemented
    return a.new_zeros(*a.shape[:-1], b.shape[-1])


def _product_plus(addend: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> Any:
    result = _product(a, b)
    fits = result is not NotImplemented and all(n in (1, m) for n, m in zip(reversed(addend.shape), reversed(result.shape), strict=False))
    return result if fits else NotImplemented


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
    if transposed or len(x.shape) != len(weight.shape) or x.shape[1] != weight.shape[1] * groups:
        return NotImplemented
    spatial = len(x.shape) - 2
    stride, padding, dilation = (tuple(given) * (spatial // len(given)) for given in (stride, padding, dilation))
    sizes = [
        (size + 2 * around - apart * (kernel - 1) - 1) // step + 1
        for size, kernel, step, around, apart in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    return x.new_zeros(x.shape[0], weight.shape[0], *sizes) if min(sizes) > 0 else NotImplemented


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> Any:
    batch, heads, length, _ = query.shape
    # The kernel leaves positions outside of heads in memory; a reshape that follows sees that.
    result = query.new_zeros(batch, length, heads, value.shape[-1]).transpose(1, 2)
    return result, query.new_zeros(batch, heads, length)


def _layer_norm(x: torch.Tensor, normalized: Sequence[int], *_: Any) -> Any:
    if tuple(x.shape[x.dim() - len(normalized) :]) != tuple(normalized):
        return NotImplemented
    rows = [*x.shape[: x.dim() - len(normalized)], *(1 for _ in normalized)]
    return x.new_zeros(x.shape), x.new_zeros(rows), x.new_zeros(rows)


def _batch_norm(x: torch.Tensor, weight: Any, bias: Any, mean: torch.Tensor | None, variance: Any, training: bool, *_: Any) -> Any:
    if training or mean is None or prod(x.shape) == 0 or mean.shape[0] != x.shape[1]:
        return NotImplemented
    return torch.zeros_like(x), x.new_zeros(0), x.new_zeros(0)


def _same(x: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.zeros_like(x)


HOLLOW: dict[Any, Callable[..., Any]] = {
    aten.mm.default: _product,
    aten.bmm.default: _product,
    aten.addmm.default: _product_plus,
    aten.baddbmm.default: _product_plus,
    aten.convolution.default: _convolution,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_batch_norm.default: _batch_norm,
    aten.gelu.default: _same,
    aten.silu.default: _same,
    aten._softmax.default: _same,
}
#: The names of those operations in a graph.
LEFT_OUT = frozenset(func._schema.name.replace("aten::", "aten.") for func in HOLLOW)
