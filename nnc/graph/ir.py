"""The one small graph that every framework is traced to.

A `Tensor` is a value with a shape, a `Node` an operation of a neutral kind, a `Graph` what one forward pass did. Parameters stand
in it in the canonical orientation `(out, in, *kernel)`, whatever the framework stores, so that the same network gives the same
graph, and so the same plan, everywhere. Two adapters that speak of one convolution:

    torch   aten.convolution(x, w, b)      Node("conv", (x, w, b), channel_axis=1)
    Keras   Conv2D, then BiasAdd           Node("conv", (x, w, b), channel_axis=3)

`KINDS` below is the whole vocabulary. An operation that fits none of them is "unknown": it pins everything that it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]

#: kind -> (inputs, attributes). Axes are non-negative; `None` stands for an input that is absent.
KINDS: Mapping[str, str] = {
    "identity": "(x): the same numbers, as dropout in inference, a cast or a copy; fixed: axes whose size cannot follow, if any",
    "pointwise": "(x): one function of each element; `evaluate(x)` computes it",
    "binary": "(a, b): elementwise with broadcasting; function: add, sub, mul, div, guarded (what is known of a holds whatever b is) or "
    "other; `evaluate(a, b)` computes it",
    "linear": "(x, weight, bias or None): x (..., in), weight (out, in)",
    "conv": "(x, weight, bias or None): weight (out, in / groups, *kernel); channel_axis, groups, padded, transposed",
    "matmul": "(a, b): (..., n, k) times (..., k, m), leading axes broadcast",
    "batch_norm": "(x, weight, bias, mean, variance): weight and bias may be None; channel_axis, epsilon",
    "layer_norm": "(x, weight, bias): both may be None; axes",
    "pool": "(x): axes (spatial), function: max or average, padded: True where zeros are counted in",
    "reduce": "(x): axes, keepdims, function: sum, mean, variance, extreme (the largest or the smallest) or other",
    "along": "(x): mixes the elements along `axes` and keeps the shape, as softmax, cumsum, sort or roll; "
    "normalises: True where it takes a mean of them, as an RMSNorm; zeros: True where a slice of zeros across them stays zeros",
    "reshape": "(x): row-major; also flatten, squeeze and unsqueeze; sizes: as the user's code gave them (-1 included), where it did",
    "transpose": "(x): permutation",
    "expand": "(x): broadcast to the output's shape",
    "repeat": "(x): repeats whole axes: each counts[a] times, as tile (torch: repeat)",
    "concat": "(*xs): axis",
    "stack": "(*xs): axis, the new one",
    "slice": "(x): axis, index: integer vector; output = take(x, index, axis). Split and chunk are one slice an output: "
    "sizes as the user's code gave them, parts: the list of all the outputs. looked_up: True where sizes is the index itself; "
    "cut: where the code starts and stops, and its step, counted from the front; fixed: why it cannot take others, if so",
    "select": "(x): axis; one index of it is taken and the axis is gone",
    "pad": "(x): axes that grow, value",
    "recurrent": "(x, weight, bias, h, c, recurrent_weight, recurrent_bias): one direction of an LSTM, GRU or RNN; x (..., in), weight "
    "(gates * hidden, in), recurrent_weight (gates * hidden, hidden); h and c None where they start at zero. cell: lstm, gru or rnn; "
    "order: its gates as they are stored; activations: of the gates, the candidate, and an LSTM's memory. Every output ends in hidden. "
    "bias: where that is a part of a parameter, (the parameter, which entries of it, counted through all its axes); weight: likewise, "
    "(the parameter, which rows of it)",
    "embedding": "(indices, weight): weight (rows, width); output (*indices, width)",
    "unknown": "(*xs): pins every axis of everything that it reads and writes",
}


@dataclass(eq=False, slots=True)
class Tensor:
    """A value in the graph.

    `name` is the path of a parameter (`"block.conv1.weight"`), else `""`. `data()` reads a parameter's or a constant's numbers,
    in this tensor's (canonical) shape; it is None for values that depend on the input. What is neither `floating` nor `boolean` are whole
    numbers: positions and counts. `biasable` says of a weight whether its layer can
    be given a bias where it has none: code of a user's own would not add it.
    """

    shape: Shape
    role: Literal["value", "input", "parameter", "constant"] = "value"
    name: str = ""
    floating: bool = True
    trainable: bool = False
    data: Callable[[], Array] | None = None
    biasable: bool = True
    boolean: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where the user's code asked for an operation: `function` is the qualified name of the method that holds the line."""

    file: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(eq=False, slots=True)
class Node:
    """One operation. `op` is the framework's own name of it, `layer` the path of the layer that ran it ("" is the model itself)."""

    kind: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    op: str = ""
    layer: str = ""
    source: Source | None = None
    evaluate: Callable[..., Array] | None = None

    @property
    def place(self) -> str:
        """The operation for a reader: `aten.cumsum in block.mixer (net.py:23)`."""
        where = f" in {self.layer}" if self.layer else ""
        return f"{self.op or self.kind}{where}" + (f" ({self.source})" if self.source else "")


@dataclass(eq=False, slots=True)
class Graph:
    """What one forward pass did, in the order in which it did it."""

    nodes: list[Node] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    #: layer -> {attribute: number}: whole numbers that layers note and that may be the size of an axis, as `num_heads`.
    numbers: dict[str, dict[str, int]] = field(default_factory=dict)
    #: The relative precision of the coarsest floats that the pass computed with (2 ** -23 for float32); 0 where that is not known.
    epsilon: float = 0.0
    #: What else the pass made that lasts: a buffer that was written, numbers that the model's code looked at.
    lasting: list[Tensor] = field(default_factory=list)
    #: What follows from the graph alone and was found out before, by who keeps it here.
    found: dict[Any, Any] = field(default_factory=dict)

    def effective(self) -> list[Node]:
        """Return the nodes whose results reach an output, or last, in their order; what an unknown operation reads counts too.

        All of them where no output is noted.
        """
        reached, found = {*self.outputs, *self.lasting}, []
        for node in reversed(self.nodes):
            if not self.outputs or node.kind == "unknown" or not reached.isdisjoint(node.outputs):
                reached.update(tensor for tensor in node.inputs if tensor is not None)
                found.append(node)
        return found[::-1]

    def parameters(self) -> dict[str, Tensor]:
        """Return the parameters that the pass read, by path, in the order of their first use."""
        read = (t for node in self.nodes for t in node.inputs if t is not None and t.role == "parameter")
        return {tensor.name: tensor for tensor in read}


def constant(value: Any) -> Tensor:
    """Return a tensor for a number, or an array, that stands in the user's code."""
    array = np.asarray(value)
    return Tensor(array.shape, "constant", floating=array.dtype.kind == "f", data=lambda: array, boolean=array.dtype.kind == "b")
