"""Recurrent layers, read as a whole: what Keras runs for one is a loop, whose body no reader of operations sees.

The operations of a call are skipped; in the place of the first stands one node, which reads what the call was given and gives what it made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from nnc.graph.ir import Array, Node, Tensor
from nnc_tensorflow.names import own_variables
from nnc_tensorflow.read import Reader, Reading, shape_of
from nnc_tensorflow.recurrent import CELLS, cell_of
from nnc_tensorflow.trace import Call

_STORED = ("kernel", "recurrent_kernel", "bias")


def read_call(reader: Reader, call: Call) -> None:
    """Add the node of one call of a recurrent layer."""
    cell: Any = cell_of(call.layer)
    given = keras.tree.flatten((call.args, {name: value for name, value in call.kwargs.items() if name != "mask"}))
    x, *states = (reader.tensor(value) for value in given if hasattr(value, "ref") and value.dtype.is_floating)
    made = keras.tree.flatten(call.result)
    kind, order = CELLS[cell.__class__]
    weight, recurrent_weight, *biases = _weights(reader, call, cell)
    bias, recurrent_bias = (*biases, None, None)[:2]
    state, memory = (*states, None, None)[:2]
    outputs = tuple(Tensor(shape_of(tensor)) for tensor in made)
    attrs = {"cell": kind, "order": order, "activations": _activations(cell)} | _part(reader, cell)
    _add(reader, call, "recurrent", (x, weight, bias, state, memory, recurrent_weight, recurrent_bias), outputs, attrs)
    for tensor, output in zip(made, outputs, strict=True):
        reader.values[tensor.ref()] = output
    _tie(reader, call, outputs[0])


def _weights(reader: Reader, call: Call, cell: Any) -> list[Tensor | None]:
    """Return what the cell stores; a GRU may keep the bias of its input and that of its state as the two rows of one variable."""
    own = {name: reader.stored(variable) for name, variable in own_variables(cell).items() if name in _STORED}
    weights: list[Tensor | None] = [own["kernel"], own["recurrent_kernel"]]
    bias = own.get("bias")
    if bias is None or len(bias.shape) == 1:
        return [*weights, bias]
    rows = []
    for number in (0, 1):
        rows.append(Tensor(bias.shape[1:]))
        _add(reader, call, "select", (bias,), (rows[-1],), {"axis": 0, "index": number})
    return [*weights, *rows]


def _part(reader: Reader, cell: Any) -> dict[str, Any]:
    """Return where the bias of the input lies in a variable that holds both."""
    variable = own_variables(cell).get("bias")
    if variable is None or len(variable.shape) == 1:
        return {}
    return {"bias": (reader.stored(variable), np.arange(variable.shape[1]))}


def _activations(cell: Any) -> tuple[Callable[..., Array], ...]:
    own = _of_arrays(cell.activation)
    return (_of_arrays(cell.recurrent_activation), own, own) if hasattr(cell, "recurrent_activation") else (own,)


def _of_arrays(function: Callable[..., Any]) -> Callable[..., Array]:
    return lambda array: np.asarray(function(keras.ops.convert_to_tensor(array)))


def _tie(reader: Reader, call: Call, output: Tensor) -> None:
    """Both directions of a Bidirectional keep the same units: Keras makes the one from the config of the other."""
    parent, _, side = call.path.rpartition(".")
    other = reader.sides.setdefault(parent, (side, output))
    wrapper = reader.recording.layers.get(parent)
    if other[0] != side and isinstance(wrapper, keras.layers.Bidirectional) and other[1].shape == output.shape:
        _add(reader, call, "stack", (other[1], output), (Tensor((2, *output.shape)),), {"axis": 0})


def _add(
    reader: Reader, call: Call, kind: str, inputs: Sequence[Tensor | None], outputs: tuple[Tensor, ...], attrs: dict[str, Any]
) -> None:
    source = reader.recording.source(reader.recording.graph.get_operation_by_name(call.operations[0]))
    reader.graph.nodes.append(Node(kind, tuple(inputs), outputs, attrs, call.layer.__class__.__name__, call.path, source))


#: What is read here is no operation of TensorFlow's but a call of a layer.
READINGS: dict[str, Reading] = {"Call": read_call}
