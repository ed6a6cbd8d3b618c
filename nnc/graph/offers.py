"""Which classes of labels a pruner may be offered, whatever the numbers are.

Not what is pinned, not what no parameter holds or nothing sums over, and of an axis only its outermost free factor: heads leave, the
positions within each head do not, since those are tied to numbers in the user's code (a head's size, a scale). The groups of a
convolution are tied to none, so there both may leave, and a pruner is offered the finer one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from nnc.graph.contractions import contractions
from nnc.graph.ir import Array, Graph, Tensor
from nnc.graph.labels import Factor, Labels, solve
from nnc.graph.rules import constrain
from nnc.graph.values import analyse

#: A factor of one axis of one parameter.
Binding = tuple[Tensor, int, Factor]


def bindings(graph: Graph, labels: Labels) -> list[Binding]:
    """Return every factor of every axis of every parameter, in the order of the parameters' first use."""
    return [
        (tensor, number, factor)
        for tensor in graph.parameters().values()
        for number, axis in enumerate(labels.axes[tensor])
        for factor in labels.of(axis)
    ]


def withheld(labels: Labels, bound: Iterable[Binding]) -> Iterator[tuple[Array, str]]:
    """Yield classes that are not pinned but still not offered, with the reason."""
    held, loose = np.zeros(len(labels.pin), bool), _in_blocks(labels)
    free: dict[tuple[Tensor, int, int], Factor] = {}
    for tensor, axis, factor in bound:
        classes = labels.classes(factor)
        held[classes] = True
        if labels.pinned[classes].all() or loose[classes].all():
            continue
        outermost = free.setdefault((tensor, axis, factor.start), factor)
        if outermost is not factor:
            yield classes, f"it lies within each of {outermost.size} blocks, which leave whole"
    yield np.flatnonzero(~held), "no parameter holds it"


def outdone(labels: Labels, bound: Iterable[Binding]) -> Iterator[tuple[Array, str]]:
    """Yield the groups of convolutions where, everywhere, the positions within each group can leave instead.

    As many channels leave either way, but a convolution of half the width within each group has a quarter of the weights, one of half
    as many groups a half.
    """
    loose, within = _in_blocks(labels), set()
    blocks: dict[tuple[Tensor, int, int], list[Array]] = {}
    for tensor, axis, factor in bound:
        classes = labels.classes(factor)
        if loose[classes].all():
            blocks.setdefault((tensor, axis, factor.start), []).append(classes)
        elif not labels.pinned[classes].all():
            within.add((tensor, axis, factor.start))
    for place, found in blocks.items():
        if place not in within:
            loose[np.concatenate(found)] = False
    yield np.flatnonzero(loose), "the channels within each group leave instead"


def _in_blocks(labels: Labels) -> Array:
    """Return which classes are groups of a grouped convolution."""
    found = np.zeros(len(labels.pin), bool)
    for axis in labels.axes.blocks:
        for factor in labels.of(axis):
            found[labels.classes(factor)] = True
    return found


#: What reads a parameter as numbers to join or to add, so that all of its axes are the result's.
_CARRYING = frozenset(["binary", "concat", "expand", "identity", "layer_norm", "pointwise", "repeat", "select", "slice", "stack"])
_STATISTICS = ("running_mean", "running_var")
#: The axis of a parameter, by its place among the inputs, along which these make numbers. They sum over the others.
_MAKING = {"linear": {1: 0, 2: 0}, "conv": {1: 0, 2: 0}, "embedding": {1: 1}, "batch_norm": {1: 0, 2: 0}}
_MAKING["recurrent"] = {1: 0, 2: 0, 5: 0, 6: 0}


def producers(graph: Graph) -> frozenset[tuple[str, int]]:
    """Return the (path, axis) of every parameter along which it makes numbers: masked there, a channel is zero at its readers."""
    parameters = graph.parameters()
    found = {
        (path, 0)
        for path in parameters
        if path.rpartition(".")[2] in ("weight", "bias") or _shifts(path, parameters) or _recurs(path, parameters)
    }
    for node in graph.nodes:
        for place, tensor in enumerate(node.inputs):
            if tensor is None or tensor.role != "parameter" or tensor.name.endswith(_STATISTICS):
                continue
            if node.kind in _CARRYING:
                found |= {(tensor.name, axis) for axis in range(len(tensor.shape))}
            elif place in _MAKING.get(node.kind, {}):
                found.add((tensor.name, _MAKING[node.kind][place]))
    return frozenset(found)


def _recurs(path: str, parameters: Collection[str]) -> bool:
    """Tell whether a parameter is of a recurrent layer, whose file may store it in parts: rows of gates, in any case."""
    layer, _, name = path.rpartition(".")
    rows = name.startswith(("weight", "bias", "recurrent_weight", "recurrent_bias"))
    return rows and f"{layer}.recurrent_weight".lstrip(".") in parameters


def _shifts(path: str, parameters: Collection[str]) -> bool:
    """Tell whether a parameter is the running mean of a BatchNorm without a scale: it makes a masked channel other than zero."""
    layer, _, name = path.rpartition(".")
    return name == "running_mean" and f"{layer}.weight".lstrip(".") not in parameters


#: What hands a parameter's numbers on to a result that they may make other than zero.
_HANDING_ON = frozenset(["concat", "embedding", "expand", "identity", "repeat", "reshape", "select", "slice", "stack"])


def unmaskable(graph: Graph, labels: Labels, maskable: Collection[str]) -> Iterator[tuple[Array, str]]:
    """Yield classes that no mask makes zero: a table or buffer that is added there belongs to no layer, so it is not in `maskable`.

    A vector is no table: what it adds to a masked channel is one constant, which goes into the bias behind.
    """
    for node in graph.nodes:
        added = node.kind == "binary" and node.attrs["function"] not in ("mul", "div")
        for tensor in node.inputs if added or node.kind in _HANDING_ON else ():
            if tensor is not None and tensor.role == "parameter" and tensor.name not in maskable and _is_table(tensor):
                for axis in labels.axes[tensor]:
                    for factor in labels.of(axis):
                        yield labels.classes(factor), f"{tensor.name} is added to it, and belongs to no layer that could be masked"


@dataclass(frozen=True)
class Solved:
    """A graph with its labels, and what follows from both alone."""

    graph: Graph
    labels: Labels

    @cached_property
    def bound(self) -> list[Binding]:
        """Every factor of every axis of every parameter."""
        return bindings(self.graph, self.labels)

    @cached_property
    def producers(self) -> frozenset[tuple[str, int]]:
        """Where parameters make numbers."""
        return producers(self.graph)

    @cached_property
    def signature(self) -> Array:
        """A number per class that tells groups apart."""
        return signatures(self.labels, self.bound)

    @cached_property
    def withheld(self) -> list[tuple[Array, str]]:
        """Classes that are not pinned but still not offered."""
        return list(withheld(self.labels, self.bound))


def solved(graph: Graph, allow_inexact: bool = False) -> Solved:
    """Return the labels of a graph, solved once. Raises ValueError where a node's shapes contradict its kind."""
    key = Solved, allow_inexact
    if key not in graph.found:
        # A copy of the graph, which holds no such entry: what follows from a graph does not keep it alive.
        graph.found[key] = Solved(replace(graph, found={}), solve(constrain(graph, allow_inexact)))
    known: Solved = graph.found[key]
    return known


def needed(solved: Solved, free: Array, maskable: Collection[str], allow_inexact: bool) -> Iterator[tuple[Array, str]]:
    """Yield classes that some operation needs all the same when everything of them is masked that can be, with the reason.

    sigmoid(0) in front of a convolution that pads with zeros is such a case. Half of each group is tried at a time, so that no tensor
    becomes a constant because all that it is made from is masked; where nothing needs the first half, the second is not tried.
    """
    graph, labels = solved.graph, solved.labels
    for half in _halves(solved.signature, free):
        whole: dict[str, dict[int, Array]] = {}
        for tensor, axis, factor in solved.bound:
            if (tensor.name, axis) in solved.producers and tensor.name in maskable and half[labels.classes(factor)].any():
                whole.setdefault(tensor.name, {})[axis] = labels.keep(labels.axes[tensor][axis], half)
        found = False
        for contraction in contractions(graph, analyse(graph, {}, allow_inexact, whole)):
            for factor in labels.of(labels.axes[contraction.tensor][contraction.axis]):
                classes = labels.classes(factor)
                classes = classes[~factor.all_along(contraction.safe) & half[classes]]
                if len(classes):
                    found = True
                    yield classes, contraction.reason
        if not found:
            return


def _halves(signature: Array, free: Array) -> Iterator[Array]:
    """Yield every second of the free classes of each group, then the others."""
    classes = np.flatnonzero(free)
    order = classes[np.argsort(signature[classes], kind="stable")]
    found, starts = np.unique(signature[order], return_index=True)
    rank = np.arange(len(order)) - starts[np.searchsorted(found, signature[order])] if len(order) else order
    for parity in (0, 1):
        half = np.zeros(len(free), bool)
        half[order[rank % 2 == parity]] = True
        if half.any():
            yield half


def _is_table(tensor: Tensor) -> bool:
    return sum(size != 1 for size in tensor.shape) > 1


def signatures(labels: Labels, bound: Iterable[Binding]) -> Array:
    """Return a number per class that is equal for classes that the same parameters hold: they form one group."""
    bound = list(bound)
    keys = np.random.default_rng(0).integers(1, 2**62, size=len(bound))
    signature = np.zeros(len(labels.pin), np.int64)
    for key, (_, _, factor) in zip(keys, bound, strict=True):
        signature[labels.classes(factor)] ^= key  # once per class, however often it stands in the factor
    return signature
