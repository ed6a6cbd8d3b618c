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


@dataclass(frozen=True)
class Bytes:
    """A tensor's grid in uint8: `q = clip(round(x / scale) + zero, low, high)`."""

    scale: float
    zero: int
    low: int = 0
    high: int = 255

    @property
    def clips(self) -> bool:
        return self.low > 1 or self.high < 255  # one level at the end of a narrow grid is no reason for an operation

    def behind_relu(self, top: float = inf) -> Bytes:
        """Return the grid's part that is not negative and not above `top`, with zero as its lowest level."""
        above = self.high - self.zero
        return Bytes(self.scale, 0, 0, above if top >= above * self.scale else round(top / self.scale))


def in_bytes(grid: Grid) -> Bytes | str:
    """Return a grid as bytes, or why it is none that a kernel takes."""
    if grid.axis is not None:
        return "a grid for each channel of what passes a layer has no integer kernel; give it one scale"
    if grid.bits > 8:
        return f"{grid.bits} bits do not fit into a byte"
    offset = 128 if grid.signed else 0
    return Bytes(float(grid.scale), int(grid.zero_point) + offset, grid.lowest + offset, grid.highest + offset)


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


def weight_levels(grid: Grid, source: Array, found: Array) -> Weight | str:
    """Return a layer's weight `source` on its grid, as it stands in the graph: `found` is it times a factor for each output channel.

    The factor, which BatchNorm leaves when it is folded, goes into the scale; the levels stay those that the algorithm chose.
    """
    if grid.bits > 8 or grid.block or grid.axis not in (None, 0):
        return f"{grid.bits} bits, axis {grid.axis}, block {grid.block} is no grid of an integer kernel"
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
    return Weight(np.clip(levels, -128, 127).astype(np.int8), np.asarray(scale, np.float32), np.asarray(zero, np.int8))


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


def bias_levels(bias: Array, scale: Array) -> Array | None:
    """Return a bias as int32 in steps of `scale` (that of the input times the weight's), or None where it does not fit."""
    levels = np.rint(bias.astype(np.float64) / np.asarray(scale, np.float64))
    return levels.astype(np.int32) if np.abs(levels).max(initial=0) < 2**31 else None
