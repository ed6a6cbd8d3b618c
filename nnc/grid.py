"""The numbers that a quantised tensor may take: a grid, given by a scale and a zero point.

    q = clip(round(x / scale) + zero_point, lowest, highest)       round half to even
    x' = scale * (q - zero_point)

    signed               lowest = -2^(bits-1)      highest = 2^(bits-1) - 1
    signed and narrow    lowest = -highest: as many steps on both sides of zero, as integer kernels like their weights
    unsigned             lowest = 0                highest = 2^bits - 1

An algorithm finds grids, an exporter writes them into a file; `Grids` is all that passes between the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnc.errors import ConfigError
from nnc.graph.ir import Array
from nnc.graph.plan import Plan
from nnc.views import Site

#: No scale is smaller: what is zero everywhere still gets a grid.
SMALLEST = 1e-8


@dataclass(frozen=True, eq=False)
class Grid:
    """How one tensor is quantised. `scale` is float32, `zero_point` int32, both of the same shape:

        axis None            (), the whole tensor
        axis a, block 0      (n,), each index of axis a has its own; of a weight axes are those of `(out, in, *kernel)`
        axis 0, block b      (out, ceil(in / b)), each run of b inputs of a weight `(out, in)` has its own

    Raises `ConfigError` for bits outside 2 to 16, shapes that differ, and a scale that is not positive.
    """

    scale: Array
    zero_point: Array
    bits: int = 8
    signed: bool = True
    narrow: bool = False
    axis: int | None = None
    block: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", np.asarray(self.scale, np.float32))
        object.__setattr__(self, "zero_point", np.asarray(self.zero_point, np.int32))
        if not 2 <= self.bits <= 16:
            raise ConfigError(f"grid: {self.bits} bits are outside 2 to 16.")
        rank = 0 if self.axis is None else 2 if self.block else 1
        if self.scale.ndim != rank or self.zero_point.shape != self.scale.shape:
            where = f"axis {self.axis}, block {self.block}: expected {rank} dimensions"
            raise ConfigError(f"grid: the scale has the shape {self.scale.shape}, the zero point {self.zero_point.shape}; {where}.")
        if not (np.isfinite(self.scale) & (self.scale > 0)).all():
            raise ConfigError("grid: a scale must be positive and finite.")
        if ((self.zero_point < self.lowest) | (self.zero_point > self.highest)).any():
            raise ConfigError(f"grid: a zero point is outside {self.lowest} to {self.highest}, what {self.bits} bits hold.")

    @property
    def highest(self) -> int:
        return int(2 ** (self.bits - self.signed) - 1)

    @property
    def lowest(self) -> int:
        return -self.highest - (not self.narrow) if self.signed else 0

    @property
    def symmetric(self) -> bool:
        """Whether zero is the zero point everywhere."""
        return not self.zero_point.any()

    def quantise(self, array: Array) -> Array:
        """Return the whole numbers that stand for `array`, int32 of its shape."""
        scale, zero = self._spread(np.shape(array))
        levels = np.rint(np.asarray(array, np.float32) / scale)
        return np.asarray(np.clip(levels + zero, self.lowest, self.highest), np.int32)

    def dequantise(self, levels: Array) -> Array:
        """Return the numbers, float32, that whole numbers stand for."""
        scale, zero = self._spread(np.shape(levels))
        return np.asarray((levels - zero) * scale, np.float32)

    def __call__(self, array: Array) -> Array:
        """Return the nearest numbers of the grid."""
        return self.dequantise(self.quantise(array))

    def _spread(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Return scale and zero point so that they broadcast against `shape`."""
        if self.axis is None:
            return self.scale, self.zero_point
        if self.block:
            columns = np.arange(shape[1]) // self.block
            return self.scale[:, columns], self.zero_point[:, columns]
        spread = [1] * len(shape)
        spread[self.axis] = -1
        return self.scale.reshape(spread), self.zero_point.reshape(spread)

    def same(self, other: Grid) -> bool:
        """Whether two grids are one."""
        mine, theirs = self._form(), other._form()
        return mine == theirs and np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)

    def _form(self) -> tuple[Any, ...]:
        return self.bits, self.signed, self.narrow, self.axis, self.block

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; a float32 survives it exactly."""
        form = {"bits": self.bits, "signed": self.signed, "narrow": self.narrow, "axis": self.axis, "block": self.block}
        return {"scale": self.scale.tolist(), "zero_point": self.zero_point.tolist(), **form}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Grid:
        """Return the grid whose `to_dict()` is `data`."""
        return cls(**data)

    @classmethod
    def around_zero(cls, array: Array, bits: int = 8, axis: int | None = None, block: int = 0) -> Grid:
        """Return the narrow symmetric grid that just covers an array: scale = max |x| / (2^(bits-1) - 1), for each index of `axis`."""
        scale = np.maximum(_largest(np.abs(array), axis, block) / (2 ** (bits - 1) - 1), SMALLEST)
        return cls(scale, np.zeros_like(scale), bits, True, True, axis, block)

    @classmethod
    def between(cls, low: float, high: float, bits: int = 8) -> Grid:
        """Return the unsigned grid that covers low to high, and zero exactly.

        scale = (high - low) / (2^bits - 1), zero_point = round(-low / scale), after low = min(low, 0) and high = max(high, 0).
        """
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        scale = np.asarray(max((high - low) / (2**bits - 1), SMALLEST), np.float32)
        return cls(scale, np.asarray(np.clip(np.rint(-low / scale), 0, 2**bits - 1)), bits, False)


def _largest(array: Array, axis: int | None, block: int) -> Array:
    if axis is None:
        return np.asarray(array.max())
    if not block:
        return np.asarray(array.max(axis=tuple(other for other in range(array.ndim) if other != axis)))
    rows, columns = array.shape
    padded = np.pad(array, ((0, 0), (0, -columns % block)))
    return np.asarray(padded.reshape(rows, -1, block).max(axis=2))


#: How the tensors of a model are quantised: a layer's "weight", its "input", its "output".
Grids = Mapping[Site, Grid]


def kept(grids: Grids, plan: Plan) -> dict[Site, Grid]:
    """Return the grids of what is left after a plan: of a weight with a scale for each output channel those of the channels that stay.

    Grids of blocks, which hold inputs that leave, are those of weights that are no more.
    """
    axes = plan.axes()
    found = {}
    for site, grid in grids.items():
        members = axes.get((str(site), grid.axis), ()) if grid.axis is not None else ()
        if grid.block and site.is_parameter and any(tensor == str(site) for tensor, _ in axes):
            continue
        keep = np.ones(len(grid.scale) if members else 0, bool)
        for member in members:
            member.clear(keep)
        found[site] = replace(grid, scale=grid.scale[keep], zero_point=grid.zero_point[keep]) if members else grid
    return found


def grids_to_dict(grids: Grids) -> dict[str, Any]:
    """Return plain data for JSON: {layer: {tensor: grid}}."""
    data: dict[str, Any] = {}
    for site, grid in grids.items():
        data.setdefault(site.layer, {})[site.tensor] = grid.to_dict()
    return data


def grids_from_dict(data: Mapping[str, Any]) -> dict[Site, Grid]:
    """Return the grids whose `grids_to_dict` is `data`."""
    return {Site(layer, tensor): Grid.from_dict(grid) for layer, held in data.items() for tensor, grid in held.items()}
