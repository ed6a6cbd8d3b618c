"""What an ONNX model is made of: reading it from disk, its attributes, and the numbers that it stores.

A number is stored as an initializer or as a Constant node; both hold a `TensorProto`, and nnc treats them alike. Masks and zeros that
nnc put into the graph (see masks.py) have names that begin with "nnc.".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nnc.errors import ModelError
from nnc.graph.ir import Array

#: From here on axes are inputs of Squeeze, Split and ReduceSum, as the readers expect them.
OPSET = 13
OURS = "nnc."
_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}


def read(path: str | Path) -> ModelProto:
    """Return the model in a file, local functions inlined. Raises `ModelError` for what is missing, truncated or no ONNX model."""
    if not Path(path).is_file():
        raise ModelError(f"model: {str(path)!r} is no file.")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(str(path))
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"model: {str(path)!r} is truncated, or no ONNX model: {reason}") from error
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def check(model: Any) -> None:
    """Raise `ModelError`, with what to do, for a model that the adapter cannot work on."""
    if not isinstance(model, ModelProto):
        raise ModelError(f"model: a {type(model).__name__} is neither the path of an .onnx file nor an onnx.ModelProto.")
    if not model.graph.node:
        raise ModelError("model: the ModelProto has no nodes.")
    if model.functions:
        raise ModelError("model: it has local functions, whose weights nnc does not see; call onnx.inliner.inline_local_functions(model).")
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), OPSET)
    if version < OPSET:
        remedy = f"onnx.version_converter.convert_version(model, {OPSET})"
        raise ModelError(f"model: it has opset {version}; nnc reads {OPSET} and newer. Call {remedy}.")


def captured(node: NodeProto) -> list[str]:
    """Return every name that is read inside a node's subgraphs: those from outside are among them."""
    graphs = [given.g for given in node.attribute if given.type == AttributeProto.GRAPH]
    inner = [each for graph in graphs for each in graph.node]
    return [name for each in inner for name in (*each.input, *captured(each))]


def copied(model: ModelProto) -> ModelProto:
    result = ModelProto()
    result.CopyFrom(model)
    return result


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    return {given.name: helper.get_attribute_value(given) for given in node.attribute}


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Give a node an attribute, or another value for it."""
    for number, given in enumerate(node.attribute):
        if given.name == name:
            del node.attribute[number]
            break
    node.attribute.append(helper.make_attribute(name, value))


def held(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    """Yield every tensor that the graph holds, by the name under which nodes read it."""
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if node.op_type == "Constant":
            for given in node.attribute:
                if given.name == "value":
                    yield node.output[0], given.t


def stored(model: ModelProto) -> dict[str, TensorProto]:
    """Return the model's floating arrays by name: what can be pruned, cut and saved. Scalars are constants."""
    return {name: tensor for name, tensor in held(model) if tensor.data_type in _FLOATS and len(tensor.dims) and not name.startswith(OURS)}


def numbers(tensor: TensorProto) -> Array:
    return np.asarray(numpy_helper.to_array(tensor))


def put(tensor: TensorProto, array: Array) -> None:
    """Give a tensor other numbers, of another shape perhaps; name and type stay."""
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, dtype), tensor.name))


def names(model: ModelProto) -> set[str]:
    """Return every name that is taken in the graph."""
    graph = model.graph
    made = {name for node in graph.node for name in (*node.input, *node.output)}
    return made | {item.name for group in (graph.initializer, graph.input, graph.output) for item in group}


def fresh(name: str, taken: set[str]) -> str:
    """Return `name`, or the first of name_1, name_2, ... that is not taken, and take it."""
    result, number = name, 0
    while result in taken:
        number += 1
        result = f"{name}_{number}"
    taken.add(result)
    return result


def inputs_of(model: ModelProto) -> list[Any]:
    """Return the inputs that a caller must give: old files list initializers among them."""
    inner = {tensor.name for tensor in model.graph.initializer}
    return [given for given in model.graph.input if given.name not in inner]
