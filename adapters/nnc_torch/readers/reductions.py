"""Operations that join elements along axes: pooling, sums and means, softmax and sorting."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nnc_torch.record import Call

aten = torch.ops.aten


def _count(call: Call) -> int:
    """Return how many spatial axes the operation's name speaks of: 2 for `max_pool2d`."""
    digits = [c for c in call.operation.name if c.isdigit()]
    return int(digits[0]) if digits else 2


def _window(call: Call) -> tuple[int, ...]:
    rank = call["self"].dim()
    return tuple(range(rank - _count(call), rank))


def max_pool(call: Call) -> None:
    """max_pool*: pads with minus infinity, so constants stay constants."""
    call.emit("pool", call.read("self"), axes=_window(call), function="max", padded=False)


def average_pool(call: Call) -> None:
    """avg_pool*(self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)."""
    padded = any(call["padding"]) and call["count_include_pad"]
    padded = padded or call.get("divisor_override") is not None
    call.emit("pool", call.read("self"), axes=_window(call), function="average", padded=bool(padded))


def smooth_pool(call: Call) -> None:
    """Adaptive averages and interpolation: weighted means of neighbours."""
    call.emit("pool", call.read("self"), axes=_window(call), function="average", padded=False)


def reduce(function: str) -> Callable[[Call], None]:
    """Return the reader of a reduction."""

    def read(call: Call) -> None:
        axes = call.axes() if "dim" in call else tuple(range(call["self"].dim()))
        keepdims = bool(call.get("keepdim", False))
        call.emit("reduce", call.read("self"), axes=axes, keepdims=keepdims, function=function)

    return read


def along(call: Call) -> None:
    """softmax: mixes the elements of one axis."""
    call.emit("along", call.read("self"), axes=(call.axis(),))


def along_with_zeros(call: Call) -> None:
    """cumsum, sort: mix the elements of one axis; zeros give zeros."""
    call.emit("along", call.read("self"), axes=(call.axis(),), zeros=True)


def roll(call: Call) -> bool | None:
    """roll(self, shifts, dims); without dims it rolls the flattened tensor."""
    if not call["dims"]:
        return False
    call.emit("along", call.read("self"), axes=call.axes("dims"), zeros=True)
    return None


def restrided(call: Call) -> bool | None:
    """as_strided_(self, size, stride): what adaptive_avg_pool1d does to a fresh mean, which holds one number a channel in order."""
    x, nodes = call.read("self"), call.values.graph.nodes
    fresh = bool(nodes) and nodes[-1].kind == "reduce" and nodes[-1].outputs[0] is x
    wide = [axis for axis, size in enumerate(call["size"]) if size != 1]
    strides, expected = [call["stride"][axis] for axis in wide], 1
    for axis, stride in zip(reversed(wide), reversed(strides), strict=True):
        if stride != expected:
            return False
        expected *= call["size"][axis]
    if x is None or not fresh or tuple(call["size"]) != x.shape:
        return False
    call.give(x)
    return None


_MAX_POOLS = (aten.max_pool2d_with_indices, aten.max_pool3d_with_indices, aten.adaptive_max_pool2d, aten.adaptive_max_pool3d)
_MEANS = ("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
_MEANS += ("_upsample_nearest_exact2d", "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d")
_EXTREMES = "amax amin max min"
_OTHERS = "prod any all argmax argmin logsumexp median linalg_vector_norm"

READERS = {
    **dict.fromkeys(_MAX_POOLS, max_pool),
    **dict.fromkeys((aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d), average_pool),
    **{getattr(aten, name): smooth_pool for name in _MEANS},
    aten.mean: reduce("mean"),
    aten.sum: reduce("sum"),
    **dict.fromkeys((aten.var, aten.std), reduce("variance")),
    **{getattr(aten, name): reduce("extreme") for name in _EXTREMES.split()},
    **{getattr(aten, name): reduce("other") for name in _OTHERS.split()},
    **dict.fromkeys((aten._softmax, aten._safe_softmax, aten._log_softmax, aten.logcumsumexp), along),
    **dict.fromkeys((aten.cumsum, aten.cumprod, aten.sort), along_with_zeros),
    aten.roll: roll,
    aten.as_strided_: restrided,
}
