"""Allocation = who leaves, given what everybody scored.

    sparsity 0.5         the lowest half of each layer
    total_sparsity 0.5   the lowest of all the entry's layers together, until half of their weights is gone

A granule is an output channel or an element; the lowest scores leave first, equal scores in the order of layer and index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, gcd

import numpy as np

from nnc.graph.ir import Array
from nnc_schemas import PruneSpec

#: 0.29 * 100 is 28.999999999999996: a count of channels must not suffer from that.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Scored:
    """The scores of one layer's granules, any shape, float64; each granule holds `weights` weights in `rows` output channels."""

    scores: Array
    weights: int
    rows: int = 1


def allocate(scored: Mapping[str, Scored], governed: Mapping[str, int], specs: Sequence[PruneSpec]) -> dict[str, Array]:
    """Return what stays, True, of each layer: boolean arrays in the shape of its scores.

    `governed` gives the entry of each layer. A layer always keeps one granule.
    """
    keep: dict[str, Array] = {}
    for index, spec in enumerate(specs):
        group = {name: scored[name] for name in scored if governed[name] == index}
        chosen = _per_layer(group, spec.per_layer) if spec.per_layer is not None else _together(group, spec)
        keep.update({name: _rounded(group[name], stays, spec.round_to or 1) for name, stays in chosen.items()})
    return {name: keep[name] for name in scored}


def _per_layer(group: Mapping[str, Scored], sparsity: float) -> dict[str, Array]:
    return {name: ~lowest(layer.scores, count_of(layer.scores.size, sparsity)) for name, layer in group.items()}


def _rounded(layer: Scored, keep: Array, channels: int) -> Array:
    """Let the best of those that leave stay, until the channels that stay are a multiple of `channels` (or all of them)."""
    multiple = channels // gcd(channels, layer.rows)
    kept = int(keep.sum())
    wanted = min(keep.size, ceil(kept / multiple) * multiple)
    return keep if wanted == kept else ~lowest(np.where(keep, np.inf, layer.scores), keep.size - wanted)


def _together(group: Mapping[str, Scored], spec: PruneSpec) -> dict[str, Array]:
    """Remove the lowest of all the group's granules while the weights that leave fit into `total_sparsity`.

    The first granule, in the order of score, that no longer fits ends it: none leaves before one that scored lower, except where
    `max_sparsity_per_layer` protects a layer.
    """
    if not group:
        return {}
    cap = 1.0 if spec.cap is None else spec.cap
    scores = np.concatenate([layer.scores.ravel() for layer in group.values()])
    weights = np.repeat([layer.weights for layer in group.values()], [layer.scores.size for layer in group.values()])
    free = np.concatenate([lowest(layer.scores, count_of(layer.scores.size, cap)).ravel() for layer in group.values()])
    budget = (spec.total_sparsity or 0.0) * float(weights.sum()) + _ROUNDING
    leave = np.zeros(scores.size, bool)
    leave[free] = _within(scores[free], weights[free], budget)
    ends = np.cumsum([layer.scores.size for layer in group.values()])[:-1]
    return {name: ~part.reshape(group[name].scores.shape) for name, part in zip(group, np.split(leave, ends), strict=True)}


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
