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
        # The output of a layer around this one, such as a block with a scale of its own, is that of its last operation.
        inside = layer.startswith(f"{follower.layer}.".lstrip("."))
        if follower.layer in layers and not functions and (not inside or follower.layer == layer):
            last = follower.layer
        elif follower.evaluate is not None and follower.kind == "pointwise":
            functions.append(follower.evaluate)
        if follower.kind == "pointwise":
            break
    return Activation(last, tuple(functions), node.attrs.get("channel_axis", len(node.outputs[0].shape) - 1))


def norm_of(graph: Graph, layer: str) -> str | None:
    """Return the path of the BatchNorm layer that reads a layer's output, or None."""
    node = _node_of(graph, layer)
    norms = _norms(graph)
    return next((norms[follower] for follower in (_followers(graph, node.outputs[0]) if node else ()) if follower in norms), None)


def _node_of(graph: Graph, layer: str) -> Node | None:
    """Return the operation that a layer's weight enters: by the weight's path or, of a tied one, which has another's, by the layer's."""
    path = f"{layer}.weight".lstrip(".")
    reads = [node for node in graph.nodes if node.kind in ("linear", "conv", "embedding") and len(node.inputs) > 1]
    named = [node for node in reads if node.inputs[1] is not None and node.inputs[1].name == path]
    own = [node for node in reads if node.layer == layer]
    return next(iter([node for node in named if node in own] or named or own), None)


def _norms(graph: Graph) -> dict[Node, str]:
    """Return the operations that apply a BatchNorm to values, with its layer's path.

    That is one operation or, where the framework writes the norm out as a product and a sum, both: their other operand is computed from
    the layer's parameters alone, its running variance among them.
    """
    found: dict[Node, str] = {}
    origins: dict[Tensor, frozenset[str]] = {}  # of what is computed from parameters and constants alone: which parameters
    for node in graph.nodes:
        given = [tensor for tensor in node.inputs if tensor is not None]
        fixed = {t: frozenset({t.name} - {""}) if t.role in ("parameter", "constant") else origins.get(t) for t in given}
        known = [names for names in fixed.values() if names is not None]
        if given and len(known) == len(fixed):
            origins.update(dict.fromkeys(node.outputs, frozenset().union(*known)))
        elif node.kind in ("batch_norm", "binary"):
            read = sorted(name for names in known for name in names)
            one = next((name for name in read if node.kind == "batch_norm" or name.endswith("running_var")), None)
            if one is not None and node.outputs[0].shape in {t.shape for t, names in fixed.items() if names is None}:
                found[node] = one.rpartition(".")[0]
    return found


def _followers(graph: Graph, tensor: Tensor) -> list[Node]:
    """Return the chain of operations on a tensor that keep its channels, up to the first branch."""
    norms = _norms(graph)
    readers: dict[Tensor, list[Node]] = {}
    for node in graph.nodes:
        for given in {*node.inputs}:
            if given is not None:
                readers.setdefault(given, []).append(node)
    chain: list[Node] = []
    while len(next_ones := readers.get(tensor, [])) == 1 and (next_ones[0].kind in ("pointwise", "identity") or next_ones[0] in norms):
        chain.append(next_ones[0])
        tensor = next_ones[0].outputs[0]
    return chain
