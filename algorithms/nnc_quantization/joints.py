"""Which outputs need a grid of their own, so that convolutions and what joins them stay in whole numbers.

    conv -> BatchNorm -> ReLU -> conv              the next input's grid serves: nothing is needed
    conv -> BatchNorm -> Add                       the BatchNorm's output
    Add -> ReLU -> mean over the image             the block's output
    conv -> BatchNorm -> SiLU -> conv              the BatchNorm's output: SiLU is computed in float

An integer convolution gives whole numbers, so it needs to know their grid; a sum, a concat and a mean work on whole numbers where all
that they read is some. A tensor that no layer of the model gives as its output can have no grid: what makes it stays float.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np

from nnc.graph.ir import Graph, Node, Tensor
from nnc.views import Site

#: Operations that hand the grid of what they read on.
_MOVES = ("identity", "reshape", "transpose")


def joints(graph: Graph, layers: Collection[str]) -> dict[Site, str]:
    """Return the outputs that need a grid; for each the layer, of the quantised `layers`, whose convolution it stands behind."""
    if not any(node.kind == "conv" for node in graph.nodes):
        return {}
    return _Search(graph, frozenset(layers)).run()


@dataclass
class _Search:
    graph: Graph
    layers: frozenset[str]
    whole: dict[Tensor, str] = field(default_factory=dict)  # tensors in whole numbers -> the layer that stands behind them
    found: dict[Site, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.readers: dict[Tensor, list[Node]] = {}
        for node in self.graph.nodes:
            for tensor in {each for each in node.inputs if each is not None}:
                self.readers.setdefault(tensor, []).append(node)
        self.fixed = _fixed(self.graph)
        self.exits = _exits(self.graph, self.readers)

    def run(self) -> dict[Site, str]:
        for node in self.graph.nodes:
            given = [tensor for tensor in node.inputs if tensor is not None and tensor not in self.fixed]
            product = self._product(node)
            if product and node.kind == "conv" and not node.attrs.get("transposed"):  # transposed ones have no integer kernel
                self._settle(node, product, norms=True)
            elif given and all(tensor in self.whole for tensor in given):
                owner = self.whole[given[0]]
                if _moves(node):
                    self.whole.update(dict.fromkeys(node.outputs, owner))
                elif _joins(node):
                    self._settle(node, owner, norms=False)
        return self.found

    def _product(self, node: Node) -> str | None:
        """Return the quantised layer whose weight a product reads, or None."""
        weight = node.inputs[1] if node.kind in ("conv", "linear") else None
        layer = weight.name.rpartition(".")[0] if weight is not None else ""
        return layer if layer in self.layers else None

    def _settle(self, node: Node, owner: str, norms: bool) -> None:
        """Note that what stands behind a node is in whole numbers, if a grid is known there or can be."""
        chain = self._behind(node, norms)
        if not self._served(chain[-1]):
            averages = node.kind in ("reduce", "pool")
            site = None if averages else next((self.exits[each] for each in reversed(chain) if each in self.exits), None)
            if site is None:
                return
            self.found.setdefault(Site(site, "output"), owner)
        self.whole[chain[-1]] = owner

    def _behind(self, node: Node, norms: bool) -> list[Tensor]:
        """Return what a node gives, and what becomes of that in the same kernel: a BatchNorm, then a ReLU."""
        chain = [node.outputs[0]]
        while len(readers := self.readers.get(chain[-1], [])) == 1 and chain[-1] not in self.graph.outputs:
            (reader,) = readers
            folded = reader.kind in ("batch_norm", "binary") and all(each in self.fixed for each in reader.inputs if each is not chain[-1])
            if _rectifies(reader):
                return [*chain, reader.outputs[0]]
            if not (reader.kind == "identity" or (norms and folded and reader.attrs.get("function") != "other")):
                return chain
            chain.append(reader.outputs[0])
        return chain

    def _served(self, tensor: Tensor) -> bool:
        """Whether a quantised layer reads a tensor, past operations that move or join numbers."""
        for node in self.readers.get(tensor, ()):
            if self._product(node) and node.inputs[0] is tensor:
                return True
            if (_moves(node) or node.kind == "concat") and self._served(node.outputs[0]):
                return True
        return False


def _moves(node: Node) -> bool:
    return node.kind in _MOVES or (node.kind == "pool" and node.attrs["function"] == "max")


def _joins(node: Node) -> bool:
    if node.kind == "binary":
        return node.attrs.get("function") == "add"
    return node.kind in ("concat", "pool") or (node.kind == "reduce" and node.attrs.get("function") == "mean")


def _rectifies(node: Node) -> bool:
    """Whether a node is a ReLU, or one that is also clipped above."""
    if node.kind != "pointwise" or node.evaluate is None:
        return False
    probe = np.linspace(-9, 9, 37, dtype=np.float32)
    try:
        shown = np.asarray(node.evaluate(probe))
    except (TypeError, ValueError, RuntimeError):
        return False
    return bool(shown.max() > 0 and np.array_equal(shown, np.clip(probe, 0, shown.max())))


def _fixed(graph: Graph) -> frozenset[Tensor]:
    """Return the tensors that follow from parameters and constants alone."""
    found = {each for node in graph.nodes for each in node.inputs if each is not None and each.role in ("parameter", "constant")}
    for node in graph.nodes:
        given = [each for each in node.inputs if each is not None]
        if given and all(each in found for each in given):
            found.update(node.outputs)
    return frozenset(found)


def _exits(graph: Graph, readers: dict[Tensor, list[Node]]) -> dict[Tensor, str]:
    """Return the innermost layer whose one result a tensor is; a layer that gives several, or runs twice, has none."""
    leaving: dict[str, set[Tensor]] = {}
    for node in graph.nodes:
        for layer in _around(node.layer):
            for tensor in node.outputs:
                outside = (reader.layer != layer and not reader.layer.startswith(f"{layer}.") for reader in readers.get(tensor, ()))
                if tensor in graph.outputs or any(outside):
                    leaving.setdefault(layer, set()).add(tensor)
    one = {layer: next(iter(tensors)) for layer, tensors in leaving.items() if len(tensors) == 1}
    return {tensor: layer for layer, tensor in sorted(one.items(), key=lambda item: item[0].count("."))}


def _around(layer: str) -> Iterator[str]:
    """Yield a layer's path and those of the layers around it."""
    while layer:
        yield layer
        layer = layer.rpartition(".")[0]
