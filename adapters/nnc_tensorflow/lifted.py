"""Large weights stay out of the graph that is converted: they are inputs of it, and become stored numbers in the finished file.

tf2onnx copies a graph with all its constants in each of some thirty passes, so that its time and its memory grow with the bytes of the
weights: minutes and many gigabytes for a BERT. A weight that only products and lookups read needs no constant to be converted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nnc.graph.ir import Array
from nnc_tensorflow.layers import KerasLayer

#: Smaller weights are converted as constants.
_LARGE = 1 << 14
_KINDS = ("Linear", "Embedding")
_PREFIX = "nnc_weight_"
#: ONNX's numbers of types.
_FLOAT, _INT64 = 1, 7


@dataclass(frozen=True)
class Lifted:
    """The variables that are inputs of the converted graph, by the name of the input, and the layers that they belong to."""

    variables: Mapping[str, Any]
    layers: Mapping[str, str]

    @property
    def specs(self) -> list[tf.TensorSpec]:
        return [tf.TensorSpec(tuple(each.shape), each.dtype, name) for name, each in self.variables.items()]

    def reading(self, call: Any, count: int) -> Any:
        """Return `call` as a function of its own `count` tensors and of the weights, which stand in the variables' place."""
        if not self.variables:
            return call

        def run(*tensors: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(self.variables.values(), tensors[count:], strict=True))):
                return call(*tensors[:count])

        return run

    def fill(self, graph: Any) -> None:
        """Store the weights in a converted graph, called as their layers are; those that it reads reshaped are stored in that shape."""
        found = {each.name: self.variables[name] for each in graph.input if (name := each.name.partition(":")[0]) in self.variables}
        layers = {name: self.layers[name.partition(":")[0]] for name in found}
        left = [each for each in graph.input if each.name not in found]
        del graph.input[:]
        graph.input.extend(left)
        shapes = {tensor.name: _whole(tensor) for tensor in graph.initializer if tensor.data_type == _INT64}
        for name, variable in found.items():
            _store(graph, name, f"{layers[name]}.weight", np.asarray(variable.numpy()), shapes)


def lifted(layers: Iterable[KerasLayer]) -> Lifted:
    """Return the weights, large enough to matter, of those layers that multiply by them or look rows up."""
    variables, names = {}, {}
    for layer in layers:
        slot = layer.slots.get("weight")
        if slot is None or slot.variable.dtype != "float32" or any(slot.variable is each for each in variables.values()):
            continue
        if not set(_KINDS) & set(layer.op_types) or np.prod(slot.shape) < _LARGE:
            continue
        variables[f"{_PREFIX}{len(variables)}"] = slot.variable
        names[f"{_PREFIX}{len(names)}"] = layer.name
    return Lifted(variables, names)


def _store(graph: Any, old: str, new: str, array: Array, shapes: Mapping[str, Array]) -> None:
    """Put an array in the place of the input `old`; the first of its shapes gets the name `new`."""
    readers = [(node, place) for node in graph.node for place, name in enumerate(node.input) if name == old]
    outputs = {each.name for each in graph.output}
    names: dict[tuple[int, ...], str] = {}
    for node, place in readers:
        shaped = node.op_type == "Reshape" and place == 0 and node.input[1] in shapes and node.output[0] not in outputs
        shape = array.reshape(shapes[node.input[1]]).shape if shaped else array.shape
        if shape not in names:
            names[shape] = new if not names else f"{new}/{len(names)}"
            numbers = array.astype("<f4", copy=False).tobytes()
            graph.initializer.add(name=names[shape], data_type=_FLOAT, dims=shape, raw_data=numbers)
        if shaped:
            _read_instead(graph.node, node.output[0], names[shape])
            graph.node.remove(node)
        else:
            node.input[place] = names[shape]


def _whole(tensor: Any) -> Array:
    return np.frombuffer(tensor.raw_data, "<i8") if tensor.raw_data else np.array(tensor.int64_data, np.int64)


def _read_instead(nodes: Any, old: str, new: str) -> None:
    for node in nodes:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
