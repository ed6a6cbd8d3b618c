"""torch's recurrent layers: one node a layer and direction, whichever kernels run it.

nn.LSTM, GRU and RNN come down to one call, of `torch.lstm(input, hx, weights, ...)` and its like, or for a packed sequence of
`torch.lstm(data, batch_sizes, hx, weights, ...)`. What that runs, oneDNN, cuDNN or a hundred small operations, stays out of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from nnc.graph.ir import Array, Node, Tensor
from nnc.graph.recurrent import sigmoid
from nnc_torch.inference import tensors_in
from nnc_torch.record import Recorder


@dataclass(frozen=True)
class Cell:
    """One kind of recurrent layer: its gates as torch stores them."""

    kind: str
    order: tuple[str, ...]
    activations: tuple[Callable[..., Array], ...]


def _relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


_CELLS = {
    "lstm": Cell("lstm", ("input", "forget", "candidate", "output"), (sigmoid, np.tanh, np.tanh)),
    "gru": Cell("gru", ("reset", "update", "candidate"), (sigmoid, np.tanh)),
    "rnn_tanh": Cell("rnn", ("candidate",), (np.tanh,)),
    "rnn_relu": Cell("rnn", ("candidate",), (_relu,)),
}


def handlers(recorder: Recorder) -> dict[Any, Callable[..., Any]]:
    """Return what to do in the place of each of torch's recurrent functions while `recorder` records."""
    functions = {getattr(torch, name): cell for name, cell in _CELLS.items()}
    return {function: _handler(recorder, function, cell) for function, cell in functions.items()}


def _handler(recorder: Recorder, function: Any, cell: Cell) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        with _disable_current_modes():
            result = function(*recorder.masked(args))
        _Reading(recorder, f"torch.{function.__name__}", cell, args).read(result)
        return result

    return run


class _Reading:
    """One call, as it goes into the graph."""

    def __init__(self, recorder: Recorder, op: str, cell: Cell, args: Sequence[Any]) -> None:
        self.values, self.op, self.cell = recorder.values, op, cell
        self.layer, self.source = recorder.places.here()
        packed = not isinstance(args[3], bool)
        self.given, self.states, self.weights, self.biased, self.layers = args[0], *args[1 + packed : 5 + packed]
        self.directions = 1 + args[7 + packed]

    def read(self, result: Sequence[torch.Tensor]) -> None:
        """Add the nodes of all layers and directions, and say what `result` (outputs, then the last states) holds."""
        names = 4 if self.biased else 2
        if len(self.weights) != names * self.layers * self.directions:
            self.op += " with proj_size"
            return self._unknown(result)
        x = self.values.read(self.given)
        initial = [self.values.read(state) for state in tensors_in(self.states)]
        last: list[tuple[Tensor, ...]] = []
        for _ in range(self.layers):
            sides = []
            for _ in range(self.directions):
                own = [self.values.read(weight) for weight in self.weights[names * len(last) : names * (len(last) + 1)]]
                outputs = self._cell(x, own, [self._select(state, len(last)) for state in initial])
                sides.append(outputs[0])
                last.append(outputs[1:])
            width = sum(side.shape[-1] for side in sides)
            x = sides[0] if len(sides) == 1 else self._node("concat", sides, (*x.shape[:-1], width), axis=len(x.shape) - 1)
        self.values.bind(result[0], x)
        for given, states in zip(result[1:], zip(*last, strict=True), strict=True):
            self.values.bind(given, self._node("stack", states, tuple(given.shape), axis=0))
        return None

    def _cell(self, x: Tensor, own: Sequence[Tensor], initial: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Add one direction of one layer; return its outputs, and the state or states after the last step."""
        weight, recurrent_weight, bias, recurrent_bias = (*own, None, None)[:4]
        state, memory = (*initial, None)[:2]
        outputs = (Tensor((*x.shape[:-1], own[1].shape[1])), *(Tensor(given.shape) for given in initial))
        attrs = {"cell": self.cell.kind, "order": self.cell.order, "activations": self.cell.activations}
        self._add("recurrent", (x, weight, bias, state, memory, recurrent_weight, recurrent_bias), outputs, attrs)
        return outputs

    def _select(self, states: Tensor, number: int) -> Tensor:
        return self._node("select", (states,), states.shape[1:], axis=0, index=number)

    def _unknown(self, result: Sequence[torch.Tensor]) -> None:
        read = [self.values.read(tensor) for tensor in tensors_in((self.given, self.states, self.weights))]
        outputs = tuple(Tensor(tuple(given.shape)) for given in result)
        self._add("unknown", tuple(read), outputs, {})
        for given, output in zip(result, outputs, strict=True):
            self.values.bind(given, output)

    def _node(self, kind: str, inputs: Sequence[Tensor], shape: tuple[int, ...], **attrs: Any) -> Tensor:
        result = Tensor(shape)
        self._add(kind, tuple(inputs), (result,), attrs)
        return result

    def _add(self, kind: str, inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor, ...], attrs: dict[str, Any]) -> None:
        self.values.graph.nodes.append(Node(kind, inputs, outputs, attrs, self.op, self.layer, self.source))
