"""Compute a single node on arrays of one's own, as ONNX Runtime computes it in the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nnc.graph.ir import Array
from nnc_onnx.running import outputs, session


def evaluation(model: ModelProto, node: NodeProto, given: Sequence[str], fixed: Mapping[str, Array]) -> Callable[..., Array]:
    """Return a function of vectors, one for each name in `given`, that computes the node; `fixed` are its other inputs.

    The vectors are float32, as nearly every model's numbers are.
    """
    ready = None

    def evaluate(*vectors: Array) -> Array:
        nonlocal ready
        ready = ready or session(_single(model, node, given, fixed))
        arrays = [np.asarray(vector, np.float32) for vector in vectors]
        return np.asarray(outputs(ready, dict(zip(given, arrays, strict=True)))[0])

    return evaluate


def _single(model: ModelProto, node: NodeProto, given: Sequence[str], fixed: Mapping[str, Array]) -> ModelProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in dict.fromkeys(given)]
    result = helper.make_empty_tensor_value_info(node.output[0])
    constants = [numpy_helper.from_array(array, name) for name, array in fixed.items()]
    graph = helper.make_graph([node], "single", inputs, [result], constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
