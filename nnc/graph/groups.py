"""Channels that can only leave together: what a pruner scores when it knows the graph.

A residual add ties the outputs of its branches, a depthwise convolution its output to its input, an attention the rows of q, k and v
of one head. Such a group is one row of granules whose score is the sum over its members (Fang et al., DepGraph, CVPR 2023,
arXiv:2301.12900); what is chosen is masked in every producer, BatchNorm included, so that all of it can really leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nnc.graph.contractions import contractions
from nnc.graph.ir import Array, Graph, Tensor
from nnc.graph.labels import Factor, solve
from nnc.graph.offers import bindings, signatures, withheld
from nnc.graph.rules import constrain
from nnc.graph.values import Values


@dataclass(frozen=True)
class Shared:
    """Granules that several layers share. `classes` are their label classes; `rows` the weights (axis 0) that hold them."""

    classes: Array
    rows: tuple[tuple[str, Factor], ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose output channels the granules are, in the order of their first use."""
        return tuple(dict.fromkeys(path.rpartition(".")[0] for path, _ in self.rows))

    @property
    def rows_of_one(self) -> int:
        """How many output channels of its first layer a granule is: 64 for a head of 64."""
        _, factor = self.rows[0]
        return factor.outer * factor.inner


class Groups:
    """The groups of a graph that may leave."""

    def __init__(self, graph: Graph) -> None:
        self._labels = solve(constrain(graph))
        self._bound = bindings(graph, self._labels)
        self._parameters = graph.parameters()
        self._why = list(self._labels.reasons)
        self._reason = self._reasons(graph)  # per class: index into `_why`, or -1 where it may leave
        self.shared = tuple(self._find(graph))

    def _find(self, graph: Graph) -> Iterator[Shared]:
        signature = signatures(self._labels, self._bound)
        free = self._reason < 0
        rows: dict[int, list[tuple[str, Factor]]] = {}
        for tensor, axis, factor in self._bound:
            classes = self._labels.classes(factor)
            if axis == 0 and _is_weight(tensor):
                for group in np.unique(signature[classes[free[classes]]]):
                    rows.setdefault(int(group), []).append((tensor.name, factor))
        for group, found in rows.items():
            yield Shared(np.flatnonzero(free & (signature == group)), tuple(found))

    def _reasons(self, graph: Graph) -> Array:
        """Return why each class must stay, the first reason that is found, or -1."""
        reason = self._labels.pin.copy()
        summed = np.zeros(len(reason), bool)
        for contraction in contractions(graph, Values({})):
            for factor in self._labels.of(self._labels.axes[contraction.tensor][contraction.axis]):
                summed[self._labels.classes(factor)] = True
        for classes, why in (*withheld(self._labels, self._bound), (np.flatnonzero(~summed), "nothing sums over it")):
            reason[classes[reason[classes] < 0]] = len(self._why)
            self._why.append(why)
        return reason

    def pinned(self) -> Iterator[tuple[str, int, str]]:
        """Yield (layer, output channels, reason) for what must stay, per layer and reason."""
        for tensor, axis, factor in self._bound:
            if axis == 0 and _is_weight(tensor):
                reasons = self._reason[self._labels.classes(factor)]
                for number, count in zip(*np.unique(reasons[reasons >= 0], return_counts=True), strict=True):
                    yield tensor.name.rpartition(".")[0], int(count), self._why[number]

    def smallest(self) -> dict[Tensor, tuple[int, ...]]:
        """Return the shapes of all tensors when one granule of each group is left."""
        dead = np.zeros(len(self._reason), bool)
        for shared in self.shared:
            dead[shared.classes[1:]] = True
        return {
            tensor: tuple(int(self._labels.keep(axis, dead).sum()) for axis in axes) for tensor, axes in self._labels.axes.known.items()
        }

    def scores(self, shared: Shared, scores: Mapping[str, Array]) -> Array:
        """Return the sum of the members' scores for each granule of a group; `scores` are by layer, `(out,)`."""
        total = np.zeros(len(self._labels.pin))
        for path, factor in shared.rows:
            mine = scores[path.rpartition(".")[0]]
            np.add.at(total, self._labels.classes(factor), _summed(factor, mine))
        return np.asarray(total[shared.classes])

    def weights(self, shared: Shared) -> int:
        """Return how many weights leave the group's own layers with one granule."""
        entries = sum(int(np.prod(self._parameters[path].shape)) // factor.size for path, factor in shared.rows)
        return max(entries, 1)

    def kept(self, leaving: Mapping[int, Array]) -> dict[str, Array]:
        """Return which indices of axis 0 stay, by parameter path, given the granules that leave each group (by its number).

        Named are the producers: weights, biases, a BatchNorm's scale and shift. Masked together they give zeros to every reader.
        """
        dead = np.zeros(len(self._labels.pin), bool)
        for number, granules in leaving.items():
            dead[self.shared[number].classes[granules]] = True
        return {
            tensor.name: self._labels.keep(self._labels.axes[tensor][0], dead)
            for tensor, axis, factor in self._bound
            if axis == 0 and _produces(tensor) and dead[self._labels.classes(factor)].any()
        }


def _is_weight(tensor: Tensor) -> bool:
    """Tell whether a parameter is what a pruner scores, so not the depthwise half of a separable convolution, nor a table of its own."""
    return len(tensor.shape) > 1 and tensor.name.rpartition(".")[2] == "weight"


def _produces(tensor: Tensor) -> bool:
    return tensor.name.rpartition(".")[2] in ("weight", "bias")


def _summed(factor: Factor, vector: Array) -> Array:
    block = vector[factor.start : factor.start + factor.outer * factor.size * factor.inner]
    return np.asarray(block.reshape(factor.outer, factor.size, factor.inner).sum(axis=(0, 2)))
