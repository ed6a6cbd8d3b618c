"""Writes Q and DQ nodes into a graph, in the form that ONNX Runtime turns into integer kernels.

activations   x -> Q -> DQ, uint8, one Q for each tensor and grid
weights       int8 numbers -> DQ, for each output channel, no Q
biases        int32 numbers -> DQ, in steps of the input's scale times the weight's
ReLU          goes, where the grid behind it begins at zero, and ends at 6 for a ReLU6: the Q then cuts off what is beyond
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

import numpy as np
from onnx import NodeProto

from nnc.graph.ir import Array
from nnc_onnx.draft import Draft
from nnc_onnx.flow import Flow, top_of
from nnc_onnx.levels import Bytes, Weight, bias_levels
from nnc_onnx.protos import attributes


def write(draft: Draft, flow: Flow, weights: Mapping[int, Weight]) -> dict[int, str]:
    """Quantise the nodes of `weights` (by id) and what is between them; return the name of each one's int8 weight."""
    stored: dict[int, str] = {}
    for node in list(draft.nodes):
        if id(node) in weights and flow.integer(node):
            stored[id(node)] = _weighted(draft, flow, node, weights[id(node)])
    _drop_relus(draft, flow)
    _float_relus(draft, flow, [node for node in draft.nodes if id(node) in stored])
    shown = {tensor: _pair(draft, tensor, grid) for tensor, grid in flow.tensors.items()}
    _quantised_reads(draft, flow, shown)
    return stored


def _pair(draft: Draft, tensor: str, grid: Bytes) -> str:
    """Put Q and DQ behind a tensor for all who read it, and return what they read."""
    if tensor in draft.outputs:
        inner = draft.new_tensor(f"{tensor}/float")
        maker = draft.maker[tensor]
        for place, name in enumerate(maker.output):
            if name == tensor:
                maker.output[place] = inner
        draft.maker[inner] = maker
        draft.read_instead(tensor, inner)
        result = _q_dq(draft, inner, grid, tensor)
        _read_pair(draft, inner, result)
        return result
    result = _q_dq(draft, tensor, grid, draft.new_tensor(f"{tensor}/dequantised"))
    _read_pair(draft, tensor, result)
    return result


def _read_pair(draft: Draft, tensor: str, shown: str) -> None:
    own = [node for node in draft.nodes if node.op_type == "QuantizeLinear" and node.input[0] == tensor]
    draft.read_instead(tensor, shown, keep=own)


def _q_dq(draft: Draft, tensor: str, grid: Bytes, result: str) -> str:
    """Quantise a tensor to its grid; one of few levels is then handed on in finer steps."""
    if grid.times > 1:
        tensor = _q_dq(draft, tensor, replace(grid, times=1), draft.new_tensor(f"{result}/coarse"))
    grid = grid.fine
    scale = draft.new_constant(f"{result}/scale", np.float32(grid.scale))
    zero = draft.new_constant(f"{result}/zero", np.uint8(grid.zero))
    quantised = draft.new_tensor(f"{result}/levels")
    draft.add("QuantizeLinear", [tensor, scale, zero], quantised)
    if grid.clips:
        low, high = (
            draft.new_constant(f"{result}/{name}", np.uint8(end)) for name, end in (("low", grid.low), ("high", min(grid.high, 255)))
        )
        clipped = draft.new_tensor(f"{result}/clipped")
        draft.add("Clip", [quantised, low, high], clipped)
        quantised = clipped
    draft.add("DequantizeLinear", [quantised, scale, zero], result)
    return result


def _quantised_reads(draft: Draft, flow: Flow, shown: Mapping[str, str]) -> None:
    """Put Q and DQ in front of the nodes that read, in integers or rounded, what is not on their grid yet."""
    back = {result: tensor for tensor, result in shown.items()}
    pairs: dict[tuple[str, Bytes], str] = {}
    nodes = {id(node): node for node in draft.nodes}
    for (number, place), grid in (flow.shown | flow.reads).items():
        if number not in nodes:
            continue  # a ReLU that went into the grid behind it
        node = nodes[number]
        tensor = node.input[place]
        if _within(flow.tensors.get(back.get(tensor, "")), grid):
            continue
        if (tensor, grid) not in pairs:
            pairs[tensor, grid] = _q_dq(draft, tensor, grid, draft.new_tensor(f"{tensor}/quantised"))
        node.input[place] = pairs[tensor, grid]


def _within(made: Bytes | None, wanted: Bytes) -> bool:
    """Whether every level of one grid is one of the other: a ReLU's half of a signed grid is."""
    if made is None or made.fine.scale != wanted.fine.scale:
        return False
    made, wanted = made.fine, wanted.fine
    return made.low - made.zero >= wanted.low - wanted.zero and min(made.high, 255) - made.zero <= wanted.high - wanted.zero


def _drop_relus(draft: Draft, flow: Flow) -> None:
    for tensor, grid in flow.tensors.items():
        node = draft.maker.get(tensor)
        top = top_of(draft, node) if node is not None else None
        if node is None or top is None or grid.zero != 0 or min(grid.high, 255) * grid.scale > top + grid.scale / 2:
            continue
        maker = draft.maker[node.input[0]]
        for place, name in enumerate(maker.output):
            if name == node.input[0]:
                maker.output[place] = tensor
        draft.maker[tensor] = maker
        draft.remove(node)


def _float_relus(draft: Draft, flow: Flow, nodes: Sequence[NodeProto]) -> None:
    """Write the ReLU between an integer product and a float reader as Max and Min.

    ONNX Runtime looks for a Q behind Relu and Clip, and multiplies in float where it finds none.
    """
    for node in nodes:
        relu = draft.only_reader(flow.own(node), draft.readers()) if node.op_type != "Conv" else None
        top = top_of(draft, relu) if relu is not None else None
        if relu is None or top is None or relu.output[0] in flow.tensors:
            continue
        result, kind = relu.output[0], np.dtype(np.float32)
        cut = result if top == inf else draft.new_tensor(f"{result}/positive")
        draft.remove(relu)
        draft.add("Max", [relu.input[0], draft.new_constant(f"{result}/zero", np.zeros((), kind))], cut, relu)
        if top < inf:
            draft.add("Min", [cut, draft.new_constant(f"{result}/top", np.full((), top, kind))], result, relu)


def _weighted(draft: Draft, flow: Flow, node: NodeProto, weight: Weight) -> str:
    """Give a node its int8 weight and int32 bias, and return the weight's name."""
    step = flow.reads[id(node), 0].fine.scale
    adding, place = _adding(draft, node)
    bias = draft.constant(adding.input[place]) if adding is not None else None
    if bias is not None:
        weight = weight.beside(bias.reshape(-1), step)
    turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attributes(node).get("transB", 0))
    levels = np.ascontiguousarray(weight.levels.T) if turned else weight.levels
    axis = 1 if turned else 0
    name = draft.new_constant(f"{node.input[1]}.int8", levels.reshape(_shape(draft, node.input[1])))
    node.input[1] = _dequantised(draft, name, weight.scale, weight.zero, axis, node)
    if adding is not None and bias is not None:
        _bias(draft, adding, place, bias.reshape(-1), step * weight.scale)
    return name


def _adding(draft: Draft, node: NodeProto) -> tuple[NodeProto | None, int]:
    """Return the node that reads the bias of a product, and as which input.

    A float bias behind a MatMul makes ONNX Runtime multiply in float; as int32 it goes into the integer kernel.
    """
    if node.op_type != "MatMul":
        return (node, 2) if len(node.input) > 2 else (None, 0)
    add = draft.only_reader(node.output[0], draft.readers())
    if add is None or add.op_type != "Add":
        return None, 0
    place = 1 if add.input[0] == node.output[0] else 0
    bias = draft.constant(add.input[place])
    return (add, place) if bias is not None and bias.ndim == 1 else (None, 0)


def _shape(draft: Draft, name: str) -> tuple[int, ...]:
    array = draft.constant(name)
    assert array is not None
    return tuple(array.shape)


def _dequantised(draft: Draft, name: str, scale: Array, zero: Array, axis: int, like: NodeProto) -> str:
    scales, zeros = draft.new_constant(f"{name}/scale", scale), draft.new_constant(f"{name}/zero", zero)
    result = draft.new_tensor(f"{name}/dequantised")
    draft.add("DequantizeLinear", [name, scales, zeros], result, like, **({"axis": axis} if scale.ndim else {}))
    return result


def _bias(draft: Draft, node: NodeProto, place: int, bias: Array, step: Array) -> None:
    """Let a node read its bias as int32."""
    step = np.asarray(step, np.float32)
    name = draft.new_constant(f"{node.input[place]}.int32", bias_levels(bias, step))
    node.input[place] = _dequantised(draft, name, step, np.zeros(step.shape, np.int32), 0, node)
