"""Compute a single node on arrays of one's own, as ONNX Runtime computes it in the model.

Nodes that do the same, as all the Relus of a network, share one session: making one costs more than running it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from nnc.graph.ir import Array
from nnc_onnx.running import outputs, session


class Evaluations:
    """What the nodes of one model compute, by what they are."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._known: dict[tuple[Any, ...], Callable[..., Array]] = {}

    def of(self, node: NodeProto, places: Sequence[int], fixed: Mapping[int, Array]) -> Callable[..., Array]:
        """Return a function of vectors, one for each input at `places`, that computes the node; `fixed` are its other inputs.

        The vectors are float32, as nearly every model's numbers are.
        """
        constants = [(place, array.dtype.str, array.shape, array.tobytes()) for place, array in fixed.items()]
        attributes = sorted(given.SerializeToString() for given in node.attribute)
        key = (node.domain, node.op_type, len(node.input), *places, *attributes, *constants)
        if key not in self._known:
            self._known[key] = _evaluation(self._model, node, places, fixed)
        return self._known[key]


def _evaluation(model: ModelProto, node: NodeProto, places: Sequence[int], fixed: Mapping[int, Array]) -> Callable[..., Array]:
    ready = None
    given = [f"x{place}" for place in places]

    def evaluate(*vectors: Array) -> Array:
        nonlocal ready
        ready = ready or session(_single(model, node, given, fixed))
        arrays = [np.asarray(vector, np.float32) for vector in vectors]
        return np.asarray(outputs(ready, dict(zip(given, arrays, strict=True)))[0])

    return evaluate


def _single(model: ModelProto, node: NodeProto, given: Sequence[str], fixed: Mapping[int, Array]) -> ModelProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in given]
    result = helper.make_empty_tensor_value_info("y")
    constants = [numpy_helper.from_array(array, f"x{place}") for place, array in fixed.items()]
    names = {*given, *(f"x{place}" for place in fixed)}
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [f"x{place}" if f"x{place}" in names else "" for place in range(len(node.input))]
    copy.output[:] = ["y"]
    graph = helper.make_graph([copy], "single", inputs, [result], constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
