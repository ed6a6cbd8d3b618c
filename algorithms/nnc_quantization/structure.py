"""What a model's graph says about where grids stand: which sites see one tensor, and which outputs need a grid of their own."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from nnc.adapter import Layer
from nnc.errors import ConfigError, LeftAlone
from nnc.graph.ir import Graph
from nnc.views import Site
from nnc_quantization.balance import products
from nnc_quantization.joints import joints
from nnc_quantization.sharing import shared_inputs

#: The inputs of an attention that its one weight is for: query, key and value.
_ATTENDED = ("input", "input:1", "input:2")


@dataclass(frozen=True)
class Structure:
    """`shared` names the tensors that several sites see, `joints` are outputs that need a grid with the layers whose entries say which,

    `packed` the attentions that multiply one tensor by one weight for query, key and value. A model without example inputs has none.
    """

    shared: Mapping[Site, str] = field(default_factory=dict)
    joints: Mapping[Site, str] = field(default_factory=dict)
    packed: Collection[str] = ()

    def inputs(self, name: str, layer: Layer) -> tuple[str, ...]:
        """Return which of a layer's inputs its weight is multiplied by.

        An embedding is given indices, which stay. An attention with one weight for three different inputs reads that in parts, which
        have no integer kernel.
        """
        if "MultiHeadAttention" in layer.op_types:
            return _ATTENDED if name in self.packed else ()
        return () if {"Embedding", "EmbeddingBag"} & set(layer.op_types) else ("input",)


def running(graph: Graph, layers: Mapping[str, Layer], algorithm: str) -> list[str]:
    """Return which of the layers run, and warn of the others, as heads for training only. Raises `ConfigError` where that leaves none."""
    ran = {node.layer for node in graph.nodes}
    ran |= {tensor.name.rpartition(".")[0] for node in graph.nodes for tensor in node.inputs if tensor is not None and tensor.name}
    left = [name for name in layers if not name or any(each == name or each.startswith((f"{name}.", f"{name}/")) for each in ran)]
    idle = [name for name in layers if name not in left]
    if not idle:
        return left
    listed = ", ".join(idle[:3]) + (f" and {len(idle) - 3} more" if len(idle) > 3 else "")
    if not left:
        raise ConfigError(f"{algorithm}: {listed} did not run on the example inputs, and nothing else is selected.")
    warnings.warn(f"{algorithm}: {listed} did not run on the example inputs, and stays in float.", LeftAlone, stacklevel=5)
    return left


def structure_of(graph: Graph, layers: Mapping[str, Layer], quantised: Collection[str]) -> Structure:
    """Return the structure for `layers`, of which those `quantised` have grids for their weight and their input."""
    attentions = {name for name, layer in layers.items() if "MultiHeadAttention" in layer.op_types}
    packed = attentions & products(graph, attentions).keys()
    shared = shared_inputs(graph, [Site(name, "input") for name in layers])
    for name in packed:
        own = shared.get(Site(name, "input"), f"input of {name}")
        shared |= {Site(name, tensor): own for tensor in _ATTENDED}
    return Structure(shared, joints(graph, quantised), packed)
