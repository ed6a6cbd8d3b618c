"""Move range between two layers that a per-channel factor can pass: the float model computes the same, and its grids fit better.

equalise    A -> ReLU -> B      A's row i / s_i, B's column i * s_i, so that both have one range     Nagel et al. 2019, arXiv:1906.04721
smooth      LayerNorm -> B...   the same with s from inputs and weights: outliers move to weights   Xiao et al. 2023, arXiv:2211.10438
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nnc.graph.ir import Array, Graph, Node, Tensor

#: A channel that is silent, or a weight that is zero, does not decide a factor.
_LEAST = 1e-5
#: Numbers of all sizes, each less than 4 times the one before: a function that is clipped somewhere is found out.
_PROBE = np.geomspace(1e-6, 1e6, 25, dtype=np.float32) * np.array([[-1], [1]], np.float32)


@dataclass(frozen=True)
class Pair:
    """A layer whose output channels can be divided by factors that the `readers`' input channels are multiplied by."""

    source: str
    readers: tuple[str, ...]


def equalisable(graph: Graph, layers: Collection[str]) -> list[Pair]:
    """Return the pairs of layers with nothing but ReLUs and the like between them."""
    return [Pair(name, (reader,)) for name, node in _products(graph, layers).items() for reader in _behind(graph, node, layers)]


def smoothable(graph: Graph, layers: Collection[str], norms: Collection[str]) -> list[Pair]:
    """Return the LayerNorms, of those named, whose output only linear layers read. One may be recorded as many operations."""
    linear = {id(node): name for name, node in _products(graph, layers).items() if node.kind == "linear"}
    last = {node.layer: node.outputs[0] for node in graph.nodes if node.layer in norms}
    found = []
    for norm, tensor in last.items():
        if _runs(graph, norm) != 1 or any(tensor is output for output in graph.outputs):
            continue
        readers = [id(node) for node in _readers(graph, tensor)]
        first = all(linear.get(id(node)) is None or node.inputs[0] is tensor for node in _readers(graph, tensor))
        if readers and first and all(reader in linear for reader in readers):
            found.append(Pair(norm, tuple(linear[reader] for reader in readers)))
    return found


def equal_factors(source: Array, reader: Array) -> Array:
    """Return sqrt(r1 r2) / r2 for each channel, r the largest |w| on either side."""
    first = np.abs(source).reshape(len(source), -1).max(axis=1)
    second = _columns(reader)
    usable = (first > _LEAST) & (second > _LEAST)
    return np.where(usable, np.sqrt(first * second) / np.maximum(second, _LEAST), 1.0)


def smooth_factors(inputs: Array, readers: Mapping[str, Array], alpha: float) -> Array:
    """Return max|x|^alpha / max|w|^(1 - alpha) for each input channel; `inputs` are the largest |x|."""
    weights = np.maximum(np.max([_columns(weight) for weight in readers.values()], axis=0), _LEAST)
    return np.where(inputs > _LEAST, np.maximum(inputs**alpha / weights ** (1 - alpha), _LEAST), 1.0)


def scaled_columns(weight: Array, factors: Array) -> Array:
    return weight * factors.reshape(1, -1, *(1,) * (weight.ndim - 2))


def scaled_rows(array: Array, factors: Array) -> Array:
    return array / factors.reshape(-1, *(1,) * (array.ndim - 1))


def _columns(weight: Array) -> Array:
    return np.asarray(np.abs(np.moveaxis(weight, 1, 0)).reshape(weight.shape[1], -1).max(axis=1))


def products(graph: Graph, layers: Collection[str]) -> dict[str, Node]:
    """Return the product that each layer computes with its weight, by layer; a layer that runs twice has none."""
    found: dict[str, list[Node]] = {}
    for node in graph.nodes:
        weight = node.inputs[1] if node.kind in ("linear", "conv") else None
        layer = weight.name.rpartition(".")[0] if weight is not None else ""
        if layer in layers:
            found.setdefault(layer, []).append(node)
    return {layer: nodes[0] for layer, nodes in found.items() if len(nodes) == 1}


def _products(graph: Graph, layers: Collection[str]) -> dict[str, Node]:
    plain = products(graph, layers).items()
    return {name: node for name, node in plain if node.attrs.get("groups", 1) == 1 and not node.attrs.get("transposed")}


def _behind(graph: Graph, node: Node, layers: Collection[str]) -> Iterator[str]:
    """Yield the layer that alone reads a product through functions with f(s x) = s f(x)."""
    own = {id(each): name for name, each in _products(graph, layers).items()}
    tensor, kind = node.outputs[0], node.kind
    while True:
        readers = list(_readers(graph, tensor))
        if len(readers) != 1 or any(tensor is output for output in graph.outputs):
            return
        reader = readers[0]
        if id(reader) in own and reader.kind == kind and reader.inputs[0] is tensor:
            yield own[id(reader)]
            return
        if not _passes(reader):
            return
        tensor = reader.outputs[0]


def _runs(graph: Graph, layer: str) -> int:
    """Return how often a layer's weight is read."""
    return sum(tensor is not None and tensor.name == f"{layer}.weight" for node in graph.nodes for tensor in node.inputs)


def _readers(graph: Graph, tensor: Tensor) -> Iterator[Node]:
    return (node for node in graph.nodes if any(each is tensor for each in node.inputs))


def _passes(node: Node) -> bool:
    if node.kind in ("identity", "pool"):
        return True
    if node.kind != "pointwise" or node.evaluate is None:
        return False
    try:
        with np.errstate(all="ignore"):
            return bool(np.allclose(node.evaluate(4 * _PROBE), 4 * np.asarray(node.evaluate(_PROBE)), rtol=1e-5, atol=0))
    except (TypeError, ValueError):
        return False
