"""Views that show a tensor on a grid, and tell the grid when training is over.

weights        ScaleOfMax   the scale is the largest |w| of now, for each output channel
               FixedScale, LearnedScale, Squashed, Binary
activations    Range        a range that follows the batches in training
               LearnedScale, LearnedGrid, Clipped
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from math import prod, sqrt
from typing import Any

import numpy as np

from nnc.adapter import Ops
from nnc.graph.ir import Array
from nnc.grid import SMALLEST, Grid
from nnc.views import State, Variable, View
from nnc_quantization import fake

#: How much of an activation's range is new with each batch of training (Jacob et al. 2018, arXiv:1712.05877, section 3.1).
_FRESH = 0.01


class Quantised(View):
    """A view on a grid."""

    name = "quantise"
    #: Whether an activation's range is as wide on both sides of zero.
    symmetric = False

    def limits(self, grid: Grid) -> tuple[float, float]:
        """Return the range of which a view like this one, of an activation, would make `grid` again.

        A symmetric grid has one level more below zero than above; its range has not.
        """
        scale, zero = float(grid.scale), int(grid.zero_point)
        high = (grid.highest - zero) * scale
        return (-high if self.symmetric else (grid.lowest - zero) * scale), high

    @abstractmethod
    def grid(self, weight: Array | None, numbers: Mapping[str, Array]) -> Grid:
        """Return the grid that is seen now, given the view's numbers and, of a weight, the masked weight `(out, in, *kernel)`."""


def group_at(kind: str, rate: float) -> str:
    """Return the group of the scales of a kind, "weight" or "input", that learn at a rate."""
    return f"{kind} scales at {rate:g}"


class ScaleOfMax(Quantised):
    """A weight on the narrow symmetric grid that covers it: scale = max |w| / (2^(bits-1) - 1), one for each output channel or for all.

    `shrink` (out, 1, ...) or a number makes the range smaller than the largest |w|: what an observer found to be better. `block` inputs
    of each output share a scale where it is not 0.
    """

    def __init__(self, bits: int, per_channel: bool, shrink: Array | float = 1.0, block: int = 0) -> None:
        self.bits, self.per_channel, self.shrink, self.block = bits, per_channel, shrink, block
        self.highest = 2 ** (bits - 1) - 1

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        if self.block:
            return self._blocks(x, ops)
        axes = tuple(range(1, len(x.shape))) if self.per_channel else tuple(range(len(x.shape)))
        seen = ops.stop_gradient(x)
        largest = ops.maximum(ops.max(seen, axis=axes, keepdims=True), -ops.min(seen, axis=axes, keepdims=True))
        clips = not isinstance(self.shrink, float) or self.shrink != 1.0
        if clips:
            largest = largest * ops.asarray(np.asarray(self.shrink, np.float32))
        scale = ops.clip(largest / self.highest, SMALLEST)
        return fake.ste_symmetric(x, scale, self.highest, ops) if clips else fake.covered(x, scale, ops)

    def _blocks(self, x: Any, ops: Ops) -> Any:
        out, width = (int(size) for size in x.shape[:2])
        padding = -width % self.block
        padded = ops.concat([x, ops.zeros((out, padding), dtype=x.dtype)], axis=1) if padding else x
        blocks = ops.reshape(padded, (out, -1, self.block))
        largest = ops.max(ops.abs(ops.stop_gradient(blocks)), axis=2, keepdims=True)
        scale = ops.maximum(largest / self.highest, SMALLEST * ops.ones_like(largest))
        on_grid = fake.ste_symmetric(blocks, scale, self.highest, ops)
        return ops.reshape(on_grid, (out, width + padding))[:, :width]

    def grid(self, weight: Array | None, numbers: Mapping[str, Array]) -> Grid:
        assert weight is not None
        if self.block:
            return Grid.around_zero(weight, self.bits, 0, self.block)
        found = Grid.around_zero(weight, self.bits, 0 if self.per_channel else None)
        shrink = np.asarray(self.shrink, np.float32).reshape(-1 if np.ndim(self.shrink) else ())
        scale = np.maximum(found.scale * shrink, SMALLEST)
        return Grid(scale, found.zero_point, self.bits, True, True, found.axis)


class FixedScale(Quantised):
    """A weight on a narrow symmetric grid whose scale, `(out,)` or (), was decided before: it has been rounded already."""

    def __init__(self, bits: int, scale: Array) -> None:
        self.bits, self.scale = bits, np.asarray(scale, np.float32)
        self.highest = 2 ** (bits - 1) - 1

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        scale = ops.asarray(self.scale.reshape(-1, *(1,) * (len(x.shape) - 1)) if self.scale.ndim else self.scale)
        return fake.ste_symmetric(x, scale, self.highest, ops)

    def grid(self, weight: Array | None, numbers: Mapping[str, Array]) -> Grid:
        return Grid(self.scale, np.zeros_like(self.scale), self.bits, True, True, 0 if self.scale.ndim else None)


class Range(Quantised):
    """An activation on the unsigned grid of a range; in training the range follows each batch a little, unless it is fixed."""

    def __init__(self, bits: int, low: float, high: float, symmetric: bool = False, follows: bool = True, shared: str = "") -> None:
        self.bits, self.symmetric, self.follows, self.shared = bits, symmetric, follows, shared
        self.low, self.high = min(low, 0.0), max(high, 0.0)
        self.highest = 2**bits - 1

    def variables(self) -> Mapping[str, Variable]:
        return {
            "low": Variable(np.asarray(self.low, np.float32), shared=self.shared and f"{self.shared} low"),
            "high": Variable(np.asarray(self.high, np.float32), shared=self.shared and f"{self.shared} high"),
        }

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        if training and self.follows:
            low, high, scale, zero = ops.few(self._followed, state["low"], state["high"], *ops.extremes(ops.stop_gradient(x)))
            state.assign("low", low)
            state.assign("high", high)
        else:
            scale, zero = ops.few(self._grid, state["low"], state["high"])
        return fake.ste(x, scale, zero, 0, self.highest, ops)

    def _followed(self, ops: Any, low: Any, high: Any, smallest: Any, largest: Any) -> tuple[Any, ...]:
        """Return the range after a batch with these extremes, and its grid."""
        low = low + _FRESH * (ops.minimum(smallest, 0.0) - low)
        high = high + _FRESH * (ops.maximum(largest, 0.0) - high)
        return low, high, *self._grid(ops, low, high)

    def _grid(self, ops: Any, low: Any, high: Any) -> tuple[Any, Any]:
        if self.symmetric:
            scale = ops.maximum(ops.maximum(-low, high) / (self.highest // 2), SMALLEST)
            return scale, ops.ones_like(scale) * float((self.highest + 1) // 2)
        scale = ops.maximum((high - low) / self.highest, SMALLEST)
        return scale, ops.minimum(ops.maximum(ops.round(-low / scale), 0.0), float(self.highest))

    def grid(self, weight: Array | None, numbers: Mapping[str, Array]) -> Grid:
        low, high = float(numbers["low"]), float(numbers["high"])
        if not self.symmetric:
            return Grid.between(low, high, self.bits)
        scale = max(max(-low, high) / (self.highest // 2), SMALLEST)
        return Grid(np.asarray(scale, np.float32), np.asarray((self.highest + 1) // 2, np.int32), self.bits, False)


class LearnedScale(Quantised):
    """A tensor on a symmetric grid whose scale learns (LSQ); of an activation that is never negative all levels are positive.

    `start` is the first scale, `(out, 1, ...)` or a number. `samples` says that axis 0 counts samples, which do not count for the
    gradient's scale 1 / sqrt(N * highest).
    """

    def __init__(self, bits: int, start: Array, signed: bool, samples: bool, group: str, shared: str = "") -> None:
        self.bits, self.signed, self.samples, self.group, self.shared = bits, signed, samples, group, shared
        self.symmetric = signed
        self.start = np.asarray(np.maximum(start, SMALLEST), np.float32)
        self.high = 2 ** (bits - signed) - 1
        self.low = 0 if not signed else -self.high - (1 if samples else 0)

    def variables(self) -> Mapping[str, Variable]:
        return {"ratio": Variable(np.ones_like(self.start), True, self.group, self.shared and f"{self.shared} ratio")}

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        scale = _positive(state["ratio"], ops) * ops.asarray(self.start)
        axes = tuple(range(1, len(x.shape))) if self.start.ndim else None
        sizes = [size or 1 for size in x.shape]  # an unknown size is the batch
        numbers = prod(sizes[1:]) if self.samples or axes else prod(sizes)
        return fake.lsq(x, scale, self.low, self.high, 1 / sqrt(numbers * self.high), axes, ops)

    def grid(self, weight: Array | None, numbers: Mapping[str, Array]) -> Grid:
        scale = _ratio(numbers["ratio"]) * self.start
        if not self.samples:
            flat = scale.reshape(-1 if scale.ndim else ())
            return Grid(flat, np.zeros(flat.shape), self.bits, True, True, 0 if scale.ndim else None)
        return Grid(scale, np.asarray(-self.low, np.int32), self.bits, False)


class LearnedGrid(Quantised):
    """An activation on a grid whose scale and zero point learn (LSQ+)."""

    def __init__(self, bits: int, low: float, high: float, group: str, shared: str = "") -> None:
        self.bits, self.group, self.shared = bits, group, shared
        self.start = Grid.between(low, high, bits)

    def variables(self) -> Mapping[str, Variable]:
        name = self.shared
        return {
            "ratio": Variable(np.ones((), np.float32), True, self.group, name and f"{name} ratio"),
            "shift": Variable(np.zeros((), np.float32), True, self.group, name and f"{name} shift"),
        }

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        highest = 2**self.bits - 1
        factor = 1 / sqrt(prod(size or 1 for size in x.shape[1:]) * highest)
        scale = _positive(state["ratio"], ops) * float(self.start.scale)
        zero = state["shift"] * highest + float(self.start.zero_point)
        return fake.lsq_plus(x, scale, zero, 0, highest, factor, ops)

    def grid(self, weight: Array | None, numbers: Mapping[str, Array]) -> Grid:
        highest = 2**self.bits - 1
        zero = np.clip(np.rint(numbers["shift"] * np.float32(highest) + np.float32(self.start.zero_point)), 0, highest)
        return Grid(_ratio(numbers["ratio"]) * self.start.scale, zero, self.bits, False)


class Clipped(Quantised):
    """An activation clipped at an alpha that learns (PACT); one that is also negative is clipped on both sides."""

    def __init__(self, bits: int, alpha: float, signed: bool, group: str, shared: str = "") -> None:
        self.bits, self.alpha, self.signed, self.group, self.shared = bits, max(alpha, SMALLEST), signed, group, shared
        self.symmetric = signed

    def variables(self) -> Mapping[str, Variable]:
        return {"ratio": Variable(np.ones((), np.float32), True, self.group, self.shared and f"{self.shared} ratio")}

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        alpha = _positive(state["ratio"], ops) * self.alpha
        return fake.pact_signed(x, alpha, self.bits, ops) if self.signed else fake.pact(x, alpha, self.bits, ops)

    def grid(self, weight: Array | None, numbers: Mapping[str, Array]) -> Grid:
        alpha = float(_ratio(numbers["ratio"])) * self.alpha
        if self.signed:
            half = 2 ** (self.bits - 1)
            return Grid(np.asarray(alpha / (half - 1), np.float32), np.asarray(half, np.int32), self.bits, False)
        return Grid(np.asarray(alpha / (2**self.bits - 1), np.float32), np.asarray(0, np.int32), self.bits, False)


class Squashed(Quantised):
    """A weight squashed by tanh into [-1, 1] (DoReFa)."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        return fake.dorefa(x, self.bits, ops)

    def grid(self, weight: Array | None, numbers: Mapping[str, Array]) -> Grid:
        """The levels (2i - n) / n, n = 2^bits - 1, are odd multiples of 1 / n: a symmetric grid of one bit more, but for eight bits."""
        if self.bits == 1:
            assert weight is not None
            return Grid(np.asarray(max(np.abs(weight).mean(), SMALLEST), np.float32), np.asarray(0, np.int32), 2, True, True)
        bits = min(self.bits + 1, 8)
        return Grid(np.asarray(1 / (2 ** (bits - 1) - 1), np.float32), np.asarray(0, np.int32), bits, True, True)


class Binary(Quantised):
    """A weight of +1 and -1, times the mean |w| of its output channel (XNOR-Net) unless it is plain."""

    def __init__(self, scaled: bool = True) -> None:
        self.scaled = scaled

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        signs = fake.binary(x, ops)
        if not self.scaled:
            return signs
        axes = tuple(range(1, len(x.shape)))
        return signs * ops.mean(ops.abs(ops.stop_gradient(x)), axis=axes, keepdims=True)

    def grid(self, weight: Array | None, numbers: Mapping[str, Array]) -> Grid:
        assert weight is not None
        means = np.abs(weight).reshape(len(weight), -1).mean(axis=1) if self.scaled else np.ones(len(weight))
        return Grid(np.maximum(means, SMALLEST), np.zeros(len(weight)), 2, True, True, 0)


class Unit(Quantised):
    """An activation clipped to [0, 1] (DoReFa)."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        return fake.dorefa_activation(x, self.bits, ops)

    def grid(self, weight: Array | None, numbers: Mapping[str, Array]) -> Grid:
        return Grid(np.asarray(1 / (2**self.bits - 1), np.float32), np.asarray(0, np.int32), self.bits, False)


def _ratio(numbers: Array) -> Array:
    return np.asarray(np.maximum(np.abs(numbers), SMALLEST), np.float32)


def _positive(scale: Any, ops: Ops) -> Any:
    """Return a scale that has not crossed zero, with a gradient everywhere."""
    return ops.clip(ops.abs(scale), SMALLEST)
