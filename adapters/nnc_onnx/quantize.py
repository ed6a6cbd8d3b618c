"""Quantise a float ONNX model as grids say: which layer goes which way, and what is said about those that stay float.

weight and input (and, for a convolution, output)   integer kernel          qdq.py
an embedding's weight                               int8 table              embeddings.py
a linear layer's weight alone                       4 bits, or dynamic      weight_only.py
all else                                            float, with the reason; weights and inputs are still rounded to their grids
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from nnc.errors import ExportError
from nnc.graph.ir import Array
from nnc.grid import Grid, Grids
from nnc.views import Site
from nnc_onnx import qdq
from nnc_onnx.draft import Draft
from nnc_onnx.embeddings import embed
from nnc_onnx.flow import Flow
from nnc_onnx.levels import Weight, weight_levels
from nnc_onnx.protos import attributes
from nnc_onnx.sites import holders, made_by_layers, read_by_layers
from nnc_onnx.tidy import fold, needs_contrib, tidy
from nnc_onnx.weight_only import matmul_dynamic, matmul_few_bits

_NOWHERE = "no product and no lookup of the exported graph reads its weight; it may have become part of a constant"


@dataclass(frozen=True)
class Quantised:
    """A quantised model; `weights` are the names of the int8 weights by layer, `reasons` why layers are float."""

    model: ModelProto
    weights: Mapping[str, str]
    reasons: Mapping[str, str]


def quantise(model: ModelProto, grids: Grids, weights: Mapping[str, Array], dynamic: bool = False) -> Quantised:
    """Return the model with its layers on `grids`; `weights` are the layers' weights, canonical. `model` itself is changed.

    Raises `ConfigError` for a site that the graph does not show, `ExportError` where no layer at all can be quantised.
    """
    draft = Draft(model)
    made, read = made_by_layers(draft, grids), read_by_layers(draft, grids)
    tidy(draft)
    fold(draft)
    made = {draft.current(tensor): grid for tensor, grid in made.items()}
    read = {(layer, draft.current(tensor)): grid for (layer, tensor), grid in read.items()}
    owners = holders(draft, weights)
    if dynamic:
        grids = dict(_by_channel(draft, owners, weights)) | dict(grids)
    done = _layers(draft, Flow(draft, made, read), owners, grids, weights, dynamic)
    needs_contrib(draft.finish())
    if not done.weights:
        reasons = "; ".join(f"{layer}: {reason}" for layer, reason in list(done.reasons.items())[:5])
        raise ExportError(f"no layer can be quantised: {reasons or 'the grids name no weight of a layer that has integer kernels'}.")
    return done


def _by_channel(draft: Draft, owners: Mapping[int, str], weights: Mapping[str, Array]) -> dict[Site, Grid]:
    """Return int8 grids for the weights of linear layers and embeddings: all that the dynamic form needs to know before it runs."""
    kinds = {owners[id(node)]: node.op_type for node in draft.nodes if id(node) in owners}
    linear = {layer for layer, kind in kinds.items() if kind in ("MatMul", "Gemm")}
    found = {Site(layer, "weight"): Grid.around_zero(weights[layer], axis=0) for layer in linear}
    return found | {Site(layer, "weight"): Grid.around_zero(weights[layer], axis=0) for layer, kind in kinds.items() if kind == "Gather"}


def _layers(draft: Draft, flow: Flow, owners: Mapping[int, str], grids: Grids, weights: Mapping[str, Array], dynamic: bool) -> Quantised:
    nodes = [node for node in draft.nodes if id(node) in owners]
    chosen = {site.layer: grid for site, grid in grids.items() if site.tensor == "weight"}
    inputs = {site.layer: grid for site, grid in grids.items() if site.tensor == "input"}
    levels: dict[int, Weight] = {}
    reasons = {
        layer: "the exported graph reads its weight in no product and no lookup, or only once and for all"
        for layer in chosen
        if layer not in owners.values()
    }
    for node in nodes:
        layer = owners[id(node)]
        if layer in chosen and node.op_type in ("Conv", "MatMul", "Gemm") and not chosen[layer].block:
            found = weight_levels(chosen[layer], weights[layer], _canonical(draft, node))
            if isinstance(found, Weight):
                levels[id(node)] = found
            else:
                reasons[layer] = found
    flow.plan({number: owners[number] for number in levels}, inputs)
    stored = {owners[number]: name for number, name in qdq.write(draft, flow, levels).items()}
    left = [node for node in nodes if owners[id(node)] in chosen and owners[id(node)] not in stored]
    for node in left:
        layer = owners[id(node)]
        name, reason = _alone(draft, node, chosen[layer], weights[layer], levels.get(id(node)), dynamic and layer not in inputs)
        if reason:
            missing = flow.reasons.get(layer) if layer in inputs else None
            reasons[layer] = reasons.get(layer) or missing or reason
            _round(draft, node, levels.get(id(node)))
        else:
            stored[layer] = name
            reasons.pop(layer, None)
    return Quantised(draft.model, stored, reasons)


def _alone(draft: Draft, node: NodeProto, grid: Grid, source: Array, levels: Weight | None, dynamic: bool) -> tuple[str, str]:
    """Quantise a layer whose input has no grid, and return its weight's new name; or why that cannot be."""
    if node.op_type == "Gather":
        return embed(draft, node, grid)
    if dynamic and levels is not None:
        return matmul_dynamic(draft, node, levels)
    return matmul_few_bits(draft, node, source, grid)


def _round(draft: Draft, node: NodeProto, levels: Weight | None) -> None:
    """Give a layer that stays float the numbers of its grid, so that the file computes what was simulated."""
    if levels is not None:
        array = levels.numbers if not _turned(node) else levels.numbers.T
        node.input[1] = draft.new_constant(f"{node.input[1]}.rounded", np.ascontiguousarray(array))


def _canonical(draft: Draft, node: NodeProto) -> Array:
    """Return the weight that a node holds as `(out, in, *kernel)`."""
    array = draft.constant(node.input[1])
    assert array is not None
    return array.T if _turned(node) else array


def _turned(node: NodeProto) -> bool:
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not attributes(node).get("transB", 0))
