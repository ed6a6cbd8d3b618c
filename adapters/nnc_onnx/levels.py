"""Grids as ONNX Runtime's kernels like them: uint8 for what passes layers, int8 for weights, int32 for biases.

A grid of fewer bits, or a signed one, is the same set of numbers in a byte, with another zero point. Where a byte holds more levels
than the grid, a Clip of the bytes gives the grid's ends back.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from nnc.graph.ir import Array
from nnc.grid import Grid

#: The largest level of which kernels that add pairs of products in 16 bits never overflow: 2 * 255 * 63 < 2^15.
_SAFE = 63
#: How much finer a bias must become to be worth two operations on bytes: 6 bits and fewer.
_WORTH = 4
#: The largest level of a bias: the products that are added to it, of 255 times 127 each, have as much room again in int32.
_MOST = 2**30


@dataclass(frozen=True)
class Bytes:
    """A tensor's grid in uint8: `q = clip(round(x / scale) + zero, low, high)`.

    Where a grid has few levels, kernels read it in steps `times` as small, see `fine`. `settled` says that what is quantised lies on the
    grid already.
    """

    scale: float
    zero: int
    low: int = 0
    high: int = 255
    times: int = 1
    settled: bool = False

    @property
    def clips(self) -> bool:
        return not self.settled and (self.low > 1 or self.high < 255)  # one level at the end of a narrow grid is no reason for an operation

    @property
    def fine(self) -> Bytes:
        """Return the grid of the same range whose every `times`-th level is one of this.

        A kernel's bias is in steps of its input's scale times its weight's: those of a few coarse levels would be too coarse for it.
        """
        if self.times == 1:
            return self
        high = (self.high - self.low) * self.times
        return Bytes(float(np.float32(self.scale / self.times)), (self.zero - self.low) * self.times, 0, high, settled=True)

    def behind_relu(self, top: float = inf) -> Bytes:
        """Return the grid's part that is not negative and not above `top`, with zero as its lowest level."""
        above = self.high - self.zero
        return Bytes(self.scale, 0, 0, above if top >= above * self.scale else round(top / self.scale), self.times)


def in_bytes(grid: Grid) -> Bytes | str:
    """Return a grid as bytes, or why it is none that a kernel takes."""
    if grid.axis is not None:
        return "a grid for each channel of what passes a layer has no integer kernel; give it one scale"
    if grid.bits > 8:
        return f"{grid.bits} bits do not fit into a byte"
    offset = 128 if grid.signed else 0
    times = 255 // (grid.highest - grid.lowest)
    place = float(grid.scale), int(grid.zero_point) + offset, grid.lowest + offset, grid.highest + offset
    return Bytes(*place, times if times >= _WORTH else 1)


@dataclass(frozen=True)
class Weight:
    """A weight in int8, canonical `(out, in, *kernel)`, with a scale for all or for each output channel."""

    levels: Array
    scale: Array
    zero: Array

    @property
    def numbers(self) -> Array:
        spread = [-1 if self.scale.ndim else 1, *[1] * (self.levels.ndim - 1)]
        zero, scale = self.zero.astype(np.int32).reshape(spread), self.scale.reshape(spread)
        return np.asarray((self.levels - zero) * scale, np.float32)

    def beside(self, bias: Array, step: float) -> Weight:
        """Return the weight in steps large enough for its `bias`, which is int32 in steps of these times `step`, the input's scale.

        Only a weight that is next to nothing beside its bias has smaller ones, as that of a channel that is zero everywhere.
        """
        needed = np.abs(bias.astype(np.float64)) / (_MOST * step)
        scale = np.maximum(self.scale, needed if self.scale.ndim else needed.max(initial=0)).astype(np.float32)
        if np.array_equal(scale, self.scale):
            return self
        spread = [-1 if scale.ndim else 1, *[1] * (self.levels.ndim - 1)]
        zero, ratio = self.zero.astype(np.int32).reshape(spread), (self.scale / scale).reshape(spread)
        return Weight((np.rint((self.levels - zero) * ratio) + zero).astype(np.int8), scale, self.zero)


def weight_levels(grid: Grid, source: Array, found: Array) -> Weight | str:
    """Return a layer's weight `source` on its grid, as it stands in the graph: `found` is it times a factor for each output channel.

    The factor, which BatchNorm leaves when it is folded, goes into the scale; the levels stay those that the algorithm chose.
    """
    if grid.bits > 8 or grid.block or grid.axis not in (None, 0):
        return f"{grid.bits} bits, axis {grid.axis}, block {grid.block} is no grid of an integer kernel"
    if found.shape == (*source.shape[:-1], 1, source.shape[-1]):
        source = source.reshape(found.shape)  # a kernel over a line, stored as one over an image of one row
    offset = 0 if grid.signed else 128
    levels = grid.quantise(source) - offset
    zero, scale = grid.zero_point - offset, grid.scale
    factor = _factor(source, found)
    if factor is None:
        return "the weight in the exported graph is not the layer's"
    if not (factor == 1).all():
        sign = np.where(factor < 0, -1, 1)
        spread = sign.reshape(-1, *[1] * (levels.ndim - 1))
        levels, zero, scale = levels * spread, np.broadcast_to(zero, sign.shape) * sign, np.maximum(scale * np.abs(factor), 1e-30)
    found_levels = np.clip(levels, -128, 127).astype(np.int8)
    return _spread(Weight(found_levels, np.asarray(scale, np.float32), np.asarray(zero, np.int8)), grid)


def _spread(weight: Weight, grid: Grid) -> Weight:
    """Return a weight of few bits as the same numbers with larger levels and smaller steps.

    Its bias, in steps of the input's scale times the weight's, is then as fine as one of 8 bits. Levels up to 63 never overflow, on
    whatever processor.
    """
    reach = int(max((grid.highest - grid.zero_point).max(), (grid.zero_point - grid.lowest).max()))
    times = _SAFE // reach
    if times < 2:
        return weight
    zero = weight.zero.astype(np.int32).reshape(-1, *[1] * (weight.levels.ndim - 1)) if weight.zero.ndim else int(weight.zero)
    levels = ((weight.levels - zero) * times).astype(np.int8)
    return Weight(levels, weight.scale / np.float32(times), np.zeros_like(weight.zero))


def _factor(source: Array, found: Array) -> Array | None:
    """Return `found / source` for each output channel, or None where it is not the same for all of a channel."""
    if source.shape != found.shape:
        return None
    if np.allclose(source, found, rtol=1e-6, atol=1e-12):
        return np.ones(len(source))
    a, b = source.reshape(len(source), -1).astype(np.float64), found.reshape(len(found), -1).astype(np.float64)
    factor = (a * b).sum(1) / np.maximum((a * a).sum(1), 1e-30)
    close = np.allclose(a * factor[:, None], b, rtol=1e-4, atol=1e-5 * max(np.abs(b).max(), 1e-30))
    return factor if close else None


def bias_levels(bias: Array, scale: Array) -> Array:
    """Return a bias as int32 in steps of `scale`: that of the input times the weight's, which is one `beside` this bias."""
    return np.asarray(np.rint(bias.astype(np.float64) / np.asarray(scale, np.float64)), np.int32)
