"""Solve the constraints: an axis is a list of segments, a segment a product of factors, a factor a vector of labels.

    segments, additive         a fused projection is q | k | v, a DenseNet channel axis is old | new
    factors, multiplicative    768 = 12 heads x 64, 800 = 50 channels x 16 positions, outer to inner
    labels                     one per index of a factor; tied indices share one; an index of the axis is gone when any of its labels is

Three passes, none with Python work per index: cuts (where segments begin), boundaries (how segments factor), labels (one
connected-components pass). A regrouping whose two readings do not nest, as 4 x 6 against 6 x 4, pins what it touches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from nnc.graph.axes import Axes
from nnc.graph.ir import Array


@dataclass(frozen=True)
class Factor:
    """One factor of a segment: labels `first .. first + size`, read as the middle axis of a block (outer, size, inner)."""

    start: int  # where the segment begins in its axis
    outer: int
    size: int
    inner: int
    first: int

    def block(self, vector: Array) -> Array:
        """Return what a vector over the whole axis says of this factor, `(outer, size, inner)`."""
        return vector[self.start : self.start + self.outer * self.size * self.inner].reshape(self.outer, self.size, self.inner)

    def all_along(self, vector: Array) -> Array:
        """Reduce a boolean vector over the axis to one value per label: True where all of its indices are."""
        return np.asarray(self.block(vector).all(axis=(0, 2)))


@dataclass
class Labels:
    """The solution. `component[label]` is the label's class; classes are what leaves together."""

    factors: list[tuple[Factor, ...]]  # by axis, segment after segment, outer to inner
    component: Array
    pin: Array  # per class: index into `reasons`, or -1
    reasons: list[str]
    axes: Axes

    def of(self, axis: int) -> tuple[Factor, ...]:
        """Return the factors of an axis (none for an axis of size 1)."""
        return self.factors[axis]

    def classes(self, factor: Factor) -> Array:
        """Return the class of each label of a factor, shape `(factor.size,)`."""
        return self.component[factor.first : factor.first + factor.size]

    def keep(self, axis: int, dead: Array) -> Array:
        """Return which indices of an axis stay when the classes `dead` (boolean, per class) leave."""
        keep = np.ones(self.axes.sizes[axis], bool)
        for factor in self.of(axis):
            gone = dead[self.classes(factor)]
            if gone.any():
                block = keep[factor.start : factor.start + factor.outer * factor.size * factor.inner]
                block.reshape(factor.outer, factor.size, factor.inner)[:, gone] = False
        return keep

    @cached_property
    def pinned(self) -> Array:
        """Which classes may not leave, boolean per class."""
        return self.pin >= 0


def solve(axes: Axes) -> Labels:
    """Return labels for every axis that the constraints name."""
    solver = _Solver(axes)
    solver.cut()
    solver.factorise()
    return solver.label()


@dataclass
class _Solver:
    axes: Axes
    children: dict[int, list[int]] = field(default_factory=dict)  # cut root -> its segments, axes of their own
    starts: dict[int, list[int]] = field(default_factory=dict)  # cut root -> where they begin, and the end
    bounds: dict[int, set[int]] = field(default_factory=dict)  # root -> inner products d, 1 < d < size
    segs: list[tuple[int, int, Array]] = field(default_factory=list)
    reshapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    opaque: list[tuple[int, str]] = field(default_factory=list)

    # -- pass 1: cuts -------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Cut every axis that is only ever concatenated or split into one child axis per segment."""
        root = self.axes.root
        segs = [(root(whole), root(part), index) for whole, part, index in self.axes.segs]
        whole_only = {root(a) for before, after in self.axes.reshapes for a in (*before, *after)}
        whole_only |= {axis for whole, part, index in segs if not _contiguous(index) for axis in (whole, part)}
        for axis, cuts in self._cut_points(segs, whole_only).items():
            if len(cuts) > 2:
                self.starts[axis] = sorted(cuts)
                self.children[axis] = [self.axes.axis(b - a) for a, b in pairwise(self.starts[axis])]
        for whole, part, index in segs:
            self._relate(whole, part, index)

    def _cut_points(self, segs: Sequence[tuple[int, int, Array]], whole_only: set[int]) -> dict[int, set[int]]:
        """Return the points at which each axis is cut, ends included; pushed through the segments to a fixpoint."""
        points: dict[int, set[int]] = {}
        usable = [(whole, part, int(index[0])) for whole, part, index in segs if len(index) and whole not in whole_only]
        changed = True
        while changed:
            changed = False
            for whole, part, start in usable:
                size = self.axes.sizes[part]
                mine = points.setdefault(whole, {0, self.axes.sizes[whole]})
                theirs = points.setdefault(part, {0, size}) if part not in whole_only else {0, size}
                up = {start + point for point in theirs} - mine
                down = {point - start for point in mine if start <= point <= start + size} - theirs if part not in whole_only else set()
                mine |= up
                theirs |= down
                changed |= bool(up or down)
        return points

    def pieces(self, axis: int) -> list[tuple[int, int]]:
        """Return the segments of a root axis as (start, axis); an uncut axis is its own one segment."""
        if axis not in self.children:
            return [(0, axis)]
        return list(zip(self.starts[axis], self.children[axis], strict=False))

    def _relate(self, whole: int, part: int, index: Array) -> None:
        """Restate `part = whole[index]` on segments: equal where they line up, an index relation where they do not."""
        if not len(index):
            return
        if whole not in self.children and part not in self.children:
            self.segs.append((whole, part, index))
            return
        start = int(index[0])
        for begin, piece in self.pieces(whole):
            for offset, target in self.pieces(part):
                low = max(begin, start + offset)
                high = min(begin + self.axes.sizes[piece], start + offset + self.axes.sizes[target])
                if low < high:
                    self._overlap(piece, target, low - begin, low - start - offset, high - low)

    def _overlap(self, piece: int, target: int, low: int, offset: int, size: int) -> None:
        sizes = self.axes.sizes
        if size == sizes[piece] == sizes[target]:
            self.axes.eq(piece, target)
        elif size == sizes[target]:
            self.segs.append((piece, target, np.arange(low, low + size)))
        elif size == sizes[piece]:
            self.segs.append((target, piece, np.arange(offset, offset + size)))
        else:
            self.opaque += [(axis, "two cuts of one axis that overlap") for axis in (piece, target)]

    # -- pass 2: factor boundaries ------------------------------------------------------------------------------------

    def factorise(self) -> None:
        """Find how each segment factors: push the boundaries of both sides of every regrouping to a fixpoint."""
        root = self.axes.root
        self.segs = [(root(whole), root(part), index) for whole, part, index in self.segs]
        self.reshapes = [(tuple(map(root, before)), tuple(map(root, after))) for before, after in self.axes.reshapes]
        progress: tuple[int, int] | None = None
        while progress != (progress := (sum(map(len, self.bounds.values())), len(self.reshapes))):
            self.reshapes = [relation for relation in self.reshapes if self._push_reshape(*relation)]
            for whole, part, index in self.segs:
                self._push_seg(whole, part, index)
        self.segs = [seg for seg in self.segs if self._aligned(*seg)]

    def _push_reshape(self, before: tuple[int, ...], after: tuple[int, ...]) -> bool:
        """Give both sides the boundaries of each other; False, and both pinned, where these do not nest."""
        flat = sorted({product * d for side in (before, after) for axis, product in self._suffixes(side) for d in (1, *self._bounds(axis))})
        if any(outer % inner for inner, outer in pairwise(flat)):
            reason = f"a reshape of {self._sizes(before)} to {self._sizes(after)} whose factors do not nest"
            self.opaque += [(axis, reason) for axis in (*before, *after)]
            return False
        for side in (before, after):
            for axis, product in self._suffixes(side):
                end = product * self.axes.sizes[axis]
                self._bounds(axis).update(point // product for point in flat if product < point < end)
        return True

    def _push_seg(self, whole: int, part: int, index: Array) -> None:
        """Pass on a boundary where the relation keeps blocks of that size together."""
        mine, theirs = self._bounds(whole), self._bounds(part)
        for d in [d for d in mine ^ theirs if _in_blocks(index, d)]:
            mine.add(d)
            if d < len(index):
                theirs.add(d)

    def _aligned(self, whole: int, part: int, index: Array) -> bool:
        """Keep a relation whose blocks line up with the factors; pin both sides where it cuts across one."""
        mine, theirs = self._bounds(whole), self._bounds(part)
        if {d for d in mine if d < len(index)} == theirs and all(_in_blocks(index, d) for d in mine | theirs):
            return True
        self.opaque += [(axis, "a cut across a factor") for axis in (whole, part)]
        return False

    def _bounds(self, axis: int) -> set[int]:
        return self.bounds.setdefault(axis, set())

    def _suffixes(self, side: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield each axis with the product of the sizes inside of it."""
        product = 1
        for axis in reversed(side):
            yield axis, product
            product *= self.axes.sizes[axis]

    def _sizes(self, side: Sequence[int]) -> str:
        return " x ".join(str(self.axes.sizes[axis]) for axis in side)

    # -- pass 3: labels -----------------------------------------------------------------------------------------------

    def label(self) -> Labels:
        """Number the indices of every factor, tie them, and give each tied class its first pin."""
        root, count = self.axes.root, 0
        own: dict[int, tuple[Factor, ...]] = {}
        for axis in range(len(self.axes.sizes)):
            if root(axis) == axis and axis not in self.children:
                own[axis] = self._number(axis, count)
                count += sum(factor.size for factor in own[axis])
        component = components(count, *self._pairs(own))
        assembled = {axis: self._assembled(axis, own) for axis in range(len(self.axes.sizes)) if root(axis) == axis}
        factors = [assembled[root(axis)] for axis in range(len(self.axes.sizes))]
        labels = Labels(factors, component, np.full(int(component.max(initial=-1)) + 1, -1), [], self.axes)
        for axis, reason in [*self.axes.pins, *self.opaque]:
            _pin(labels, axis, reason)
        for whole, _, index in self.segs:
            # A slice that takes a single block of an outer factor would be empty without it; positions within the block may leave.
            _pin(labels, whole, "a slice takes a single block of it", len(index))
        return labels

    def _number(self, axis: int, first: int) -> tuple[Factor, ...]:
        size = self.axes.sizes[axis]
        if size <= 1:
            return ()
        edges = [size, *sorted(self.bounds.get(axis, ()), reverse=True), 1]
        factors = []
        for outer, inner in pairwise(edges):
            factors.append(Factor(0, size // outer, outer // inner, inner, first))
            first += outer // inner
        return tuple(factors)

    def _assembled(self, axis: int, own: dict[int, tuple[Factor, ...]]) -> tuple[Factor, ...]:
        """Return the factors of a root axis, those of its segments moved to where the segments begin."""
        return tuple(
            Factor(start, f.outer, f.size, f.inner, f.first) for start, piece in self.pieces(axis) for f in own[self.axes.root(piece)]
        )

    def _pairs(self, own: dict[int, tuple[Factor, ...]]) -> tuple[Array, Array]:
        """Return the pairs of labels that are tied, as two vectors."""
        left: list[Array] = [np.empty(0, int)]
        right: list[Array] = [np.empty(0, int)]
        for before, after in self.reshapes:
            sides = ([f for axis in side for f in own[axis]] for side in (before, after))
            for a, b in zip(*sides, strict=True):
                left.append(np.arange(a.first, a.first + a.size))
                right.append(np.arange(b.first, b.first + b.size))
        for whole, part, index in self.segs:
            for a_labels, b_labels in _seg_pairs(own[whole], own[part], index):
                left.append(a_labels)
                right.append(b_labels)
        return np.concatenate(left), np.concatenate(right)


def _seg_pairs(whole: tuple[Factor, ...], part: tuple[Factor, ...], index: Array) -> Iterator[tuple[Array, Array]]:
    """Yield tied labels of `part = whole[index]`: inner factors one to one, the outermost by block number."""
    inner = list(zip(reversed(whole[1:]), reversed(part), strict=False))
    for a, b in inner:
        yield np.arange(a.first, a.first + a.size), np.arange(b.first, b.first + b.size)
    if whole and len(part) == len(whole):
        block = whole[0].inner
        yield whole[0].first + index[::block] // block, np.arange(part[0].first, part[0].first + part[0].size)


def _pin(labels: Labels, axis: int, reason: str, block: int = 0) -> None:
    """Pin the factors of an axis whose indices are blocks of `block` or more: all of them where that is 0."""
    number = len(labels.reasons)
    labels.reasons.append(reason)
    for factor in labels.of(axis):
        if factor.inner < block:
            continue
        classes = labels.classes(factor)
        labels.pin[classes[labels.pin[classes] < 0]] = number


def _contiguous(index: Array) -> bool:
    return len(index) == 0 or bool(np.array_equal(index, np.arange(index[0], index[0] + len(index))))


def _in_blocks(index: Array, d: int) -> bool:
    """True where `index` is made of whole, aligned blocks of `d` consecutive indices."""
    if len(index) % d:
        return False
    blocks = index.reshape(-1, d)
    return bool((blocks[:, 0] % d == 0).all() and (blocks == blocks[:, :1] + np.arange(d)).all())


def components(count: int, left: Array, right: Array) -> Array:
    """Return the connected component of each of `count` labels, numbered from 0, given the ends of the edges.

    Each round hooks the root of an edge's one end to the smaller root of its other end and halves all paths:
    Shiloach & Vishkin, An O(log n) parallel connectivity algorithm, J. Algorithms 3 (1982).
    """
    parent = np.arange(count)
    while len(left):
        a, b = parent[left], parent[right]
        low = np.minimum(a, b)
        np.minimum.at(parent, a, low)
        np.minimum.at(parent, b, low)
        while not np.array_equal(parent, parent[parent]):
            parent = parent[parent]
        split = parent[left] != parent[right]
        left, right = left[split], right[split]
    return np.unique(parent, return_inverse=True)[1].reshape(-1)
