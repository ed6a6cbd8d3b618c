"""What is known of the numbers: which channels are zero, or one constant, in the masked network.

A tensor's `Known` says, per axis, for each index the value that the whole slice there has, or NaN. Masked weights give zeros, a bias
or a BatchNorm shift left alive gives constants, any pointwise function maps them: sigmoid(0) is 0.5, and relu of a negative shift
is 0. Zero times anything is zero (activations are taken to be finite). A channel that is known at every operation that sums over
it can leave: its constant goes into that operation's bias.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from nnc.graph.ir import Array, Graph, Node, Tensor

#: axis -> one value an index, NaN where it is not known. An axis that is absent is unknown throughout.
Known = dict[int, Array]


@dataclass
class Values:
    """Known values of every tensor of a graph under masks; `masks` is by parameter path, in canonical shape.

    With `allow_inexact`, what comes into a normalisation as zero counts as zero behind it: that is how the small model sees it.
    """

    masks: Mapping[str, Array]
    allow_inexact: bool = False
    _known: dict[Tensor, Known] = field(default_factory=dict)
    _alive: dict[Tensor, Array] = field(default_factory=dict)

    def of(self, tensor: Tensor | None) -> Known:
        """Return what is known of a tensor; empty for one that is absent."""
        if tensor is None:
            return {}
        if tensor not in self._known:
            self._known[tensor] = self._given(tensor)
        return self._known[tensor]

    def along(self, tensor: Tensor | None, axis: int) -> Array:
        """Return the value of each index along one axis, all NaN where nothing is known."""
        known = self.of(tensor).get(axis)
        if known is not None:
            return known
        return np.full(tensor.shape[axis] if tensor is not None and tensor.shape else 1, np.nan)

    def alive(self, weight: Tensor) -> Array | None:
        """Return which (out, in) pairs of a weight have an unmasked entry, or None where nothing of it is masked."""
        mask = self.masks.get(weight.name)
        if mask is None:
            return None
        if weight not in self._alive:
            flat = mask.reshape(*mask.shape[:2], -1)
            self._alive[weight] = np.asarray(flat.any(axis=2) if flat.shape[2] > 1 else flat[:, :, 0])
        return self._alive[weight]

    def numbers(self, tensor: Tensor) -> Array:
        """Read a parameter's or a constant's effective numbers as float64."""
        assert tensor.data is not None
        numbers = np.asarray(tensor.data(), np.float64)
        mask = self.masks.get(tensor.name)
        return numbers if mask is None else numbers * mask

    def put(self, tensor: Tensor, known: Known) -> None:
        """Note what is known; axes of which nothing is known are dropped."""
        self._known[tensor] = {axis: value for axis, value in known.items() if not np.isnan(value).all()}

    def _given(self, tensor: Tensor) -> Known:
        wide = [axis for axis, size in enumerate(tensor.shape) if size != 1]
        if tensor.data is not None and tensor.floating and len(wide) <= 1:
            # A vector, however many axes of size 1 stand around it: a bias of shape (1, C, 1, 1), say. A single number is at -1.
            return {wide[0] if wide else -1: self.numbers(tensor).reshape(-1)}
        if tensor.role == "constant" and tensor.data is not None and tensor.floating:
            return _slices(np.asarray(tensor.data(), np.float64))
        mask = self.masks.get(tensor.name) if tensor.name else None
        if mask is None:
            return {}
        dead = (~mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)) for axis in range(mask.ndim))
        return {axis: np.where(gone, 0.0, np.nan) for axis, gone in enumerate(dead) if gone.any()}


def _slices(numbers: Array) -> Known:
    """Return, per axis of an array, the value of each slice that has but one."""
    known = {}
    for axis in range(numbers.ndim):
        flat = np.moveaxis(numbers, axis, 0).reshape(numbers.shape[axis], -1)
        known[axis] = np.where((flat == flat[:, :1]).all(axis=1), flat[:, 0], np.nan)
    return {axis: value for axis, value in known.items() if not np.isnan(value).all()}


def analyse(graph: Graph, masks: Mapping[str, Array], allow_inexact: bool = False) -> Values:
    """Return the values of a graph whose parameters are seen through `masks` ({parameter path: boolean array})."""
    values = Values(masks, allow_inexact)
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


def _single(node: Node) -> tuple[Tensor, Tensor]:
    x = node.inputs[0]
    assert x is not None
    return x, node.outputs[0]


def _carry(node: Node, values: Values, mapping: Mapping[int, int]) -> None:
    """Pass what is known on unchanged: `mapping` is input axis -> output axis."""
    x, y = _single(node)
    values.put(y, {mapping[axis]: value for axis, value in values.of(x).items() if axis in mapping})


def identity(node: Node, values: Values) -> None:
    x, y = _single(node)
    values.put(y, dict(values.of(x)))


def pointwise(node: Node, values: Values) -> None:
    x, y = _single(node)
    if node.evaluate is not None:
        values.put(y, {axis: _apply(node.evaluate, value) for axis, value in values.of(x).items()})


def _apply(function: Callable[..., Array], *vectors: Array) -> Array:
    """Evaluate a function where all the vectors are known, NaN elsewhere."""
    known = ~np.isnan(np.stack(np.broadcast_arrays(*vectors))).any(axis=0)
    result = np.full(known.shape, np.nan)
    if known.any():
        parts = [np.broadcast_to(vector, known.shape)[known] for vector in vectors]
        result[known] = np.asarray(function(*parts), np.float64)
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
    result = _apply(node.evaluate, left, right) if node.evaluate is not None else np.full(size, np.nan)
    if function in ("mul", "div"):
        result[left == 0] = np.where(np.isnan(result[left == 0]), 0.0, result[left == 0])
    if function == "mul":
        result[right == 0] = 0.0
    return result


def linear(node: Node, values: Values) -> None:
    x, y = _single(node)
    inputs = values.along(x, len(x.shape) - 1)
    values.put(y, {len(y.shape) - 1: _contract(node, values, inputs[None], 1)})


def conv(node: Node, values: Values) -> None:
    """A nonzero constant is known only away from the border, so under zero padding (or a transposed kernel) it is unknown."""
    x, y = _single(node)
    channel, groups = node.attrs["channel_axis"], node.attrs["groups"]
    inputs = values.along(x, channel)
    if node.attrs["padded"] or node.attrs["transposed"]:
        inputs = np.where(inputs == 0, 0.0, np.nan)
    values.put(y, {channel: _contract(node, values, inputs.reshape(groups, -1), groups)})


def _contract(node: Node, values: Values, inputs: Array, groups: int) -> Array:
    """Return the known output channels of a weighted sum, `(out,)`, given the known inputs `(groups, in / groups)`.

    An output is known where each of its unmasked weights meets a known input.
    """
    _, weight, bias = node.inputs
    assert weight is not None
    outputs, width = weight.shape[:2]
    unknown = np.isnan(inputs)  # (groups, in / groups)
    alive = values.alive(weight)
    if alive is None:
        known = np.repeat(~unknown.any(axis=1), outputs // groups)
    else:
        meets = alive.reshape(groups, -1, width) & unknown[:, None, :]
        known = ~meets.any(axis=2).reshape(-1)
    result = np.where(known, 0.0, np.nan)
    if known.any() and (np.nan_to_num(inputs) != 0).any():
        result[known] = weighted(values.numbers(weight), np.nan_to_num(inputs), groups)[known]
    return result + values.along(bias, 0) if bias is not None else result


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
    x, y = _single(node)
    _, weight, bias, mean, variance = node.inputs
    assert mean is not None and variance is not None
    channel = node.attrs["channel_axis"]
    scale = (1.0 if weight is None else values.numbers(weight)) / np.sqrt(values.numbers(variance) + node.attrs["epsilon"])
    shift = (0.0 if bias is None else values.numbers(bias)) - values.numbers(mean) * scale
    values.put(y, {channel: np.where(scale == 0, shift, values.along(x, channel) * scale + shift)})


def layer_norm(node: Node, values: Values) -> None:
    """Only a masked scale makes the result known: it is the shift then."""
    x, y = _single(node)
    _, weight, bias = node.inputs
    last = len(y.shape) - 1
    if node.attrs["axes"] != (last,):
        return
    gone = values.along(x, last) == 0 if values.allow_inexact else np.zeros(y.shape[last], bool)
    if weight is not None and weight.name in values.masks:
        gone = gone | (values.numbers(weight) == 0)
    values.put(y, {last: np.where(gone, 0.0 if bias is None else values.numbers(bias), np.nan)})


def along(node: Node, values: Values) -> None:
    """Whole slices of zeros may stay zeros, as a group of a GroupNorm; a part of what is normalised does if that may be inexact."""
    x, y = _single(node)
    if node.attrs.get("zeros"):
        within = () if node.attrs.get("normalises") and values.allow_inexact else node.attrs["axes"]
        values.put(y, {axis: np.where(value == 0, 0.0, np.nan) for axis, value in values.of(x).items() if axis not in within})


def pool(node: Node, values: Values) -> None:
    x, y = _single(node)
    known = {axis: value for axis, value in values.of(x).items() if axis not in node.attrs["axes"]}
    if node.attrs["padded"]:
        known = {axis: np.where(value == 0, 0.0, np.nan) for axis, value in known.items()}
    values.put(y, known)


def reduce(node: Node, values: Values) -> None:
    x, y = _single(node)
    gone, function = node.attrs["axes"], node.attrs["function"]
    if function not in ("sum", "mean", "extreme"):
        return
    count = float(np.prod([x.shape[axis] for axis in gone])) if function == "sum" else 1.0
    stay = [axis for axis in range(len(x.shape)) if axis not in gone]
    place = {axis: axis if node.attrs["keepdims"] else number for number, axis in enumerate(stay)}
    values.put(y, {place[axis]: value * count for axis, value in values.of(x).items() if axis in place})


def reshape(node: Node, values: Values) -> None:
    x, y = _single(node)
    known: Known = {}
    for axis, value in values.of(x).items():
        if axis < 0 or x.shape[axis] == 1:
            continue
        known.update(_regrouped(value, x.shape, axis, y.shape))
    values.put(y, known)


def _regrouped(value: Array, before: tuple[int, ...], axis: int, after: tuple[int, ...]) -> Known:
    """Return what a known axis tells of the axes of a row-major regrouping.

    Index i of the old axis covers, in flat order, the block (outer, i, inner); a new index is known where all that it covers has
    one value. Only new axes that overlap the old one are looked at, on a flat array of the smallest common extent.
    """
    inner = int(np.prod(before[axis + 1 :], dtype=int))
    low, high = inner, inner * before[axis]  # the span of strides that the old axis covers
    known: Known = {}
    stride = 1
    for number in range(len(after) - 1, -1, -1):
        size, start = after[number], stride
        stride *= size
        if size == 1 or start >= high or stride <= low:
            continue
        unit, extent = int(np.gcd(low, start)), max(high, stride)
        if extent % high or extent % stride:
            continue
        flat = np.tile(np.repeat(value, low // unit), extent // high).reshape(extent // stride, size, start // unit)
        first = flat[:1, :, :1]
        equal = ((flat == first) | (np.isnan(flat) & np.isnan(first))).all(axis=(0, 2))
        known[number] = np.where(equal, first[0, :, 0], np.nan)
    return known


def transpose(node: Node, values: Values) -> None:
    _carry(node, values, {old: new for new, old in enumerate(node.attrs["permutation"])})


def expand(node: Node, values: Values) -> None:
    x, y = _single(node)
    shift = len(y.shape) - len(x.shape)
    _carry(node, values, {axis: axis + shift for axis, size in enumerate(x.shape) if size == y.shape[axis + shift]})


def repeat(node: Node, values: Values) -> None:
    x, y = _single(node)
    shift = len(y.shape) - len(x.shape)
    values.put(y, {axis + shift: np.tile(v, y.shape[axis + shift] // len(v)) for axis, v in values.of(x).items() if axis >= 0})


def concat(node: Node, values: Values) -> None:
    joined = node.attrs["axis"]
    known = {joined: np.concatenate([values.along(x, joined) for x in node.inputs])}
    values.put(node.outputs[0], known | _agreed(node, values, lambda axis: None if axis == joined else axis))


def stack(node: Node, values: Values) -> None:
    new = node.attrs["axis"]
    values.put(node.outputs[0], _agreed(node, values, lambda axis: axis + (axis >= new)))


def _agreed(node: Node, values: Values, place: Callable[[int], int | None]) -> Known:
    """Return what all inputs know alike, at the output axis `place(input axis)`."""
    known: Known = {}
    first, *rest = node.inputs
    for axis, value in values.of(first).items():
        target = place(axis)
        if target is not None and axis >= 0:
            same = [values.along(x, axis) == value for x in rest]
            known[target] = np.where(np.logical_and.reduce(same) if same else True, value, np.nan)
    return known


def slice_(node: Node, values: Values) -> None:
    x, y = _single(node)
    cut, index = node.attrs["axis"], np.asarray(node.attrs["index"])
    values.put(y, {axis: value[index] if axis == cut else value for axis, value in values.of(x).items()})


def select(node: Node, values: Values) -> None:
    x, _ = _single(node)
    taken = node.attrs["axis"]
    _carry(node, values, {axis: axis - (axis > taken) for axis in range(len(x.shape)) if axis != taken})


def pad(node: Node, values: Values) -> None:
    """What is padded in must equal the constant, or the slice is no longer one constant."""
    x, y = _single(node)
    fill, grown = node.attrs["value"], node.attrs["axes"]
    values.put(y, {axis: np.where(v == fill, v, np.nan) for axis, v in values.of(x).items() if axis not in grown})


def embedding(node: Node, values: Values) -> None:
    _, y = _single(node)
    values.put(y, {len(y.shape) - 1: values.along(node.inputs[1], 1)})


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
    "reshape": reshape,
    "transpose": transpose,
    "expand": expand,
    "repeat": repeat,
    "concat": concat,
    "stack": stack,
    "slice": slice_,
    "select": select,
    "pad": pad,
    "embedding": embedding,
}
