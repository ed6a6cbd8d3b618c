"""Run a model in ONNX Runtime: example inputs as users give them, outputs, and every result in between."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, ValueInfoProto, helper

from nnc.arrays import to_numpy
from nnc.errors import ConfigError, TraceError, nearest
from nnc.graph.ir import Array
from nnc_onnx.protos import inputs_of


def feed(model: ModelProto, example_inputs: Any) -> dict[str, Array]:
    """Return the inputs by name. `example_inputs`: an array, a list or tuple in the model's order, or a dict by name.

    Raises `ConfigError` for names, counts, shapes and types that the model does not take.
    """
    wanted = {given.name: given.type.tensor_type for given in inputs_of(model)}
    if isinstance(example_inputs, Mapping):
        for name in example_inputs:
            if name not in wanted:
                known = nearest(str(name), wanted)
                raise ConfigError(f"example_inputs: the model has no input {name!r}{known}. It has {', '.join(wanted)}.")
        given = dict(example_inputs)
    else:
        rows = example_inputs if isinstance(example_inputs, (list, tuple)) else [example_inputs]
        given = dict(zip(wanted, rows, strict=False)) if len(rows) <= len(wanted) else {}
    if given.keys() != wanted.keys():
        raise ConfigError(f"example_inputs: the model takes {len(wanted)} inputs: {', '.join(wanted)}. Give an array for each.")
    return {name: _fitting(name, given[name], kind) for name, kind in wanted.items()}


def _fitting(name: str, value: Any, kind: Any) -> Array:
    try:
        array = to_numpy(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"example_inputs: {name!r} is no array: {error}.") from None
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim] if kind.HasField("shape") else None
    fits = sizes is None or (len(sizes) == array.ndim and all(a in (None, b) for a, b in zip(sizes, array.shape, strict=True)))
    if not fits:
        shown = ", ".join("any" if size is None else str(size) for size in sizes or ())
        raise ConfigError(f"example_inputs: {name!r} has the shape {array.shape}; the model takes ({shown}).")
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise ConfigError(f"example_inputs: {name!r} holds {array.dtype}; the model takes {dtype}.")
    return array.astype(dtype, copy=False)


def session(model: ModelProto, optimised: bool = True) -> onnxruntime.InferenceSession:
    """Return ONNX Runtime's session of a model. Raises `TraceError` with its reason where it takes the model not."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # 0: one for each core
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its own that derive from Exception only
        raise TraceError(f"ONNX Runtime cannot load the model: {error}") from error


def outputs(ready: onnxruntime.InferenceSession, given: Mapping[str, Array], names: Sequence[str] | None = None) -> list[Any]:
    """Return the outputs of one pass, all of them where no names are given."""
    try:
        return list(ready.run(names, dict(given)))
    except Exception as error:
        raise TraceError(f"the model failed on the example inputs: {error}") from error


def everything(model: ModelProto, given: Mapping[str, Array]) -> dict[str, Any]:
    """Return what every node of the model gives, by name. `model` is changed: all of it becomes an output."""
    final = {out.name for out in model.graph.output}
    between = [name for node in model.graph.node for name in node.output if name and name not in final]
    model.graph.output.extend(ValueInfoProto(name=name) for name in between)
    ready = session(model, optimised=False)
    names = [out.name for out in ready.get_outputs()]
    return dict(zip(names, outputs(ready, given, names), strict=True))
