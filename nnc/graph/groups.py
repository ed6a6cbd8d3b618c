"""Channels that can only leave together: what a pruner scores when it knows the graph.

A residual add ties the outputs of its branches, a depthwise convolution its output to its input, an attention the rows of q, k and v
of one head. Such a group is one row of granules whose score is the sum over its members, or their mean or largest (Fang et al.,
DepGraph, CVPR 2023, arXiv:2301.12900); what is chosen is masked in every producer, BatchNorm included, so that all of it can really
leave. The config_list may tie more layers than the graph does.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnc.graph.axes import Axes
from nnc.graph.contractions import contractions
from nnc.graph.ir import Array, Graph, Node, Shape, Tensor
from nnc.graph.known import one_of_each
from nnc.graph.labels import Factor, solve
from nnc.graph.offers import Solved, needed, outdone, solved, unmaskable
from nnc.graph.rules import constrain
from nnc.graph.values import Values


@dataclass(frozen=True)
class Shared:
    """Granules that several layers share. `classes` are their label classes, ascending; `rows` the weights that hold them, in axis 0 or,
    of the `tables` of embeddings, in axis 1.

    `heads` says that the granules are attention heads: a product of two activations runs once for each.
    """

    classes: Array
    rows: tuple[tuple[str, Factor], ...]
    heads: bool = False
    tables: frozenset[str] = frozenset()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers whose output channels the granules are, in the order of their first use."""
        return tuple(dict.fromkeys(path.rpartition(".")[0] for path, _ in self.rows))

    def missing(self, selected: Collection[str], spared: Collection[str] = ()) -> list[str]:
        """Return the layers without whose selection nothing may leave. An embedding follows the others, unless it is to be spared."""
        follow = {path.rpartition(".")[0] for path in self.tables}
        return [name for name in self.layers if name not in selected and (name not in follow or name in spared)]

    @property
    def rows_of_one(self) -> int:
        """How many output channels of its first layer a granule is: 64 for a head of 64."""
        _, factor = self.rows[0]
        return factor.outer * factor.inner

    def rows_by_layer(self) -> dict[str, int]:
        """Return how many output channels of each layer a granule is; where heads share a key and value, the queries have more."""
        found: dict[str, int] = {}
        for path, factor in self.rows:
            layer = path.rpartition(".")[0]
            found[layer] = found.get(layer, 0) + factor.outer * factor.inner
        return found


class Groups:
    """The groups of a graph that may leave; with `allow_inexact`, also widths that a mean is taken over.

    `tied` are layers, given by name, that shall lose the same output channels whether or not the graph asks for it. `maskable` are the
    paths of all that layers hold (None: every parameter): what is added to a channel and is none of these keeps the channel.
    """

    def __init__(
        self, graph: Graph, allow_inexact: bool = False, tied: Sequence[Sequence[str]] = (), maskable: Collection[str] | None = None
    ) -> None:
        self._solved = _tied(graph, allow_inexact, tied) if tied else solved(graph, allow_inexact)
        self._labels, self._bound, self._producers = self._solved.labels, self._solved.bound, self._solved.producers
        self._graph = graph
        self._parameters = graph.parameters()
        self._tables, self._tied_tables = _tables(graph)
        self._why = list(self._labels.reasons)
        self._reason = self._reasons(
            graph, graph.parameters() if maskable is None else maskable, allow_inexact
        )  # per class: index into `_why`, or -1 where it may leave
        self.shared = tuple(self._find(graph))

    def _find(self, graph: Graph) -> Iterator[Shared]:
        signature, free = self._solved.signature, self._reason < 0
        rows: dict[int, list[tuple[str, Factor]]] = {}
        for tensor, axis, factor in self._bound:
            classes = self._labels.classes(factor)
            if self._holds_channels(tensor, axis):
                for group in one_of_each(signature[classes[free[classes]]]):
                    rows.setdefault(int(group), []).append((tensor.name, factor))
        classes_of = _by_value(np.flatnonzero(free), signature[free])
        heads = self._heads(graph)
        for group, found in rows.items():
            classes = classes_of[group]
            # Tables last: what a granule is, the layers that compute it tell.
            mine = sorted(found, key=lambda row: row[0] in self._tables)
            yield Shared(classes, tuple(mine), bool(heads[classes].all()), self._tables.intersection(path for path, _ in mine))

    def _holds_channels(self, tensor: Tensor, axis: int) -> bool:
        """Tell whether an axis of a parameter is the output channels of a layer whose weight it is."""
        return axis == (tensor.name in self._tables) and _is_weight(tensor)

    def _heads(self, graph: Graph) -> Array:
        """Return which classes are attention heads: indices of a leading axis of a product of two activations."""
        found = np.zeros(len(self._labels.pin), bool)
        for node in graph.nodes:
            if node.kind == "matmul" and all(tensor is not None and tensor.role == "value" for tensor in node.inputs[:2]):
                for axis in self._labels.axes[node.outputs[0]][:-2]:
                    for factor in self._labels.of(axis):
                        found[self._labels.classes(factor)] = True
        return found

    def _reasons(self, graph: Graph, maskable: Collection[str], allow_inexact: bool) -> Array:
        """Return why each class must stay, the first reason that is found, or -1."""
        reason = self._labels.pin.copy()
        summed = np.zeros(len(reason), bool)
        for contraction in contractions(graph, Values({})):
            for factor in self._labels.of(self._labels.axes[contraction.tensor][contraction.axis]):
                summed[self._labels.classes(factor)] = True
        whole = (*self._solved.withheld, *outdone(self._labels, self._bound), (np.flatnonzero(~summed), "nothing sums over it"))
        for classes, why in whole:
            reason[classes[reason[classes] < 0]] = len(self._why)
            self._why.append(why)
        numbers: dict[str, int] = {}
        for classes, why in self._needed(graph, reason < 0, maskable, allow_inexact):
            reason[classes[reason[classes] < 0]] = numbers.setdefault(why, len(self._why))
            self._why += [why] if numbers[why] == len(self._why) else []
        return reason

    def _needed(self, graph: Graph, free: Array, maskable: Collection[str], allow_inexact: bool) -> Iterator[tuple[Array, str]]:
        """Yield classes that some operation needs whatever is masked: of a table that no mask makes zero, the table is the reason.

        Many a table is no hindrance: what is added to the scores of an attention head is lost where its values are zero.
        """
        found = list(needed(self._solved, free, maskable, allow_inexact))
        read = np.zeros(len(free), bool)
        for classes, _ in found:
            read[classes] = True
        if read.any():
            yield from ((classes[read[classes]], why) for classes, why in unmaskable(graph, self._labels, maskable))
        yield from found

    def pinned(self) -> Iterator[tuple[str, int, str]]:
        """Yield (layer, output channels, reason) for what must stay, per layer and reason."""
        for path in self._tied_tables:
            layer, width = path.rpartition(".")[0], self._parameters[path].shape[1]
            yield layer, width, f"{path} is read as another layer's weight, too: its columns leave with the layers that write that width"
        for tensor, axis, factor in self._bound:
            if tensor.name not in self._tied_tables and self._holds_channels(tensor, axis):
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

    def scores(self, shared: Shared, scores: Mapping[str, Array], combine: str = "sum") -> Array:
        """Return what each granule of a group scores: sum, mean or max over its output channels in all the layers that `scores` has.

        `scores` are by layer, `(out,)`.
        """
        total = np.full(len(shared.classes), -np.inf if combine == "max" else 0.0)
        count = np.zeros(len(shared.classes))
        for path, factor in shared.rows:
            mine = scores.get(path.rpartition(".")[0])
            if mine is None:
                continue
            classes = self._labels.classes(factor)
            place = np.searchsorted(shared.classes, classes).clip(max=len(shared.classes) - 1)
            own = shared.classes[place] == classes
            block = _block(factor, mine)
            if combine == "max":
                np.maximum.at(total, place[own], block.max(axis=(0, 2))[own])
            else:
                np.add.at(total, place[own], block.sum(axis=(0, 2))[own])
                np.add.at(count, place[own], factor.outer * factor.inner)
        return total / count if combine == "mean" else total

    def rows(self, number: int) -> dict[str, Array]:
        """Return which granule of a group each output channel belongs to, -1 for none, by the path of each producer with such."""
        shared = self.shared[number]
        granule = np.full(len(self._reason), -1)
        granule[shared.classes] = np.arange(len(shared.classes))
        found: dict[str, Array] = {}
        for tensor, axis, factor in self._bound:
            mine = granule[self._labels.classes(factor)]
            if axis == 0 and (tensor.name, 0) in self._producers and (mine >= 0).any():
                vector = found.setdefault(tensor.name, np.full(tensor.shape[0], -1))
                _block(factor, vector)[...] = mine[:, None]
        return found

    def shapes(self) -> dict[int, Hashable]:
        """Return the shape of the subgraph around one granule of each group, by number: equal for groups that are isomorphic.

        It is the multiset of what touches a granule: the kinds of operation, which of their parameters, which axis of it, and how many of
        its indices. Widths do not count: stages of a ResNet are alike. Fang et al., Isomorphic Pruning, ECCV 2024, arXiv:2407.04616.
        """
        owner = np.full(len(self._labels.pin), -1)
        for number, shared in enumerate(self.shared):
            owner[shared.classes] = number
        uses = _uses(self._graph)
        parts: dict[int, list[tuple[str, int, int]]] = {number: [] for number in range(len(self.shared))}
        for tensor, axis, factor in self._bound:
            for number in np.unique(owner[self._labels.classes(factor)]):
                if number >= 0:
                    parts[int(number)].append((uses[tensor.name], axis, factor.outer * factor.inner))
        return {number: tuple(sorted(found)) for number, found in parts.items()}

    def evened(self, leaving: Mapping[int, Array], scores: Mapping[int, Array]) -> dict[int, Array]:
        """Return the granules that leave each group, less those that would make the parts of a chunk differ in size.

        `chunk(2)` gives halves whatever the width. Where one half would lose more, the best of what it loses stay. Both arguments are by
        group, over its granules.
        """
        dead, score = np.zeros(len(self._labels.pin), bool), np.zeros(len(self._labels.pin))
        for number, granules in leaving.items():
            dead[self.shared[number].classes] = granules
            score[self.shared[number].classes] = scores[number]
        chunks = self._chunks()
        while any(self._even_out(axes, dead, score) for axes in chunks):
            pass  # what stays in one may be missing in another
        return {number: dead[self.shared[number].classes] for number in leaving}

    def _even_out(self, axes: Sequence[int], dead: Array, score: Array) -> bool:
        """Let classes stay until no axis is smaller than the largest; True where some do. More may stay where one holds many indices."""
        sizes = [int(self._labels.keep(axis, dead).sum()) for axis in axes]
        for axis, size in zip(axes, sizes, strict=True):
            if size < max(sizes):
                classes = np.unique(np.concatenate([self._labels.classes(factor) for factor in self._labels.of(axis)]))
                gone = classes[dead[classes]]
                held = max(factor.outer * factor.inner for factor in self._labels.of(axis))
                dead[gone[np.argsort(-score[gone], kind="stable")[: max(1, (max(sizes) - size) // held)]]] = False
        return min(sizes) < max(sizes)

    def _chunks(self) -> list[tuple[int, ...]]:
        """Return the axes that a split into parts of one size makes."""
        splits = (
            (node.attrs["axis"], node.attrs["parts"])
            for node in self._graph.nodes
            if node.kind == "slice" and len(node.attrs.get("sizes", ())) == 1 and node.outputs[0] in node.attrs.get("parts", ())[:1]
        )
        found = [tuple(self._labels.axes[part][axis] for part in parts) for axis, parts in splits]
        return [axes for axes in found if len({self._labels.axes.sizes[axis] for axis in axes}) == 1]

    def weights(self, shared: Shared, whole: Mapping[str, Shape] | None = None) -> int:
        """Return how many weights leave the group's own layers with one granule.

        `whole` has the shapes, by path, that parameters had in the larger model that weights are counted in.
        """
        entries = 0
        for path, factor in shared.rows:
            shape, axis = self._parameters[path].shape, path in shared.tables
            had = (whole or {}).get(path, shape)
            entries += shape[axis] * (int(np.prod(had)) // had[axis]) // factor.size
        return max(entries, 1)

    def before(self, shared: Shared, whole: Mapping[str, Shape] | None = None) -> int:
        """Return how many granules the group had in that larger model."""
        axes = [(path, path in shared.tables) for path, _ in shared.rows]
        # A wide layer may hold channels of other groups as well: the narrowest one tells.
        had, has = min(
            (((whole or {})[path][axis], self._parameters[path].shape[axis]) for path, axis in axes if path in (whole or {})),
            default=(1, 1),
        )
        return round(len(shared.classes) * had / has)

    def kept(self, leaving: Mapping[int, Array]) -> dict[str, dict[int, Array]]:
        """Return which indices stay, by parameter path and axis, given the granules that leave each group (by its number).

        Named are the producers: rows of weights, biases, a BatchNorm's scale and shift, columns of an embedding. Masked together they
        give zeros to every reader.
        """
        dead = np.zeros(len(self._labels.pin), bool)
        for number, granules in leaving.items():
            dead[self.shared[number].classes[granules]] = True
        found: dict[str, dict[int, Array]] = {}
        for tensor, axis, factor in self._bound:
            if (tensor.name, axis) in self._producers and dead[self._labels.classes(factor)].any():
                found.setdefault(tensor.name, {})[axis] = self._labels.keep(self._labels.axes[tensor][axis], dead)
        return found


def _is_weight(tensor: Tensor) -> bool:
    """Tell whether a parameter is what a pruner scores, so not the depthwise half of a separable convolution, nor a table of its own."""
    return len(tensor.shape) > 1 and tensor.name.rpartition(".")[2] == "weight"


def _tables(graph: Graph) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the tables of embeddings by path, and those that are another layer's weight, too, and have no channels of their own."""
    looked_up: set[str] = set()
    others: set[str] = set()
    for node in graph.nodes:
        for place, tensor in enumerate(node.inputs):
            if tensor is not None and tensor.role == "parameter":
                (looked_up if node.kind == "embedding" and place == 1 else others).add(tensor.name)
    return frozenset(looked_up - others), tuple(sorted(looked_up & others))


def _block(factor: Factor, vector: Array) -> Array:
    """Return the part of a vector that a factor reads, as (outer, size, inner): a view of it."""
    block = vector[factor.start : factor.start + factor.outer * factor.size * factor.inner]
    return np.asarray(block.reshape(factor.outer, factor.size, factor.inner))


def _tied(graph: Graph, allow_inexact: bool, tied: Sequence[Sequence[str]]) -> Solved:
    axes = constrain(graph, allow_inexact)
    for members in tied:
        _tie(axes, graph, members)
    return Solved(graph, solve(axes))


def _tie(axes: Axes, graph: Graph, members: Sequence[str]) -> None:
    """Let the output channels of layers leave together only; of a layer that the pass did not run there are none."""
    parameters, (tables, _) = graph.parameters(), _tables(graph)
    found = [parameters[path] for path in (f"{name}.weight" if name else "weight" for name in members) if path in parameters]
    for weight in found[1:]:
        axes.eq(axes[found[0]][found[0].name in tables], axes[weight][weight.name in tables])


def _by_value(items: Array, values: Array) -> dict[int, Array]:
    """Return the items that have each value, in their order, without a pass for each value."""
    if not len(items):
        return {}
    order = np.argsort(values, kind="stable")
    found, starts = np.unique(values[order], return_index=True)
    return dict(zip(found.tolist(), np.split(items[order], starts[1:]), strict=True))


def _uses(graph: Graph) -> dict[str, str]:
    """Return which operations read each parameter, and as which of their inputs: `conv4.1` is the weight of a 2-D convolution."""
    found: dict[str, set[str]] = {}
    for node in graph.nodes:
        for place, tensor in enumerate(node.inputs):
            if tensor is not None and tensor.role == "parameter":
                depthwise = "depthwise " if node.kind == "conv" and _depthwise(node) else ""
                found.setdefault(tensor.name, set()).add(f"{depthwise}{node.kind}{len(node.outputs[0].shape)}.{place}")
    return {name: " ".join(sorted(uses)) for name, uses in found.items()}


def _depthwise(node: Node) -> bool:
    weight = node.inputs[1]
    return weight is not None and node.attrs["groups"] > 1 and weight.shape[1] == 1
