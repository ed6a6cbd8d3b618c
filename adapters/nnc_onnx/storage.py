"""A model's numbers by path, what made it, and its graph as plain data."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper

from nnc.errors import StorageError
from nnc.graph.ir import Array
from nnc.graph.plan import Plan
from nnc.storage import require_same_tensors
from nnc_onnx.layers import Finder
from nnc_onnx.masks import unmasked
from nnc_onnx.protos import copied, numbers, put, stored

#: The key of the plans in the file's own metadata: a small .onnx file tells what was cut out of it.
PLANS = "nnc.plans"


def tensors(model: ModelProto) -> dict[str, Array]:
    """Return every stored array by its path, as it lies in the file."""
    return {path: numbers(tensor) for path, tensor in _by_path(model).items()}


def load_tensors(model: ModelProto, given: Mapping[str, Array]) -> None:
    """Set every stored array. Raises `StorageError` before any is set."""
    found = _by_path(model)
    require_same_tensors({path: tuple(tensor.dims) for path, tensor in found.items()}, given)
    for path, tensor in found.items():
        put(tensor, given[path])


def _by_path(model: ModelProto) -> dict[str, TensorProto]:
    finder = Finder(model)
    return {path: finder.stored[name] for name, (path, _) in finder.paths().items()}


def plans(model: ModelProto) -> tuple[Plan, ...]:
    found = next((entry.value for entry in model.metadata_props if entry.key == PLANS), "[]")
    return tuple(Plan.from_dict(plan) for plan in json.loads(found))


def remember(model: ModelProto, new: tuple[Plan, ...]) -> None:
    """Note the plans in the model's metadata."""
    others = {entry.key: entry.value for entry in model.metadata_props if entry.key != PLANS}
    made = {PLANS: json.dumps([plan.to_dict() for plan in new])} if new else {}
    del model.metadata_props[:]
    helper.set_model_props(model, others | made)


def blueprint(model: ModelProto) -> dict[str, Any]:
    """Return the graph without its numbers."""
    bare = copied(unmasked(model))
    for tensor in stored(bare).values():
        tensor.CopyFrom(TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type))
    return {"onnx": base64.b64encode(bare.SerializeToString()).decode()}


def rebuild(data: Mapping[str, Any]) -> ModelProto:
    """Return the model whose graph `data` holds, all its numbers zero. Raises `StorageError` where it is none."""
    model = ModelProto()
    try:
        model.ParseFromString(base64.b64decode(data["onnx"], validate=True))
    except (KeyError, TypeError, ValueError, DecodeError) as error:
        raise StorageError(f"the saved graph is no ONNX model: {error!r}") from error
    for tensor in stored(model).values():
        put(tensor, np.zeros(tuple(tensor.dims)))
    return model
