"""Sites that see one tensor share its grid: query, key and value are given the same numbers, and a file holds them once."""

from __future__ import annotations

from collections.abc import Collection

from nnc.graph.ir import Graph, Tensor
from nnc.views import Site


def shared_inputs(graph: Graph, sites: Collection[Site]) -> dict[Site, str]:
    """Return a name for each tensor that several of the sites are given."""
    readers: dict[Tensor, list[Site]] = {}
    for site in sites:
        tensor = _input_of(graph, site.layer) if site.tensor == "input" else None
        if tensor is not None:
            readers.setdefault(tensor, []).append(site)
    return {site: f"input of {together[0].layer}" for together in readers.values() if len(together) > 1 for site in together}


def _input_of(graph: Graph, layer: str) -> Tensor | None:
    """Return what the first operation of a layer reads with its weight."""
    path = f"{layer}.weight".lstrip(".")
    for node in graph.nodes:
        if len(node.inputs) > 1 and node.inputs[1] is not None and node.inputs[1].name == path:
            return node.inputs[0]
    return None
