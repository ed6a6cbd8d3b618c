"""Graph + masks -> Plan: what can leave exactly, what follows from it, and what must stay and why.

Two analyses meet here. Labels (coupling) say which indices can only leave together; values say where an index is read as zero or as a
constant. A class of labels leaves when nothing pins it and every operation that sums over it is safe without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from nnc.graph.contractions import Contraction, contractions
from nnc.graph.held import held_sizes
from nnc.graph.ir import Array, Graph, Node, Shape, Tensor
from nnc.graph.kept import Stays, kept
from nnc.graph.known import one_of_each
from nnc.graph.labels import Labels
from nnc.graph.offers import Binding, Solved, solved
from nnc.graph.plan import Group, Inexact, Member, Plan, Reshape, Size
from nnc.graph.values import Values, analyse, weighted

NOTHING: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True)
class Propagation:
    """A plan, with what carries it out and checks it.

    `folds` are addends of full size, by bias path. `shapes` gives, per node of the graph, the shapes that its outputs must have
    in the small model, and `indices`, for a slice of an axis that changes, what it must take there. `resized` finds, by the number
    of a node, its entry in `plan.reshapes`. `emptied` are axes of which everything was masked, so that one index was kept.
    """

    plan: Plan
    folds: dict[str, Array]
    shapes: list[tuple[Shape, ...]]
    resized: dict[int, int]
    emptied: tuple[str, ...]
    indices: dict[int, Array]


@dataclass
class _State:
    """What the steps below share: the solved labels, the values, and why each class stays (index into `why`, -1: it leaves)."""

    solved: Solved
    values: Values
    why: list[str]
    stays: Array

    @property
    def labels(self) -> Labels:
        return self.solved.labels

    @property
    def bindings(self) -> list[Binding]:
        return self.solved.bound


def propagate(
    graph: Graph, masks: Mapping[str, Mapping[str, Array]], fixed: Mapping[int, str] = NOTHING, allow_inexact: bool = False
) -> Propagation:
    """Return what follows from `masks` ({layer: {parameter: boolean array in canonical shape}}) for a traced graph.

    `fixed` are nodes (by number) of which no size may change, with the reason. With `allow_inexact`, what a mean is taken over may
    leave too; the plan then says so.

    Raises ValueError where a node's shapes contradict its kind (an adapter's mistake).
    """
    flat = {".".join(filter(None, (layer, name))): mask for layer, given in masks.items() for name, mask in given.items()}
    known = solved(graph, allow_inexact)
    labels = known.labels
    state = _State(known, analyse(graph, flat, allow_inexact), list(labels.reasons), labels.pin.copy())
    summed = list(contractions(graph, state.values))
    for classes, reason in known.withheld:
        _stay(state, classes, reason)
    for number, reason in fixed.items():
        _stay_around(state, graph.nodes[number], reason)
    _stay_unless_safe(state, summed)
    emptied = _keep_one(state)
    folds = _folds(state, summed)
    dead = state.stays < 0
    parameters = graph.parameters()
    biases = tuple(sorted(path.rpartition(".")[0] for path in folds if path not in parameters))
    sizes = _NewSizes(labels, dead)
    indices = dict(_indices(graph, labels, dead))
    reshapes, resized = _reshapes(graph, sizes, indices)
    plan = Plan(
        groups=tuple(_with_new_biases(group, biases) for group in _groups(state, dead)),
        sizes=tuple(_sizes(graph, labels, sizes)),
        reshapes=tuple(reshapes),
        biases=biases,
        kept=tuple(kept(known, state.values, Stays(state.stays, state.why, labels.pinned))),
        inexact=tuple(_inexact(labels, sizes)),
    )
    shapes = [tuple(sizes.shape(tensor) for tensor in node.outputs) for node in graph.nodes]
    return Propagation(plan, folds, shapes, resized, emptied, indices)


def _stay(state: _State, classes: Array, reason: str) -> None:
    """Give classes that were leaving a reason to stay."""
    fresh = classes[state.stays[classes] < 0]
    if len(fresh):
        state.stays[fresh] = len(state.why)
        state.why.append(reason)


def _stay_around(state: _State, node: Node, reason: str) -> None:
    """Keep every class on an axis that a node reads or gives."""
    for tensor in (*node.inputs, *node.outputs):
        for axis in state.labels.axes[tensor] if tensor is not None else ():
            for factor in state.labels.of(axis):
                _stay(state, state.labels.classes(factor), reason)


def _indices(graph: Graph, labels: Labels, dead: Array) -> Iterator[tuple[int, Array]]:
    """Yield (number of a slice, the indices that it must take of the small model's axis)."""
    for number, node in enumerate(graph.nodes):
        if node.kind == "slice" and node.inputs[0] is not None:
            axis = node.attrs["axis"]
            whole = labels.keep(labels.axes[node.inputs[0]][axis], dead)
            if not whole.all():
                part = labels.keep(labels.axes[node.outputs[0]][axis], dead)
                yield number, (np.cumsum(whole) - 1)[np.asarray(node.attrs["index"])[part]]


def _stay_unless_safe(state: _State, summed: list[Contraction]) -> None:
    """Keep every class that some operation still needs, and every class that none sums over."""
    reached = np.zeros(len(state.stays), bool)
    for contraction in summed:
        axis = state.labels.axes[contraction.tensor][contraction.axis]
        for factor in state.labels.of(axis):
            classes = state.labels.classes(factor)
            reached[classes] = True
            unsafe = ~factor.all_along(contraction.safe)
            if unsafe.any():
                _stay(state, classes[unsafe], contraction.reason)
    _stay(state, np.flatnonzero(~reached), "nothing sums over it")


def _keep_one(state: _State) -> tuple[str, ...]:
    """Let the first index of a factor stay where all would leave: a layer is never emptied."""
    emptied = []
    for tensor, axis, factor in state.bindings:
        classes = state.labels.classes(factor)
        if (state.stays[classes] < 0).all():
            _stay(state, classes[:1], "it is the last one")
            of = f" ({factor.size} blocks of {factor.inner})" if factor.inner > 1 else ""
            emptied.append(f"{tensor.name} axis {axis}{of}")
    return tuple(emptied)


def _folds(state: _State, summed: list[Contraction]) -> dict[str, Array]:
    """Return what is added to each bias for the constants that leave.

    A layer that is called twice must read the same constants both times; where it does not, those classes stay.
    """
    constants: dict[tuple[str, bytes], tuple[Contraction, Array]] = {}
    for contraction in summed:
        if contraction.weight is None or contraction.node.kind not in ("linear", "conv", "recurrent"):
            continue
        weight, (stored, rows) = contraction.tensor, contraction.weight
        groups = contraction.node.attrs.get("groups", 1)
        mine = np.zeros((groups, weight.shape[1])) if contraction.constant is None else contraction.constant
        part = b"" if isinstance(rows, slice) else rows.tobytes()
        first, seen = constants.setdefault((stored.name, part), (contraction, mine))
        if first is not contraction and (seen != mine).any():
            differs = (seen != mine).any(axis=0)
            for factor in state.labels.of(state.labels.axes[weight][1]):
                disagree = state.labels.classes(factor)[~factor.all_along(~differs)]
                _stay(state, disagree, f"{stored.name} is used twice, on different constants")
    folds: dict[str, Array] = {}
    for contraction, constant in constants.values():
        addend = _addend(state, contraction, constant)
        if addend is not None:
            # The directions of a recurrent layer may hold their biases in one parameter.
            folds[contraction.bias] = folds.get(contraction.bias, 0.0) + _within(addend, contraction)
    return folds


def _within(addend: Array, contraction: Contraction) -> Array:
    """Return an addend of a part of a parameter as one of all of it."""
    if contraction.entries is None:
        return addend
    whole = np.zeros(contraction.node.attrs["bias"][0].shape)
    whole.reshape(-1)[contraction.entries] = addend
    return whole


def _addend(state: _State, contraction: Contraction, constant: Array) -> Array | None:
    """Return weight times the constants of the indices that leave, `(out,)`, or None where these are all zero."""
    assert contraction.weight is not None
    weight, (stored, rows) = contraction.tensor, contraction.weight
    leaves = ~state.labels.keep(state.labels.axes[weight][1], state.stays < 0)
    leaving = np.where(leaves, constant, 0.0)  # (groups, in / groups)
    if not leaving.any():
        return None
    return weighted(state.values.numbers(stored)[rows], leaving, len(leaving))


def _groups(state: _State, dead: Array) -> Iterator[Group]:
    """Yield the classes that leave, those together that the same parameters hold."""
    signature = state.solved.signature
    members: dict[int, list[Member]] = {}
    for tensor, axis, factor in state.bindings:
        classes = state.labels.classes(factor)
        gone = np.flatnonzero(dead[classes])
        signed = signature[classes[gone]]
        for group in one_of_each(signed):
            removed = gone[signed == group]
            member = Member(tensor.name, axis, factor.start, factor.outer, factor.size, factor.inner, tuple(removed.tolist()))
            members.setdefault(int(group), []).append(member)
    for found in members.values():
        yield Group(tuple(found))


def _with_new_biases(group: Group, layers: Sequence[str]) -> Group:
    """A bias that a fold makes is in no graph: it loses what its weight's rows lose."""
    rows = (m for m in group.members if m.axis == 0 and m.tensor.endswith("weight") and m.tensor.rpartition(".")[0] in layers)
    return Group((*group.members, *(replace(m, tensor=m.tensor.removesuffix("weight") + "bias") for m in rows)))


def _sizes(graph: Graph, labels: Labels, sizes: _NewSizes) -> Iterator[Size]:
    """Yield the numbers held by layers that follow from an axis that shrinks."""
    for bound in dict.fromkeys(labels.axes.bounds):
        old, new = labels.axes.sizes[bound.axis], sizes.of(bound.axis)
        if old != new:
            yield Size(bound.layer, bound.attribute, old, new)
    yield from held_sizes(graph, sizes.of, labels.axes.__getitem__)


def _inexact(labels: Labels, sizes: _NewSizes) -> Iterator[Inexact]:
    """Yield the widths that shrink under a mean, one for all the places that share an axis."""
    places: dict[int, list[str]] = {}
    for axis, place in labels.axes.relaxed:
        places.setdefault(labels.axes.root(axis), []).append(place)
    for axis, found in places.items():
        old, new = labels.axes.sizes[axis], sizes.of(axis)
        if old != new:
            yield Inexact(tuple(dict.fromkeys(found)), old, new)


def _reshapes(graph: Graph, sizes: _NewSizes, indices: Mapping[int, Array]) -> tuple[list[Reshape], dict[int, int]]:
    """Return the reshapes, splits, slices and lookups whose numbers, as the user's code gives them, change; and which nodes they are."""
    found: list[Reshape] = []
    numbers: dict[int, int] = {}
    for number, node in enumerate(graph.nodes):
        if "cut" in node.attrs and number in indices:
            numbers[number] = len(found)
            found.append(_recut(node, indices[number], sizes))
            continue
        parts = node.attrs.get("parts", node.outputs)
        old = tuple(node.attrs.get("sizes", ()))
        if not old or parts[0] is not node.outputs[0]:
            continue  # the other parts of a split are dealt with at its first
        if node.attrs.get("looked_up"):
            new = tuple(indices.get(number, node.attrs["index"]).tolist())
        else:
            new = _new_sizes(node, [sizes.shape(tensor) for tensor in parts])
        if new != old:
            source = node.source
            where = (source.function, source.line) if source else ("", 0)
            found.append(Reshape(node.layer, node.op, *where, old, new, looked_up=bool(node.attrs.get("looked_up"))))
            numbers.update(dict.fromkeys(range(number, number + len(parts)), len(found) - 1))
    return found, numbers


def _recut(node: Node, index: Array, sizes: _NewSizes) -> Reshape:
    """Return what a slice must take of the small model's axis; the user's code says where it starts, stops, and in which steps."""
    (x, *_), source, axis = node.inputs, node.source, node.attrs["axis"]
    assert x is not None
    step = node.attrs["cut"][2]
    old = (*node.attrs["cut"], x.shape[axis])
    if abs(step) != 1:
        new = tuple(index.tolist())
    else:
        new = (*((int(index[0]), int(index[-1]) + step) if len(index) else (0, 0)), step, sizes.shape(x)[axis])
    where = (source.function, source.line) if source else ("", 0)
    return Reshape(node.layer, node.op, *where, old, new, cut=(axis, len(x.shape)))


def _new_sizes(node: Node, shapes: Sequence[Shape]) -> tuple[int, ...]:
    """Return the sizes to give a reshape, or a split, for its results to have `shapes`: -1 stays, and so does what did not change.

    A split into parts of one size is given that size, one into several all of theirs.
    """
    old = tuple(node.attrs["sizes"])
    if node.kind == "slice":
        parts = tuple(shape[node.attrs["axis"]] for shape in shapes)
        return parts if len(old) == len(parts) else (max(parts),)
    if len(old) != len(shapes[0]):
        return old
    return tuple(size if size == -1 else new for size, new in zip(old, shapes[0], strict=True))


class _NewSizes:
    """The sizes of axes after the dead classes have left; each class of axes is counted once."""

    def __init__(self, labels: Labels, dead: Array) -> None:
        self._labels, self._dead = labels, dead
        self._known: dict[int, int] = {}

    def of(self, axis: int) -> int:
        size = self._known.get(axis)
        if size is None:
            root = self._labels.axes.root(axis)
            if root not in self._known:
                self._known[root] = int(self._labels.keep(root, self._dead).sum())
            size = self._known[axis] = self._known[root]
        return size

    def shape(self, tensor: Tensor) -> Shape:
        return tuple([self.of(axis) for axis in self._labels.axes[tensor]])
