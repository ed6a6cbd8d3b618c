"""Allocation = who leaves, given what everybody scored.

    sparsity 0.5                     the lowest half of each layer
    sparse_threshold 0.5             what scores less than that
    total_sparsity 0.5               the lowest of all the entry's layers together, until half of their weights is gone
    ... and global_group_id          the same over the layers of several entries
    ... and ranking "isomorphic"     the same, among groups of one shape of subgraph (Fang et al. 2024, arXiv:2407.04616)

A granule is an output channel or an element; the lowest scores leave first, equal scores in the order of layer and index.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, gcd

import numpy as np

from nnc.graph.ir import Array
from nnc_schemas import PruneSpec

#: 0.29 * 100 is 28.999999999999996: a count of channels must not suffer from that.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Scored:
    """The scores of one layer's granules, any shape, float64; each granule holds `weights` weights in `rows` output channels.

    `shape` is equal for granules of one shape of subgraph: what an isomorphic ranking compares. `before` is how many granules there were
    in the model that totals count from, where some have left since; `weights` are then those that a granule had there.
    """

    scores: Array
    weights: int
    rows: int = 1
    shape: Hashable = None
    before: int | None = None

    @property
    def gone(self) -> int:
        """How many granules have left already."""
        return 0 if self.before is None else self.before - self.scores.size

    def due(self, fraction: float) -> int:
        """Return how many more leave until a fraction of all that there were has left; never all that there are."""
        return max(0, count_of(self.scores.size + self.gone, fraction) - self.gone)


def allocate(scored: Mapping[str, Scored], governed: Mapping[str, int], specs: Sequence[PruneSpec]) -> dict[str, Array]:
    """Return what stays, True, of each layer: boolean arrays in the shape of its scores.

    `governed` gives the entry of each layer. A layer always keeps one granule.
    """
    pools: dict[Hashable, dict[str, Scored]] = {}
    spec_of = {name: specs[governed[name]] for name in scored}
    for name, layer in scored.items():
        pools.setdefault(_pool(spec_of[name], governed[name], layer), {})[name] = layer
    keep: dict[str, Array] = {}
    for pool in pools.values():
        keep.update(_together(pool, spec_of) if spec_of[next(iter(pool))].total is not None else _each(pool, spec_of))
    return {name: _rounded(layer, keep[name], spec_of[name].round_to or 1) for name, layer in scored.items()}


def _pool(spec: PruneSpec, index: int, layer: Scored) -> Hashable:
    """Return what layers that are ranked together have in common: an id or an entry, and for some the shape of the subgraph."""
    group = ("entry", index) if spec.global_group is None else ("id", spec.global_group)
    return (*group, layer.shape if spec.ranking == "isomorphic" else None)


def _each(pool: Mapping[str, Scored], spec_of: Mapping[str, PruneSpec]) -> dict[str, Array]:
    return {name: ~_lowest_of(layer.scores, spec_of[name]) for name, layer in pool.items()}


def _lowest_of(scores: Array, spec: PruneSpec) -> Array:
    """Return True at the granules of one layer that leave by its own fraction or threshold."""
    if spec.threshold is None:
        return lowest(scores, count_of(scores.size, spec.per_layer or 0.0))
    below = int((scores < spec.threshold).sum())
    return lowest(scores, max(min(below, count_of(scores.size, _cap(spec))), count_of(scores.size, spec.floor or 0.0)))


def _cap(spec: PruneSpec) -> float:
    return 1.0 if spec.cap is None else spec.cap


def _rounded(layer: Scored, keep: Array, channels: int) -> Array:
    """Let the best of those that leave stay, until the channels that stay are a multiple of `channels` (or all of them)."""
    multiple = channels // gcd(channels, layer.rows)
    kept = int(keep.sum())
    wanted = min(keep.size, ceil(kept / multiple) * multiple)
    return keep if wanted == kept else ~lowest(np.where(keep, np.inf, layer.scores), keep.size - wanted)


def _together(pool: Mapping[str, Scored], spec_of: Mapping[str, PruneSpec]) -> dict[str, Array]:
    """Remove the lowest of all the pool's granules while the weights that leave fit into the total.

    The first granule, in the order of score, that no longer fits ends it: none leaves before one that scored lower, except where
    a cap protects a layer or a floor takes its share first.
    """
    sizes = [layer.scores.size for layer in pool.values()]
    scores = np.concatenate([layer.scores.ravel() for layer in pool.values()])
    weights = np.repeat([layer.weights for layer in pool.values()], sizes)
    leave = _share(pool, {name: spec_of[name].floor or 0.0 for name in pool})
    free = _share(pool, {name: _cap(spec_of[name]) for name in pool}) & ~leave
    total = spec_of[next(iter(pool))].total or 0.0
    left_before = float(sum(layer.gone * layer.weights for layer in pool.values()))
    budget = total * (float(weights.sum()) + left_before) - left_before - float(weights[leave].sum()) + _ROUNDING
    leave[free] = _within(scores[free], weights[free], max(budget, 0.0))
    parts = np.split(leave, np.cumsum(sizes)[:-1])
    return {name: ~part.reshape(pool[name].scores.shape) for name, part in zip(pool, parts, strict=True)}


def _share(pool: Mapping[str, Scored], fractions: Mapping[str, float]) -> Array:
    """Return the lowest fraction of each layer, True, one layer after the other."""
    return np.concatenate([lowest(layer.scores, layer.due(fractions[name])).ravel() for name, layer in pool.items()])


def _within(scores: Array, weights: Array, budget: float) -> Array:
    """Return which granules leave: the longest prefix in the order of score whose weights sum to at most `budget`."""
    if not weights.size or (weights == weights[0]).all():
        # Granules of one size need no sort, which matters for the hundred million elements of a BERT.
        return lowest(scores, min(scores.size, floor(budget / weights[0])) if weights.size else 0)
    order = np.argsort(scores, kind="stable")
    count = int(np.searchsorted(np.cumsum(weights[order]), budget, side="right"))
    leave = np.zeros(scores.size, bool)
    leave[order[:count]] = True
    return leave


def count_of(granules: int, sparsity: float) -> int:
    """Return how many of a layer's granules a sparsity removes: rounded down, and never all of them."""
    return min(floor(granules * sparsity + _ROUNDING), granules - 1)


def lowest(scores: Array, count: int) -> Array:
    """Return True at the `count` lowest scores, equal ones by index: a stable sort's answer at the price of a partition."""
    flat = scores.ravel()
    if count <= 0:
        return np.zeros(scores.shape, bool)
    bound = np.partition(flat, count - 1)[count - 1]
    chosen = flat < bound
    ties = np.flatnonzero(flat == bound)
    chosen[ties[: count - np.count_nonzero(chosen)]] = True
    return np.asarray(chosen.reshape(scores.shape))
