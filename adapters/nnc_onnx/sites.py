"""Where the sites of a model lie in its graph: which tensors a layer reads and makes, and which node holds its weight.

A layer owns the nodes that bear its label, and those of the layers inside it. What they read from elsewhere are its inputs, what is
read elsewhere its outputs, both counted in the order of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto

from nnc.errors import ConfigError
from nnc.grid import Grid, Grids
from nnc_onnx.draft import Draft, label

#: The operations that hold a layer's weight, and as which input.
WEIGHTS = {"Conv": 1, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1, "Gather": 0}


def made_by_layers(draft: Draft, grids: Grids) -> dict[str, Grid]:
    """Return the grids of layers' outputs by tensor. A layer that the exporter merged into another one has none.

    Raises `ConfigError` for an output that a layer does not have.
    """
    found: dict[str, Grid] = {}
    for site, grid in grids.items():
        kind, _, number = site.tensor.partition(":")
        if kind == "output":
            tensors = _outputs(draft, site.layer)
            if tensors and int(number or 0) >= len(tensors):
                raise ConfigError(f"grids: {site} does not exist; in the exported graph {site.layer} makes {len(tensors)} tensors.")
            if tensors:
                found[tensors[int(number or 0)]] = grid
    return found


def read_by_layers(draft: Draft, grids: Grids) -> dict[tuple[str, str], Grid]:
    """Return the grids of layers' inputs by layer and tensor."""
    found: dict[tuple[str, str], Grid] = {}
    for site, grid in grids.items():
        kind, _, number = site.tensor.partition(":")
        if kind == "input":
            tensors = _inputs(draft, site.layer)
            if int(number or 0) < len(tensors):
                found[site.layer, tensors[int(number or 0)]] = grid
    return found


def holders(draft: Draft, layers: Iterable[str]) -> dict[int, str]:
    """Return the layer whose weight a node holds, by the node's id."""
    known = set(layers)
    stored = {id(node): name for node in draft.nodes if (name := stored_weight(draft, node))}
    named = {name.removesuffix(".weight") for name in stored.values() if name.endswith(".weight")} & known
    found: dict[int, str] = {}
    for node in draft.nodes:
        name = stored.get(id(node), "").removesuffix(".weight")
        if name in named:
            found[id(node)] = name
        elif name and label(node) in known - named:
            found[id(node)] = label(node)
    return found


def stored_weight(draft: Draft, node: NodeProto) -> str:
    """Return the name under which the exporter stored the weight that a node holds, "" for a node without one."""
    place = WEIGHTS.get(node.op_type)
    if place is None or place >= len(node.input) or draft.constant(node.input[place]) is None:
        return ""
    return draft.origins.get(node.input[place], node.input[place])


def behind_another_weight(draft: Draft, node: NodeProto, layer: str) -> bool:
    """Whether a node reads what another weight of its own layer made, as the second product of a separable convolution does.

    The grid of the layer's input is not that of what such a node reads.
    """
    own, waiting, seen = stored_weight(draft, node), [node.input[0]], set[str]()
    while waiting:
        name = waiting.pop()
        maker = draft.maker.get(name)
        if maker is None or name in seen or label(maker) != layer:
            continue
        if stored_weight(draft, maker) not in ("", own):
            return True
        seen.add(name)
        waiting += maker.input
    return False


def _own(draft: Draft, layer: str) -> list[NodeProto]:
    return [node for node in draft.nodes if not layer or label(node) == layer or label(node).startswith(f"{layer}.")]


def _inputs(draft: Draft, layer: str) -> list[str]:
    own = _own(draft, layer)
    made = {name for node in own for name in node.output}
    read = (name for node in own for name in node.input if name and name not in made and draft.constant(name) is None)
    return list(dict.fromkeys(read))


def _outputs(draft: Draft, layer: str) -> list[str]:
    if not layer:
        return list(draft.outputs)
    own = _own(draft, layer)
    ids = {id(node) for node in own}
    outside = {name for node in draft.nodes if id(node) not in ids for name in node.input} | set(draft.outputs)
    return [name for node in own for name in node.output if name in outside]
