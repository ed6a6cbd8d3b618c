"""What an exporter leaves to be computed from constants is computed once: a bias of zeros, written as Shape, Expand and Cast."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from nnc_onnx.draft import Draft
from nnc_onnx.protos import captured
from nnc_onnx.running import outputs, session

#: What stays as it is: weights, laid out otherwise or in bytes, random numbers, and what a graph of its own computes.
_STAYS = ("Transpose", "DequantizeLinear", "QuantizeLinear", "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike")


def fold_constants(draft: Draft) -> None:
    """Replace every node that reads constants alone by what it gives."""
    _plain_casts(draft)
    known: set[str] = set()
    folded: list[NodeProto] = []
    for node in draft.nodes:
        constant = all(not name or name in known or draft.constant(name) is not None for name in node.input)
        if constant and node.op_type not in _STAYS and not captured(node) and not node.domain and not set(node.output) & set(draft.outputs):
            folded.append(node)
            known.update(node.output)
    if not folded:
        return
    ids = {id(node) for node in folded}
    read = {name for node in draft.nodes if id(node) not in ids for name in (*node.input, *captured(node))}
    for name, array in _computed(draft, folded, sorted(known & read)).items():
        draft.constants[name] = array
    draft.remove(*folded)
    for name in known:
        draft.maker.pop(name, None)


def _plain_casts(draft: Draft) -> None:
    """CastLike reads a tensor for its type alone."""
    for node in draft.each("CastLike"):
        kind = draft.types.get(node.input[1])
        if kind:
            node.op_type = "Cast"
            del node.input[1:]
            node.attribute.append(helper.make_attribute("to", kind))


def _computed(draft: Draft, nodes: list[NodeProto], wanted: list[str]) -> dict[str, np.ndarray]:
    if not wanted:
        return {}
    made = {name for node in nodes for name in node.output}
    given = {name: draft.constant(name) for node in nodes for name in node.input if name and name not in made}
    stored = [numpy_helper.from_array(array, name) for name, array in given.items() if array is not None]
    graph = helper.make_graph(nodes, "constants", [], [helper.make_empty_tensor_value_info(name) for name in wanted], stored)
    model = helper.make_model(graph, opset_imports=draft.model.opset_import, ir_version=draft.model.ir_version)
    return dict(zip(wanted, outputs(session(model, optimised=False), {}), strict=True))
