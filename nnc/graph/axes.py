"""The five constraints that every operation's rule compiles to, on the axes of the tensors that it touches.

    eq(a, b)               index i of a and index i of b go together
    reshape([a..], [b..])  a row-major regrouping: 50 x 4 x 4 -> 800
    seg(whole, part, idx)  part = whole[idx]: concat, split, slice, stride, constant gather
    pin(a, reason)         no index of a may leave
    axis(n)                a fresh axis, as the groups of a convolution

A linear layer, for instance, is `eq(x[-1], weight[1]); eq(out[-1], weight[0])`. `labels.py` solves them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nnc.graph.ir import Array, Tensor


@dataclass(frozen=True)
class Bound:
    """A number that a layer holds and that is the size of an axis, as `groups` of a convolution."""

    layer: str
    attribute: str
    axis: int


@dataclass
class Axes:
    """Collects the constraints. An axis is an integer; `axes[tensor]` gives those of a tensor, one per dimension.

    `blocks` are the groups of grouped convolutions: whole ones may leave, or the same positions within each of them.

    With `allow_inexact`, what would be pinned only because a mean is taken over it goes to `relaxed`: (axis, place).
    """

    allow_inexact: bool = False
    relaxed: list[tuple[int, str]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    reshapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    segs: list[tuple[int, int, Array]] = field(default_factory=list)
    pins: list[tuple[int, str]] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    _parent: list[int] = field(default_factory=list)
    _of: dict[Tensor, tuple[int, ...]] = field(default_factory=dict)

    def __getitem__(self, tensor: Tensor) -> tuple[int, ...]:
        known = self._of.get(tensor)
        if known is None:
            known = self._of[tensor] = tuple([self.axis(size) for size in tensor.shape])
        return known

    @property
    def known(self) -> Mapping[Tensor, tuple[int, ...]]:
        """The axes of every tensor that a constraint named."""
        return self._of

    def axis(self, size: int) -> int:
        """Return a fresh axis of `size` indices."""
        self.sizes.append(size)
        self._parent.append(len(self._parent))
        return len(self.sizes) - 1

    def root(self, axis: int) -> int:
        """Return the axis that stands for the class of all axes equal to `axis`."""
        while self._parent[axis] != axis:
            self._parent[axis] = self._parent[self._parent[axis]]
            axis = self._parent[axis]
        return axis

    def eq(self, a: int, b: int) -> None:
        """Tie two axes index by index. Raises ValueError where their sizes differ: the node's shapes are wrong."""
        if self.sizes[a] != self.sizes[b]:
            raise ValueError(f"an axis of {self.sizes[a]} cannot equal one of {self.sizes[b]}")
        self._parent[self.root(a)] = self.root(b)

    def eq_all(self, a: Iterable[int], b: Iterable[int]) -> None:
        """Tie two lists of axes pair by pair."""
        for left, right in zip(a, b, strict=True):
            self.eq(left, right)

    def align(self, a: Tensor, b: Tensor) -> None:
        """Tie the axes of two tensors that broadcast: from the right, equal sizes only; a size of 1 relates to nothing."""
        for left, right in zip(reversed(self[a]), reversed(self[b]), strict=False):
            if self.sizes[left] == self.sizes[right] != 1:
                self.eq(left, right)

    def reshape(self, before: Sequence[int], after: Sequence[int]) -> None:
        """Tie two lists of axes that hold the same elements in row-major order; cut into the smallest groups that agree."""
        left, right = ([a for a in side if self.sizes[a] != 1] for side in (before, after))
        start_left = start_right = i = j = 0
        size_left = size_right = 1
        while i < len(left) or j < len(right):
            if size_left <= size_right and i < len(left):
                size_left, i = size_left * self.sizes[left[i]], i + 1
            elif j < len(right):
                size_right, j = size_right * self.sizes[right[j]], j + 1
            else:
                sizes = [[self.sizes[a] for a in side] for side in (before, after)]
                raise ValueError(f"sizes {sizes[0]} and {sizes[1]} do not hold the same elements")
            if size_left == size_right:
                self._regroup(tuple(left[start_left:i]), tuple(right[start_right:j]))
                start_left, start_right, size_left, size_right = i, j, 1, 1

    def _regroup(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        if len(before) == len(after) == 1:
            self.eq(before[0], after[0])
        else:
            self.reshapes.append((before, after))

    def seg(self, whole: int, part: int, index: Array) -> None:
        """Say that `part` is `whole[index]`."""
        if len(index) == self.sizes[whole] and np.array_equal(index, np.arange(len(index))):
            self.eq(whole, part)
        else:
            self.segs.append((whole, part, np.asarray(index)))

    def pin(self, axis: int, reason: str) -> None:
        """Say that no index of `axis` may leave, and why."""
        self.pins.append((axis, reason))

    def pin_mean(self, axis: int, place: str) -> None:
        """Say that `place` takes a mean over `axis`: over fewer indices it is another mean, so they leave only on request."""
        if self.allow_inexact:
            self.relaxed.append((axis, place))
        else:
            self.pin(axis, f"{place} takes a mean over it, another one over fewer; allow_inexact=True removes it all the same")

    def pin_all(self, tensor: Tensor | None, reason: str) -> None:
        """Pin every axis of a tensor."""
        for axis in self[tensor] if tensor is not None else ():
            self.pin(axis, reason)

    def bind(self, layer: str, attribute: str, axis: int) -> None:
        """Say that `layer.attribute` is the size of `axis`, so that it follows when indices leave."""
        self.bounds.append(Bound(layer, attribute, axis))
