"""How known values pass the operations that move numbers and compute none: reshape, transpose, concat, slice, ..."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnc.graph.ir import Array, Node
from nnc.graph.known import Known, Values, carry, single


def reshape(node: Node, values: Values) -> None:
    x, y = single(node)
    known: Known = {}
    for axis, value in values.of(x).items():
        if axis < 0 or x.shape[axis] == 1:
            continue
        known.update(_regrouped(value, x.shape, axis, y.shape))
    values.put(y, known)


def _regrouped(value: Array, before: tuple[int, ...], axis: int, after: tuple[int, ...]) -> Known:
    """Return what a known axis tells of the axes of a row-major regrouping.

    Index i of the old axis covers, in flat order, the block (outer, i, inner); a new index is known where all that it covers has
    one value. Only new axes that overlap the old one are looked at, on a flat array of the smallest common extent.
    """
    inner = int(np.prod(before[axis + 1 :], dtype=int))
    low, high = inner, inner * before[axis]  # the span of strides that the old axis covers
    known: Known = {}
    stride = 1
    for number in range(len(after) - 1, -1, -1):
        size, start = after[number], stride
        stride *= size
        if size == 1 or start >= high or stride <= low:
            continue
        unit, extent = int(np.gcd(low, start)), max(high, stride)
        if extent % high or extent % stride:
            continue
        flat = np.tile(np.repeat(value, low // unit), extent // high).reshape(extent // stride, size, start // unit)
        first = flat[:1, :, :1]
        equal = ((flat == first) | (np.isnan(flat) & np.isnan(first))).all(axis=(0, 2))
        known[number] = np.where(equal, first[0, :, 0], np.nan)
    return known


def transpose(node: Node, values: Values) -> None:
    carry(node, values, {old: new for new, old in enumerate(node.attrs["permutation"])})


def expand(node: Node, values: Values) -> None:
    x, y = single(node)
    if -1 in values.of(x):  # one number
        values.put(y, {axis: np.repeat(values.of(x)[-1], size) for axis, size in enumerate(y.shape)})
        return
    shift = len(y.shape) - len(x.shape)
    carry(node, values, {axis: axis + shift for axis, size in enumerate(x.shape) if size == y.shape[axis + shift]})


def repeat(node: Node, values: Values) -> None:
    x, y = single(node)
    shift = len(y.shape) - len(x.shape)
    values.put(y, {axis + shift: np.tile(v, y.shape[axis + shift] // len(v)) for axis, v in values.of(x).items() if axis >= 0})


def concat(node: Node, values: Values) -> None:
    joined = node.attrs["axis"]
    known = {joined: np.concatenate([values.along(x, joined) for x in node.inputs])}
    values.put(node.outputs[0], known | _agreed(node, values, lambda axis: None if axis == joined else axis))


def stack(node: Node, values: Values) -> None:
    new = node.attrs["axis"]
    values.put(node.outputs[0], _agreed(node, values, lambda axis: axis + (axis >= new)))


def _agreed(node: Node, values: Values, place: Callable[[int], int | None]) -> Known:
    """Return what all inputs know alike, at the output axis `place(input axis)`."""
    known: Known = {}
    first, *rest = node.inputs
    for axis, value in values.of(first).items():
        target = place(axis)
        if target is not None and axis >= 0:
            same = [values.along(x, axis) == value for x in rest]
            known[target] = np.where(np.logical_and.reduce(same) if same else True, value, np.nan)
    return known


def slice_(node: Node, values: Values) -> None:
    x, y = single(node)
    cut, index = node.attrs["axis"], np.asarray(node.attrs["index"])
    values.put(y, {axis: value[index] if axis == cut else value for axis, value in values.of(x).items()})


def select(node: Node, values: Values) -> None:
    x, _ = single(node)
    taken = node.attrs["axis"]
    carry(node, values, {axis: axis - (axis > taken) for axis in range(len(x.shape)) if axis != taken})


def pad(node: Node, values: Values) -> None:
    """What is padded in must equal the constant, or the slice is no longer one constant."""
    x, y = single(node)
    fill, grown = node.attrs["value"], node.attrs["axes"]
    values.put(y, {axis: np.where(v == fill, v, np.nan) for axis, v in values.of(x).items() if axis not in grown})


def embedding(node: Node, values: Values) -> None:
    _, y = single(node)
    values.put(y, {len(y.shape) - 1: values.along(node.inputs[1], 1)})
