"""Where indices are summed over: the places that decide whether an index may leave.

Removing index i of an axis that an operation sums over is exact when its term is zero (its input is zero, or all of its weights are
masked), or when the term is a constant that the operation's bias can take. An index that is only carried along, as a channel through
a BatchNorm or a depthwise convolution, asks nothing here: the sums that come later decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nnc.graph.ir import Array, Graph, Node, Tensor
from nnc.graph.known import distinct
from nnc.graph.values import Values


@dataclass(frozen=True)
class Contraction:
    """An axis that `node` sums over: axis number `axis` of `tensor`; `safe[i]` says that index i may leave it.

    `constant[i]`, where not zero, must then be folded through the weight into `bias`, a path, or only into its `entries`, where it holds
    more than that. `reason` explains an unsafe index.
    """

    node: Node
    tensor: Tensor
    axis: int
    safe: Array
    reason: str
    constant: Array | None = None
    bias: str = ""
    entries: Array | None = None

    @property
    def weight(self) -> tuple[Tensor, Array | slice] | None:
        """The parameter that the operation weights with, and which rows of it; None where it weights with what was computed."""
        if "weight" in self.node.attrs and self.tensor is self.node.inputs[1]:
            tensor, rows = self.node.attrs["weight"]
            return tensor, rows
        return (self.tensor, slice(None)) if self.tensor.role == "parameter" else None


def contractions(graph: Graph, values: Values) -> Iterator[Contraction]:
    """Yield every axis of the graph that some operation sums over.

    A layer whose result is not used demands nothing: its weights are cut like those of any other, and what it computes is nobody's concern.
    """
    for node in graph.effective():
        find = FIND.get(node.kind)
        if find is not None:
            yield from find(node, values)


def _inputs(node: Node) -> tuple[Tensor, Tensor]:
    x, weight = node.inputs[:2]
    assert x is not None and weight is not None
    return x, weight


def linear(node: Node, values: Values) -> Iterator[Contraction]:
    x, weight = _inputs(node)
    yield _weighted(node, weight, values.along(x, len(x.shape) - 1)[None], values, "still reads it")


def conv(node: Node, values: Values) -> Iterator[Contraction]:
    """A depthwise convolution sums over its kernel only."""
    x, weight = _inputs(node)
    if weight.shape[1] == 1 and node.attrs["groups"] > 1:
        return
    inputs = values.along(x, node.attrs["channel_axis"])
    reason = "still reads it"
    if node.attrs["padded"] or node.attrs["transposed"]:
        if (np.nan_to_num(inputs) != 0).any():
            reason = "reads a constant from it that is not zero, and pads with zeros"
        inputs = np.where(inputs == 0, 0.0, np.nan)
    yield _weighted(node, weight, inputs.reshape(node.attrs["groups"], -1), values, reason)


def _weighted(node: Node, weight: Tensor, inputs: Array, values: Values, reason: str) -> Contraction:
    """The contraction of a weight's input axis; `inputs` are the known values, (groups, in / groups)."""
    alive = values.alive(weight)
    unread = np.zeros(inputs.shape, bool)
    if alive is not None:
        part = distinct(alive)
        rows = np.broadcast_to(part, (len(alive), part.shape[1]))
        unread = np.asarray(~rows.reshape(len(inputs), -1, part.shape[1]).any(axis=1))
    safe: Array = np.asarray((~np.isnan(inputs) | unread).all(axis=0))
    constant = np.where(unread, 0.0, np.nan_to_num(inputs))
    if not constant.any():
        return Contraction(node, weight, 1, safe, f"{_reader(node)} {reason}")
    bias, entries = _bias(node, weight)
    if not bias:
        safe &= (constant == 0).all(axis=0)
        lacks = "has no bias to take it" if weight.role == "parameter" else "its weight is a part of a tensor that other operations share"
        return Contraction(node, weight, 1, safe, f"{_reader(node)} reads a constant from it and {lacks}")
    return Contraction(node, weight, 1, safe, f"{_reader(node)} {reason}", constant, bias, entries)


def _bias(node: Node, weight: Tensor) -> tuple[str, Array | None]:
    """Return the path of the bias that takes a constant, "" where there is none, and its entries; a layer that lacks one is given it."""
    bias = node.inputs[2]
    if weight.role != "parameter" and "weight" not in node.attrs:
        return "", None
    if "bias" in node.attrs:
        stored, entries = node.attrs["bias"]
        return stored.name, entries
    if bias is not None or node.kind == "recurrent" or not weight.biasable:
        return (bias.name if bias is not None and bias.role == "parameter" else ""), None
    return weight.name.removesuffix("weight") + "bias", None


def recurrent(node: Node, values: Values) -> Iterator[Contraction]:
    """The input is summed over as in a linear layer; the state must be zero at every step, the first included."""
    x, weight = _inputs(node)
    state, recurrent_weight = node.outputs[0], node.inputs[5]
    assert recurrent_weight is not None
    yield _weighted(node, weight, values.along(x, len(x.shape) - 1)[None], values, "still reads it")
    units = values.along(state, len(state.shape) - 1)
    yield _weighted(node, recurrent_weight, np.where(units == 0, 0.0, np.nan)[None], values, "still reads it as its state")


def matmul(node: Node, values: Values) -> Iterator[Contraction]:
    """Zero on either side is enough."""
    a, b = _inputs(node)
    zero = (values.along(a, len(a.shape) - 1) == 0) | (values.along(b, len(b.shape) - 2) == 0)
    yield Contraction(node, a, len(a.shape) - 1, zero, f"{_reader(node)} still sums over it")


def reduce(node: Node, values: Values) -> Iterator[Contraction]:
    """Only a sum; every other reduction is pinned by its rule."""
    x = node.inputs[0]
    assert x is not None
    if node.attrs["function"] == "sum":
        for axis in node.attrs["axes"]:
            yield Contraction(node, x, axis, values.along(x, axis) == 0, f"{_reader(node)} still sums over it")


def _reader(node: Node) -> str:
    return node.layer if node.layer and node.kind in ("linear", "conv", "recurrent") else node.place


FIND: dict[str, Callable[[Node, Values], Iterator[Contraction]]] = {
    "linear": linear,
    "conv": conv,
    "matmul": matmul,
    "reduce": reduce,
    "recurrent": recurrent,
}
