"""What follows a layer: its BatchNorm, its activation.

conv -> batch_norm -> relu        the tensor after relu, which no layer's output may be: relu may be a function in the user's code
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from nnc.graph.ir import Array, Graph, Node, Tensor


@dataclass(frozen=True)
class Activation:
    """A layer's activation: `functions`, in their order, of the output of `layer`; channels lie on `channel_axis`."""

    layer: str
    functions: tuple[Callable[..., Array], ...]
    channel_axis: int


def activation_of(graph: Graph, layer: str, layers: Collection[str]) -> Activation | None:
    """Return what a layer's output becomes up to its nonlinearity; `layers` are those whose output can be tapped.

    None where the pass did not run the layer.
    """
    node = _node_of(graph, layer)
    if node is None:
        return None
    last = layer
    functions: list[Callable[..., Array]] = []
    for follower in _followers(graph, node.outputs[0]):
        if follower.layer in layers and not functions:
            last = follower.layer
        elif follower.evaluate is not None and follower.kind == "pointwise":
            functions.append(follower.evaluate)
        if follower.kind == "pointwise":
            break
    return Activation(last, tuple(functions), node.attrs.get("channel_axis", len(node.outputs[0].shape) - 1))


def norm_of(graph: Graph, layer: str) -> str | None:
    """Return the path of the BatchNorm layer that reads a layer's output, or None."""
    node = _node_of(graph, layer)
    for follower in _followers(graph, node.outputs[0]) if node else ():
        weight = follower.inputs[1] if follower.kind == "batch_norm" else None
        if weight is not None:
            return weight.name.rpartition(".")[0]
    return None


def _node_of(graph: Graph, layer: str) -> Node | None:
    path = f"{layer}.weight".lstrip(".")
    reads = (node for node in graph.nodes if node.kind in ("linear", "conv") and len(node.inputs) > 1)
    return next((node for node in reads if node.inputs[1] is not None and node.inputs[1].name == path), None)


def _followers(graph: Graph, tensor: Tensor) -> list[Node]:
    """Return the chain of operations on a tensor that keep its channels, up to the first branch."""
    readers: dict[Tensor, list[Node]] = {}
    for node in graph.nodes:
        for given in {*node.inputs}:
            if given is not None:
                readers.setdefault(given, []).append(node)
    chain: list[Node] = []
    while len(next_ones := readers.get(tensor, [])) == 1 and next_ones[0].kind in ("batch_norm", "pointwise", "identity"):
        chain.append(next_ones[0])
        tensor = next_ones[0].outputs[0]
    return chain
