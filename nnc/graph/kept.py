"""What is masked and stays all the same, and why, for the report.

3 of conv1.weight axis 0: conv1 masks it, conv2 does not; conv3 still reads it     a residual add needs both of its branches
2 of conv1.weight axis 0: conv2 reads a constant from it ...                       what an operation that sums over it says
5 of query.weight axis 0: it is a part of one of 4 blocks of 16 ...                heads leave whole
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnc.graph.ir import Array, Tensor
from nnc.graph.known import any_along
from nnc.graph.labels import Factor
from nnc.graph.offers import Solved
from nnc.graph.plan import Kept
from nnc.graph.values import Values

#: How many layers a reason names.
_NAMED = 3


@dataclass(frozen=True)
class Stays:
    """Why each class stays: `reason` is an index into `why`, -1 where the class leaves; `pinned`, where no mask could have helped."""

    reason: Array
    why: Sequence[str]
    pinned: Array


def kept(solved: Solved, values: Values, stays: Stays) -> Iterator[Kept]:
    """Yield, per masked parameter axis and reason, how many wholly masked slices stay."""
    labels, disagreements = solved.labels, _Disagreements(solved, values)
    by_axis: dict[tuple[Tensor, int], list[Factor]] = {}
    for tensor, axis, factor in solved.bound:
        if tensor.name in values.masks and len(tensor.shape) > 1 and axis <= 1:
            by_axis.setdefault((tensor, axis), []).append(factor)
    for (tensor, axis), factors in by_axis.items():
        where, masked = f"{tensor.name} axis {axis}", _masked(values, tensor, axis)
        explained = np.zeros(len(masked), bool)
        for factor in factors:
            whole = factor.all_along(masked)
            factor.block(explained)[:, whole] = True
            classes = labels.classes(factor)[whole & (stays.reason[labels.classes(factor)] >= 0)]
            for reason, count in disagreements.counted(classes, stays):
                yield Kept(where, count, reason)
        for factor in factors:
            parts = int(factor.block(masked & ~explained).sum())
            if parts and axis == 0 and factor.outer == 1 and factor.inner > 1:
                yield Kept(where, parts, f"it is a part of one of {factor.size} blocks of {factor.inner}, which leave whole")


def _masked(values: Values, tensor: Tensor, axis: int) -> Array:
    """Return which slices across an axis of a parameter are masked as a whole."""
    alive = values.alive(tensor)
    if alive is None:
        return np.zeros(tensor.shape[axis], bool)
    return np.asarray(~any_along(alive, axis))


class _Disagreements:
    """Which layers make a class and mask it, and which make it and do not."""

    def __init__(self, solved: Solved, values: Values) -> None:
        self._labels, self._values = solved.labels, values
        self._makers = [
            (tensor, axis, factor)
            for tensor, axis, factor in solved.bound
            if len(tensor.shape) > 1 and axis <= 1 and (tensor.name, axis) in solved.producers
        ]

    @cached_property
    def _pattern(self) -> Array:
        """A number per class that is equal for classes that the same layers make and the same layers mask."""
        pattern = np.zeros(len(self._labels.pin), np.int64)
        keys = np.random.default_rng(0).integers(1, 2**62, size=(len(self._makers), 2))
        for (tensor, axis, factor), (makes, masks) in zip(self._makers, keys, strict=True):
            masked = factor.all_along(_masked(self._values, tensor, axis))
            pattern[self._labels.classes(factor)] ^= np.where(masked, masks, makes)
        return pattern

    def counted(self, classes: Array, stays: Stays) -> Iterator[tuple[str, int]]:
        """Yield each reason with the number of classes that it keeps."""
        for number in np.unique(stays.reason[classes]):
            alike = classes[stays.reason[classes] == number]
            free = alike[~stays.pinned[alike]]
            if len(free) < len(alike):
                yield stays.why[number], len(alike) - len(free)
            _, examples, counts = np.unique(self._pattern[free], return_index=True, return_counts=True)
            for example, count in zip(examples, counts, strict=True):
                yield self._named(int(free[example])) + stays.why[number], int(count)

    def _named(self, one: int) -> str:
        """Say who masks a class and who does not; "" where all do."""
        masking: dict[str, bool] = {}
        for tensor, axis, factor in self._makers:
            here = self._labels.classes(factor) == one
            if here.any():
                layer = tensor.name.rpartition(".")[0] or "model"
                masking[layer] = masking.get(layer, True) and bool(factor.all_along(_masked(self._values, tensor, axis))[here].all())
        do, do_not = ([layer for layer, masks in masking.items() if masks is wanted] for wanted in (True, False))
        if not do or not do_not:
            return ""
        return f"{_listed(do)} {'masks' if len(do) == 1 else 'mask'} it, {_listed(do_not)} {'does' if len(do_not) == 1 else 'do'} not; "


def _listed(layers: Sequence[str]) -> str:
    others = len(layers) - _NAMED
    return ", ".join(layers[:_NAMED]) + (f" and {others} more" if others > 0 else "")
