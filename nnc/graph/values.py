"""What is known of the numbers: which channels are zero, or one constant, in the masked network.

A tensor's `Known` says, per axis, for each index the value that the whole slice there has, or NaN. Masked weights give zeros, a bias
or a BatchNorm shift left alive gives constants, any pointwise function maps them: sigmoid(0) is 0.5, and relu of a negative shift
is 0. Zero times anything is zero (activations are taken to be finite). A channel that is known at every operation that sums over
it can leave: its constant goes into that operation's bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from nnc.graph import moves
from nnc.graph.ir import Array, Graph, Node, Tensor
from nnc.graph.known import Known, Values, distinct, single
from nnc.graph.recurrent import stays_zero

NOTHING: Mapping[str, Mapping[int, Array]] = MappingProxyType({})

__all__ = ["TRANSFER", "Known", "Values", "analyse", "weighted"]


def analyse(
    graph: Graph, masks: Mapping[str, Array], allow_inexact: bool = False, whole: Mapping[str, Mapping[int, Array]] = NOTHING
) -> Values:
    """Return the values of a graph whose parameters are seen through `masks`, and `whole` masks, as `Values` has them."""
    values = Values(masks, allow_inexact, whole)
    for node in graph.nodes:
        transfer = TRANSFER.get(node.kind) or _own_transfer(node)
        if transfer is not None:
            transfer(node, values)
    return values


def _own_transfer(node: Node) -> Callable[[Node, Values], None] | None:
    """Return how values pass an unknown operation, where a plug-in says so."""
    from nnc.registry import registry

    own = registry().operations.get(node.op) if node.kind == "unknown" else None
    return own.transfer if own else None


def identity(node: Node, values: Values) -> None:
    x, y = single(node)
    values.put(y, dict(values.of(x)))


def pointwise(node: Node, values: Values) -> None:
    x, y = single(node)
    if node.evaluate is not None:
        values.put(y, {axis: _apply(node.evaluate, value) for axis, value in values.of(x).items()})


def _apply(function: Callable[..., Array], *vectors: Array) -> Array:
    """Evaluate a function where all the vectors are known, NaN elsewhere."""
    vectors = np.broadcast_arrays(*vectors) if len(vectors) > 1 else vectors
    known = ~np.logical_or.reduce([np.isnan(vector) for vector in vectors])
    result = np.full(known.shape, np.nan)
    if known.any():
        result[known] = np.asarray(function(*(vector[known] for vector in vectors)), np.float64)
    return result


def binary(node: Node, values: Values) -> None:
    y = node.outputs[0]
    a, b = node.inputs
    assert a is not None and b is not None
    known: Known = {}
    for axis in range(len(y.shape)):
        left, right = _aligned(a, y, axis, values), _aligned(b, y, axis, values)
        if left is None and right is None:
            continue
        unknown = np.full(1, np.nan)
        known[axis] = _combine(node, unknown if left is None else left, unknown if right is None else right, y.shape[axis])
    if not y.shape:
        known[-1] = _combine(node, values.along(a, -1), values.along(b, -1), 1)
    values.put(y, known)


def _aligned(x: Tensor, y: Tensor, axis: int, values: Values) -> Array | None:
    """Return the known values of an operand along an axis of the result, or None."""
    known = values.of(x)
    if all(size == 1 for size in x.shape):
        return known.get(-1)
    own = axis - (len(y.shape) - len(x.shape))
    if own < 0 or own not in known or x.shape[own] != y.shape[axis]:
        return None
    return known[own]


def _combine(node: Node, left: Array, right: Array, size: int) -> Array:
    left, right = np.broadcast_to(left, (size,)), np.broadcast_to(right, (size,))
    function = node.attrs["function"]
    if function == "guarded":
        return left.copy()
    result = _apply(node.evaluate, left, right) if node.evaluate is not None else np.full(size, np.nan)
    if function in ("mul", "div"):
        result[left == 0] = np.where(np.isnan(result[left == 0]), 0.0, result[left == 0])
    if function == "mul":
        result[right == 0] = 0.0
    return result


def same(a: Array, b: Array) -> Array:
    """Return what two arrays agree on, NaN elsewhere: what is known of a choice between them whatever the condition."""
    return np.where(a == b, a, np.nan)


def linear(node: Node, values: Values) -> None:
    x, y = single(node)
    inputs = values.along(x, len(x.shape) - 1)
    values.put(y, {len(y.shape) - 1: _contract(node.inputs[1], node.inputs[2], values, inputs[None], 1)})


def conv(node: Node, values: Values) -> None:
    """A nonzero constant is known only away from the border, so under zero padding (or a transposed kernel) it is unknown."""
    x, y = single(node)
    channel, groups = node.attrs["channel_axis"], node.attrs["groups"]
    inputs = values.along(x, channel)
    if node.attrs["padded"] or node.attrs["transposed"]:
        inputs = np.where(inputs == 0, 0.0, np.nan)
    values.put(y, {channel: _contract(node.inputs[1], node.inputs[2], values, inputs.reshape(groups, -1), groups)})


def recurrent(node: Node, values: Values) -> None:
    zero = np.where(stays_zero(node, values, _contract), 0.0, np.nan)
    for y in node.outputs:
        values.put(y, {len(y.shape) - 1: zero})


def _contract(weight: Tensor | None, bias: Tensor | None, values: Values, inputs: Array, groups: int) -> Array:
    """Return the known output channels of a weighted sum, `(out,)`, given the known inputs `(groups, in / groups)`.

    An output is known where each of its unmasked weights meets a known input.
    """
    assert weight is not None
    unknown = np.isnan(inputs)  # (groups, in / groups)
    alive = values.alive(weight)
    if alive is None:
        known = np.repeat(~unknown.any(axis=1), weight.shape[0] // groups)
        if weight.role == "value":  # a part of a parameter, whose numbers are not at hand
            known &= not np.nan_to_num(inputs).any()
        known |= values.along(weight, 0) == 0
    else:
        known = ~_meets(alive, unknown)
    result = np.where(known, 0.0, np.nan)
    if known.any() and weight.data is not None and (np.nan_to_num(inputs) != 0).any():
        result[known] = weighted(values.numbers(weight), np.nan_to_num(inputs), groups)[known]
    return result + values.along(bias, 0) if bias is not None else result


def _meets(alive: Array, unknown: Array) -> Array:
    """Return which outputs have an unmasked weight on an unknown input: `(out,)` of `(out, in / groups)` and `(groups, in / groups)`."""
    part = distinct(alive)
    if part.shape[1] == 1:  # rows are masked as a whole
        unknown = np.asarray(unknown.any(axis=1, keepdims=True))
    rows = np.broadcast_to(part, (len(alive), unknown.shape[1]))
    return np.asarray((rows.reshape(len(unknown), -1, unknown.shape[1]) & unknown[:, None, :]).any(axis=2).reshape(-1))


def weighted(weight: Array, inputs: Array, groups: int) -> Array:
    """Return sum over inputs and kernel of weight times a constant input, `(out,)`."""
    kernel = weight.reshape(groups, -1, weight.shape[1], int(np.prod(weight.shape[2:], dtype=int))).sum(axis=3)
    return np.asarray(np.einsum("goi,gi->go", kernel, inputs).reshape(-1))


def matmul(node: Node, values: Values) -> None:
    """A zero slice of either side, outside of the contracted axis, gives a zero slice of the product."""
    y = node.outputs[0]
    known: Known = {}
    for side, contracted in zip(node.inputs, (-1, -2), strict=True):
        assert side is not None
        for axis, value in values.of(side).items():
            target = axis + len(y.shape) - len(side.shape)
            if axis != contracted % len(side.shape) and side.shape[axis] == y.shape[target]:
                known[target] = np.where((value == 0) | (known.get(target, np.nan) == 0), 0.0, np.nan)
    values.put(y, known)


def batch_norm(node: Node, values: Values) -> None:
    x, y = single(node)
    _, weight, bias, mean, variance = node.inputs
    assert mean is not None and variance is not None
    channel = node.attrs["channel_axis"]
    scale = (1.0 if weight is None else values.numbers(weight)) / np.sqrt(values.numbers(variance) + node.attrs["epsilon"])
    shift = (0.0 if bias is None else values.numbers(bias)) - values.numbers(mean) * scale
    values.put(y, {channel: np.where(scale == 0, shift, values.along(x, channel) * scale + shift)})


def layer_norm(node: Node, values: Values) -> None:
    """Only a masked scale makes the result known: it is the shift then."""
    x, y = single(node)
    _, weight, bias = node.inputs
    last = len(y.shape) - 1
    if node.attrs["axes"] != (last,):
        return
    gone = values.along(x, last) == 0 if values.allow_inexact else np.zeros(y.shape[last], bool)
    if weight is not None and values.seen_masked(weight):
        gone = gone | (values.numbers(weight) == 0)
    values.put(y, {last: np.where(gone, 0.0 if bias is None else values.numbers(bias), np.nan)})


def along(node: Node, values: Values) -> None:
    """Whole slices of zeros may stay zeros, as a group of a GroupNorm; a part of what is normalised does if that may be inexact."""
    x, y = single(node)
    if node.attrs.get("zeros"):
        within = () if node.attrs.get("normalises") and values.allow_inexact else node.attrs["axes"]
        values.put(y, {axis: np.where(value == 0, 0.0, np.nan) for axis, value in values.of(x).items() if axis not in within})


def pool(node: Node, values: Values) -> None:
    x, y = single(node)
    known = {axis: value for axis, value in values.of(x).items() if axis not in node.attrs["axes"]}
    if node.attrs["padded"]:
        known = {axis: np.where(value == 0, 0.0, np.nan) for axis, value in known.items()}
    values.put(y, known)


def reduce(node: Node, values: Values) -> None:
    x, y = single(node)
    gone, function = node.attrs["axes"], node.attrs["function"]
    if function not in ("sum", "mean", "extreme"):
        return
    count = float(np.prod([x.shape[axis] for axis in gone])) if function == "sum" else 1.0
    stay = [axis for axis in range(len(x.shape)) if axis not in gone]
    place = {axis: axis if node.attrs["keepdims"] else number for number, axis in enumerate(stay)}
    values.put(y, {place[axis]: value * count for axis, value in values.of(x).items() if axis in place})


TRANSFER: dict[str, Callable[[Node, Values], None]] = {
    "identity": identity,
    "pointwise": pointwise,
    "binary": binary,
    "linear": linear,
    "conv": conv,
    "matmul": matmul,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "along": along,
    "pool": pool,
    "reduce": reduce,
    "reshape": moves.reshape,
    "transpose": moves.transpose,
    "expand": moves.expand,
    "repeat": moves.repeat,
    "concat": moves.concat,
    "stack": moves.stack,
    "slice": moves.slice_,
    "select": moves.select,
    "pad": moves.pad,
    "embedding": moves.embedding,
    "recurrent": recurrent,
}
