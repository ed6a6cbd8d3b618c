"""What is known of a graph's numbers, kept by tensor and axis; values.py finds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nnc.graph.ir import Array, Node, Tensor

#: axis -> one value an index, NaN where it is not known. An axis that is absent is unknown throughout.
Known = dict[int, Array]


@dataclass
class Values:
    """Known values of every tensor of a graph under masks; `masks` is by parameter path, in canonical shape.

    With `allow_inexact`, what comes into a normalisation as zero counts as zero behind it: that is how the small model sees it.
    `whole` are masks of whole slices, by path and axis: which indices stay. They say as much in a vector as in an array.
    """

    masks: Mapping[str, Array]
    allow_inexact: bool = False
    whole: Mapping[str, Mapping[int, Array]] = field(default_factory=dict)
    _known: dict[Tensor, Known] = field(default_factory=dict)
    _alive: dict[Tensor, Array] = field(default_factory=dict)

    def of(self, tensor: Tensor | None) -> Known:
        """Return what is known of a tensor; empty for one that is absent."""
        if tensor is None:
            return {}
        if tensor not in self._known:
            self._known[tensor] = self._given(tensor)
        return self._known[tensor]

    def along(self, tensor: Tensor | None, axis: int) -> Array:
        """Return the value of each index along one axis, all NaN where nothing is known."""
        known = self.of(tensor).get(axis)
        if known is not None:
            return known
        return np.full(tensor.shape[axis] if tensor is not None and tensor.shape else 1, np.nan)

    def alive(self, weight: Tensor) -> Array | None:
        """Return which (out, in) pairs of a weight have an unmasked entry, or None where nothing of it is masked."""
        mask = self.masks.get(weight.name)
        if mask is None:
            return None
        if weight not in self._alive:
            part = distinct(mask)
            alive = part.reshape(*part.shape[:2], -1).any(axis=2)
            self._alive[weight] = np.broadcast_to(alive, mask.shape[:2])
        return self._alive[weight]

    def numbers(self, tensor: Tensor) -> Array:
        """Read a parameter's or a constant's effective numbers as float64."""
        assert tensor.data is not None
        numbers = np.asarray(tensor.data(), np.float64)
        for axis, stays in self.whole.get(tensor.name, {}).items():
            numbers = numbers * stays.reshape(-1, *(1,) * (numbers.ndim - 1 - axis))
        mask = self.masks.get(tensor.name)
        return numbers if mask is None else numbers * mask

    def seen_masked(self, tensor: Tensor) -> bool:
        """Tell whether a parameter is seen through a mask of any kind."""
        return tensor.name in self.masks or tensor.name in self.whole

    def put(self, tensor: Tensor, known: Known) -> None:
        """Note what is known; axes of which nothing is known are dropped."""
        self._known[tensor] = {axis: value for axis, value in known.items() if not np.isnan(value).all()}

    def _given(self, tensor: Tensor) -> Known:
        wide = [axis for axis, size in enumerate(tensor.shape) if size != 1]
        if tensor.data is not None and (not wide or (tensor.floating and len(wide) == 1)):
            # A vector, however many axes of size 1 stand around it: a bias of shape (1, C, 1, 1), say. A single number is at -1, and may
            # be a whole one: torch makes a tensor of the 2 in `x / 2`.
            return {wide[0] if wide else -1: self.numbers(tensor).reshape(-1)}
        if tensor.role == "constant" and tensor.data is not None and tensor.floating:
            return _slices(np.asarray(tensor.data(), np.float64))
        if tensor.name in self.whole:
            return {axis: np.where(stays, np.nan, 0.0) for axis, stays in self.whole[tensor.name].items()}
        mask = self.masks.get(tensor.name) if tensor.name else None
        if mask is None:
            return {}
        return {axis: np.where(gone, 0.0, np.nan) for axis in range(mask.ndim) if (gone := ~any_along(mask, axis)).any()}


def distinct(array: Array) -> Array:
    """Return an array without its repetitions: one index of each axis that it was broadcast along, as a mask of rows is."""
    return array[tuple(slice(None) if stride else slice(1) for stride in array.strides)]


def any_along(mask: Array, axis: int) -> Array:
    """Return for each index of an axis whether anything across it is True."""
    part = distinct(mask)
    found = part.any(axis=tuple(other for other in range(mask.ndim) if other != axis))
    return np.broadcast_to(found, mask.shape[axis : axis + 1])


def _slices(numbers: Array) -> Known:
    """Return, per axis of an array, the value of each slice that has but one."""
    known = {}
    for axis in range(numbers.ndim):
        flat = np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1)
        known[axis] = np.where((flat == flat[:, :1]).all(axis=1), flat[:, 0], np.nan)
    return {axis: value for axis, value in known.items() if not np.isnan(value).all()}


def one_of_each(numbers: Array) -> Array:
    """Return the distinct numbers of a vector, ascending; most often there is but one, and then nothing is sorted."""
    return numbers[:1] if len(numbers) and (numbers == numbers[0]).all() else np.unique(numbers)


def single(node: Node) -> tuple[Tensor, Tensor]:
    x = node.inputs[0]
    assert x is not None
    return x, node.outputs[0]


def carry(node: Node, values: Values, mapping: Mapping[int, int]) -> None:
    """Pass what is known on unchanged: `mapping` is input axis -> output axis."""
    x, y = single(node)
    values.put(y, {mapping[axis]: value for axis, value in values.of(x).items() if axis in mapping})
