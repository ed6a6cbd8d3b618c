"""Operations that give zeros of the right shape in place of their numbers.

Which channels can only leave together follows from shapes. So where only the graph is asked for, the operations that take nearly all of
a forward pass's time are not computed: products, convolutions, attentions, normalisations, and what is done point by point with their
results. All others run: positions, masks and indices are the real ones, and so is whatever the model's code decides by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch

aten = torch.ops.aten


class Hollow:
    """The zeros of one recording. They are all in one place in memory, so that making them costs no pass over memory."""

    def __init__(self) -> None:
        self._memory: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}
        #: By their storage; kept, since the identity of what is freed is given to others.
        self._all: dict[int, torch.Tensor] = {}

    def __call__(self, func: Any, args: Sequence[Any]) -> Any:
        """Return zeros in the place of what an operation gives, or NotImplemented for one that has to run."""
        make = DEAR.get(func)
        if make is None:
            make = FOLLOWING.get(func)
            if make is None or not self.holds(arg for arg in args if isinstance(arg, torch.Tensor)):
                return NotImplemented
        return make(self, *args) if _alike(args) else NotImplemented

    def holds(self, tensors: Iterable[torch.Tensor]) -> bool:
        """Tell whether any of the tensors, or what it is a view of, was left out."""
        return any(t.layout == torch.strided and t.untyped_storage()._cdata in self._all for t in tensors)

    def zeros(self, like: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Return zeros of a tensor's type, on its device, one row after the other."""
        strides = [1]
        for size in reversed(shape[1:]):
            strides.append(strides[-1] * max(1, size))
        return self._strided(like, shape, strides[::-1][: len(shape)])

    def same(self, like: torch.Tensor) -> torch.Tensor:
        """Return zeros of a tensor's shape, in the order in memory that torch would give them."""
        if like.is_contiguous():
            return self._strided(like, like.shape, like.stride())
        return self._strided(like, like.shape, torch.empty_like(like).stride())

    def _strided(self, like: torch.Tensor, shape: Sequence[int], strides: Sequence[int]) -> torch.Tensor:
        key, count = (like.dtype, like.device), prod(shape)
        memory = self._memory.get(key)
        if memory is None or memory.numel() < count:
            memory = self._memory[key] = _untouched(2 * count + 64, like)
            self._all[memory.untyped_storage()._cdata] = memory
        return memory.as_strided(shape, strides)


def _untouched(count: int, like: torch.Tensor) -> torch.Tensor:
    """Return zeros; on the CPU they are pages that the kernel has promised, and gives when something reads them."""
    if like.device.type != "cpu":
        return torch.zeros(count, dtype=like.dtype, device=like.device)
    return torch.from_numpy(np.zeros(count * like.element_size(), np.uint8)).view(like.dtype)


def _alike(args: Sequence[Any]) -> bool:
    """Tell whether all tensors are of one type and on one device; where they are not, the operation itself knows what to say."""
    first = args[0]
    if not isinstance(first, torch.Tensor):
        return False
    return all(arg.dtype == first.dtype and arg.device == first.device for arg in args if isinstance(arg, torch.Tensor))


def _product(hollow: Hollow, a: torch.Tensor, b: torch.Tensor) -> Any:
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        return NotImplemented
    return hollow.zeros(a, (*a.shape[:-1], b.shape[-1]))


def _product_plus(hollow: Hollow, addend: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> Any:
    result = _product(hollow, a, b)
    return result if result is not NotImplemented and _spreads(addend.shape, result.shape) else NotImplemented


def _spreads(shape: Sequence[int], over: Sequence[int]) -> bool:
    """Tell whether a shape broadcasts to another without changing that."""
    return len(shape) <= len(over) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(over), strict=False))


def _convolution(
    hollow: Hollow,
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
    return hollow.zeros(x, (x.shape[0], weight.shape[0], *sizes)) if min(sizes) > 0 else NotImplemented


def _attention(hollow: Hollow, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> Any:
    batch, heads, length, _ = query.shape
    # The kernel leaves positions outside of heads in memory; a reshape that follows sees that.
    result = hollow.zeros(query, (batch, length, heads, value.shape[-1])).transpose(1, 2)
    return result, hollow.zeros(query, (batch, heads, length))


def _layer_norm(hollow: Hollow, x: torch.Tensor, normalized: Sequence[int], *_: Any) -> Any:
    if tuple(x.shape[x.dim() - len(normalized) :]) != tuple(normalized):
        return NotImplemented
    rows = [*x.shape[: x.dim() - len(normalized)], *(1 for _ in normalized)]
    return hollow.zeros(x, x.shape), hollow.zeros(x, rows), hollow.zeros(x, rows)


def _batch_norm(
    hollow: Hollow, x: torch.Tensor, weight: Any, bias: Any, mean: torch.Tensor | None, variance: Any, training: bool, *_: Any
) -> Any:
    if training or mean is None or prod(x.shape) == 0 or mean.shape[0] != x.shape[1]:
        return NotImplemented
    return hollow.same(x), hollow.zeros(x, (0,)), hollow.zeros(x, (0,))


def _same(hollow: Hollow, x: torch.Tensor, *_: Any) -> torch.Tensor:
    return hollow.same(x)


def _both(hollow: Hollow, a: torch.Tensor, b: Any) -> Any:
    if not isinstance(b, torch.Tensor) or _spreads(b.shape, a.shape):
        return hollow.same(a) if a.is_floating_point() else NotImplemented
    return hollow.zeros(a, b.shape) if a.is_floating_point() and _spreads(a.shape, b.shape) else NotImplemented


def _in_place(hollow: Hollow, a: torch.Tensor, *others: Any) -> Any:
    fit = all(_spreads(b.shape, a.shape) for b in others if isinstance(b, torch.Tensor))
    return a if fit and hollow.holds([a]) else NotImplemented


def _padded(hollow: Hollow, x: torch.Tensor, around: Sequence[int], *_: Any) -> Any:
    # `around` begins with the last axis: before, after.
    added = [before + after for before, after in zip(around[::2], around[1::2], strict=True)][::-1]
    shape = [size + more for size, more in zip(x.shape, [0] * (x.dim() - len(added)) + added, strict=True)]
    return hollow.zeros(x, shape) if min(shape) > 0 else NotImplemented


#: Left out wherever they are.
DEAR: dict[Any, Callable[..., Any]] = {
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
#: Left out where they read what was left out.
FOLLOWING: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor), _both),
    **dict.fromkeys((aten.relu.default, aten.hardtanh.default, aten.hardswish.default, aten.hardsigmoid.default), _same),
    **dict.fromkeys((aten.sigmoid.default, aten.tanh.default, aten.leaky_relu.default, aten.elu.default, aten.clone.default), _same),
    **dict.fromkeys((aten.add_.Tensor, aten.sub_.Tensor, aten.mul_.Tensor, aten.div_.Tensor), _in_place),
    **dict.fromkeys((aten.relu_.default, aten.hardtanh_.default, aten.hardswish_.default, aten.silu_.default), _in_place),
    aten.constant_pad_nd.default: _padded,
}
#: The names of the dear ones in a graph; whatever was left out because of them follows from them there too.
LEFT_OUT = frozenset(func._schema.name.replace("aten::", "aten.") for func in DEAR)
