"""LSTM, GRU and RNN: one node a direction, whose weights are parts of the stored ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from nnc.graph.ir import Array, Tensor
from nnc.graph.recurrent import sigmoid
from nnc_onnx.read import Reader, Reading, unknown

#: What an operation is, its gates in the order in which ONNX stores them, and how many activations a direction has.
_CELLS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "LSTM": ("lstm", ("input", "output", "forget", "candidate"), ("Sigmoid", "Tanh", "Tanh")),
    "GRU": ("gru", ("update", "reset", "candidate"), ("Sigmoid", "Tanh")),
    "RNN": ("rnn", ("candidate",), ("Tanh",)),
}
_FUNCTIONS: dict[str, Callable[..., Array]] = {"Sigmoid": sigmoid, "Tanh": np.tanh, "Relu": lambda x: np.maximum(x, 0.0)}


def recurrent(reader: Reader, node: NodeProto) -> None:
    given = reader.attributes(node)
    kind, order, default = _CELLS[node.op_type]
    weight, state_weight = reader.tensor(node.input[1]), reader.tensor(node.input[2])
    directions = 2 if given.get("direction", b"forward") == b"bidirectional" else 1
    named = [name.decode() for name in given.get("activations", ())] or list(default) * directions
    if given.get("layout") or given.get("input_forget") or reader.given(node, 7) or not set(named) <= _FUNCTIONS.keys():
        unknown(reader, node)
        return
    x, sides = reader.tensor(node.input[0]), []
    for side in range(directions):
        biases = _biases(reader, reader.given(node, 3), side)
        states = [_state(reader, reader.given(node, place), side) for place in (5, 6)]
        functions = tuple(_FUNCTIONS[name] for name in named[side * len(default) : (side + 1) * len(default)])
        inputs = (x, _part(reader, weight, side), biases[0], *states, _part(reader, state_weight, side), biases[1])
        attrs = {"cell": kind, "order": order, "activations": functions} | _place(reader, reader.given(node, 3), side)
        if directions > 1:
            attrs |= _rows(reader, weight, side)
        sides.append(_outputs(reader, node, inputs, attrs))
    for place, name in enumerate(node.output):
        if name:
            reader.emit("stack", name, [outputs[place] for outputs in sides], {"axis": 0 if place else 1})


def _outputs(reader: Reader, node: NodeProto, inputs: Sequence[Tensor | None], attrs: dict[str, Any]) -> tuple[Tensor, ...]:
    """Add one direction; return its outputs at all steps, and its states after the last one."""
    x, hidden = inputs[0], inputs[5]
    assert x is not None and hidden is not None
    batch = (x.shape[1], hidden.shape[1])
    outputs = (Tensor((x.shape[0], *batch)), *(Tensor(batch) for _ in range(2 if node.op_type == "LSTM" else 1)))
    reader.node("recurrent", inputs, outputs, attrs)
    return outputs


def _part(reader: Reader, weights: Tensor, side: int) -> Tensor:
    """Return one direction of what lies direction behind direction: the stored tensor itself where there is but one."""
    found = reader.whole(weights)
    if found is not None and weights.shape[0] == 1:
        return found
    return reader.step("select", weights, weights.shape[1:], axis=0, index=side)


def _rows(reader: Reader, weights: Tensor, side: int) -> dict[str, Any]:
    """Return which rows of a stored tensor are the weights of one direction's inputs."""
    whole, count = reader.whole(weights), weights.shape[1]
    return {} if whole is None else {"weight": (whole, np.arange(side * count, (side + 1) * count))}


def _biases(reader: Reader, name: str, side: int) -> tuple[Tensor | None, Tensor | None]:
    """Return the bias of the inputs and that of the state, which lie one behind the other."""
    if not name:
        return None, None
    both = reader.tensor(name)
    own = reader.step("select", both, both.shape[1:], axis=0, index=side)
    rows = own.shape[0] // 2
    first, second = (reader.step("slice", own, (rows,), axis=0, index=np.arange(start, start + rows)) for start in (0, rows))
    return first, second


def _place(reader: Reader, name: str, side: int) -> dict[str, Any]:
    """Return where the bias of one direction's inputs lies in a stored tensor that holds it with others."""
    whole = reader.whole(reader.tensor(name)) if name else None
    if whole is None:
        return {}
    rows = reader.tensor(name).shape[1] // 2
    start = 2 * rows * side
    return {"bias": (whole, np.arange(start, start + rows))}


def _state(reader: Reader, name: str, side: int) -> Tensor | None:
    """Return what a direction starts from; zeros that the file fixes are what it starts from anyway."""
    if not name or _zero(reader, name):
        return None
    state = reader.tensor(name)
    return reader.step("select", state, state.shape[1:], axis=0, index=side)


def _zero(reader: Reader, name: str) -> bool:
    """Tell whether the file fixes a tensor, by operations or stored as floats, and all of it is zero."""
    fixed = reader.static(name)
    if fixed is None:
        stored = reader.tensor(name).data
        fixed = None if stored is None else stored()
    return fixed is not None and not fixed.any()


READINGS: dict[str, Reading] = dict.fromkeys(_CELLS, recurrent)
