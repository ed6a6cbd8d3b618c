"""Numbers that layers hold as attributes, and that follow from an axis: `num_heads`, `all_head_size`, `n_heads`.

An attribute follows when its name speaks of such a size, its value is the old size of an axis that the layer's own code works on, and
every axis of that size in and under the layer changes alike. Where 64 is both the width of all heads and the width of the model, only
a name that speaks of the inside of the layer (`all_head_size`, `inner_dim`) is clear enough. The small model, traced again, is the proof:
its shapes, the numbers that its code computes with, and its outputs. A name that could mean anything (`hidden_size`, `channels`) is only
tried where the small model fails without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from nnc.graph.ir import Graph, Node, Tensor
from nnc.graph.plan import Size

_SIZES = frozenset(["head", "heads", "channels", "features", "units", "planes", "inplanes", "inner", "hidden", "nh"])
_INSIDE = frozenset(["head", "heads", "inner"])
#: Counts and positions that may happen to equal a size.
_OTHER = frozenset(["layer", "layers", "block", "blocks", "index", "idx", "id", "depth", "level", "levels", "kernel", "stride"])

#: layer -> {attribute: number}
Numbers = dict[str, dict[str, int]]


def levels(numbers: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return which numbers may follow, in the order in which to try: those with a clear name, all that may be sizes, none."""
    clear = {layer: {name: held for name, held in own.items() if _words(name) & _INSIDE} for layer, own in numbers.items()}
    likely = {layer: {name: held for name, held in own.items() if _words(name) & _SIZES} for layer, own in numbers.items()}
    return _without_empty(clear), _without_empty(likely), {}


def _without_empty(numbers: Numbers) -> Numbers:
    return {layer: own for layer, own in numbers.items() if own}


def _words(attribute: str) -> set[str]:
    return set(attribute.strip("_").split("_"))


#: old size -> the new sizes that axes of it get.
Changes = dict[int, set[int]]


def held_sizes(graph: Graph, new_size: Callable[[int], int], axes_of: Callable[[Tensor], tuple[int, ...]]) -> Iterator[Size]:
    """Yield the attributes in `graph.numbers` that follow; `new_size` gives the size that an axis will have."""
    if not graph.numbers:
        return
    own, under = _changes(graph, new_size, axes_of)
    for layer, numbers in graph.numbers.items():
        for attribute, old in numbers.items():
            new = _follows(attribute, old, own.get(layer, {}), under.get(layer, {}))
            if new is not None:
                yield Size(layer, attribute, old, new)


def _changes(
    graph: Graph, new_size: Callable[[int], int], axes_of: Callable[[Tensor], tuple[int, ...]]
) -> tuple[Mapping[str, Changes], Mapping[str, Changes]]:
    """Return how sizes change in each layer's own code, and in all that runs under it."""
    own: dict[str, Changes] = {}
    under: dict[str, Changes] = {}
    for node in graph.nodes:
        seen = {(size, new_size(axis)) for tensor in _tensors(node) for size, axis in zip(tensor.shape, axes_of(tensor), strict=True)}
        _note(own.setdefault(node.layer, {}), seen)
        layer = node.layer
        while True:
            if layer in graph.numbers:
                _note(under.setdefault(layer, {}), seen)
            if not layer:
                break
            layer = layer.rpartition(".")[0]
    return own, under


def _tensors(node: Node) -> Iterator[Tensor]:
    yield from (tensor for tensor in node.inputs if tensor is not None)
    yield from node.outputs


def _note(changes: Changes, seen: set[tuple[int, int]]) -> None:
    for old, new in seen:
        changes.setdefault(old, set()).add(new)


def _follows(attribute: str, old: int, own: Changes, under: Changes) -> int | None:
    """Return the number that an attribute must become, or None where it stays or that is not clear."""
    words = _words(attribute)
    # A state that the code makes for a recurrent layer under it is all that the code does with its size.
    sizes = own.get(old) or (under.get(old, set()) if "hidden" in words else set())
    changed = sizes - {old}
    if not words & _SIZES or words & _OTHER or len(changed) != 1:
        return None
    # 8 heads of 8: heads leave, the size of each stays.
    clear = "heads" in words if old in sizes else under[old] == changed or bool(words & _INSIDE)
    return changed.pop() if clear else None
