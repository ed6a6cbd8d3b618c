"""Operations on numbers: functions of each element, of pairs of elements, reductions, pools and what mixes along an axis."""

from __future__ import annotations

from functools import partial

import numpy as np
from onnx import NodeProto

from nnc.graph.values import same
from nnc_onnx.read import Reader, Reading, unknown

_POINTWISE = """
    Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Clip Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish IsInf LeakyRelu Log
    Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"""
_PAIRS = "And BitShift Equal Greater GreaterOrEqual Less LessOrEqual Mod Or PRelu Pow Xor"
_BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"} | dict.fromkeys(_PAIRS.split(), "other")
_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"


def identity(reader: Reader, node: NodeProto) -> None:
    reader.emit("identity", node.output[0], (reader.tensor(node.input[0]),))


def pointwise(reader: Reader, node: NodeProto) -> None:
    """A function of each element; bounds, as Clip's, must be constants."""
    if all(reader.static(name) is not None for name in node.input[1:] if name):
        reader.emit("pointwise", node.output[0], (reader.tensor(node.input[0]),), evaluate=reader.evaluation(node, 0))
    else:
        unknown(reader, node)


def fast_gelu(reader: Reader, node: NodeProto) -> None:
    """ONNX Runtime's approximation of GELU; with a bias of its own it is not the same function on every channel."""
    (unknown if reader.given(node, 1) else pointwise)(reader, node)


def is_nan(reader: Reader, node: NodeProto) -> None:
    """Exporters guard a softmax with Where(IsNaN(p), 0, p); the test is only recorded where something else reads it."""
    reader.later[node.output[0]] = partial(pointwise, reader, node)
    reader.nan_tests[node.output[0]] = node.input[0]


def binary(reader: Reader, node: NodeProto) -> None:
    inputs = [reader.tensor(name) for name in node.input]
    attrs = {"function": _BINARY.get(node.op_type, "other")}
    reader.emit("binary", node.output[0], inputs, attrs, reader.evaluation(node, 0, 1))


def variadic(reader: Reader, node: NodeProto) -> None:
    """Max, Min and Sum of several: pair by pair."""
    if len(node.input) == 1:
        identity(reader, node)
        return
    first, *rest = (reader.tensor(name) for name in node.input)
    for other in rest[:-1]:
        first = reader.join("binary", (first, other), np.broadcast_shapes(first.shape, other.shape), function="other")
    attrs = {"function": "add" if node.op_type == "Sum" else "other"}
    evaluate = reader.evaluation(node, 0, 1) if len(node.input) == 2 else None
    reader.emit("binary", node.output[0], (first, rest[-1]), attrs, evaluate)


def choice(reader: Reader, node: NodeProto) -> None:
    """Where(condition, a, b): three operands that broadcast, as two pairs; what a and b agree on is the result.

    Where(IsNaN(x), 0, x) is a function of x alone.
    """
    condition, replacement, otherwise = node.input
    if reader.nan_tests.get(condition) == otherwise and reader.static(replacement) is not None and not reader.shape(replacement):
        value = float(reader.statics[replacement])
        reader.emit("pointwise", node.output[0], (reader.tensor(otherwise),), evaluate=lambda x: np.where(np.isnan(x), value, x))
        return
    test, a, b = (reader.tensor(name) for name in node.input)
    both = reader.join("binary", (a, b), np.broadcast_shapes(a.shape, b.shape), same, function="other")
    reader.emit("binary", node.output[0], (both, test), {"function": "guarded"})


def reduction(reader: Reader, node: NodeProto) -> None:
    """The axes are an input, or an attribute in older opsets."""
    given, x = reader.attributes(node), reader.tensor(node.input[0])
    named = reader.given(node, 1)
    axes = reader.static(named) if named else np.asarray(given.get("axes", ()), int)
    if axes is None:
        unknown(reader, node)
        return
    rank = len(x.shape)
    gone = tuple(sorted({int(axis) % rank for axis in axes.ravel()})) if rank else ()
    if not axes.size and not given.get("noop_with_empty_axes"):
        gone = tuple(range(rank))
    function = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "extreme", "ReduceMin": "extreme"}.get(node.op_type, "other")
    reader.emit("reduce", node.output[0], (x,), {"axes": gone, "keepdims": bool(given.get("keepdims", 1)), "function": function})


def position_of_extreme(reader: Reader, node: NodeProto) -> None:
    """ArgMax and ArgMin: a reduction to positions."""
    given, x = reader.attributes(node), reader.tensor(node.input[0])
    attrs = {"axes": (given.get("axis", 0) % len(x.shape),), "keepdims": bool(given.get("keepdims", 1)), "function": "other"}
    reader.emit("reduce", node.output[0], (x,), attrs)


def global_pool(reader: Reader, node: NodeProto) -> None:
    x = reader.tensor(node.input[0])
    function = "mean" if node.op_type == "GlobalAveragePool" else "extreme"
    reader.emit("reduce", node.output[0], (x,), {"axes": tuple(range(2, len(x.shape))), "keepdims": True, "function": function})


def pool(reader: Reader, node: NodeProto) -> None:
    if len([name for name in node.output if name]) > 1:
        unknown(reader, node)
        return
    given, x = reader.attributes(node), reader.tensor(node.input[0])
    padded = bool(given.get("count_include_pad")) and any(given.get("pads", ()))
    function = "average" if node.op_type == "AveragePool" else "max"
    reader.emit("pool", node.output[0], (x,), {"axes": tuple(range(2, len(x.shape))), "function": function, "padded": padded})


def along(reader: Reader, node: NodeProto) -> None:
    x = reader.tensor(node.input[0])
    reader.emit("along", node.output[0], (x,), {"axes": (reader.attributes(node).get("axis", -1) % len(x.shape),)})


def cumulative(reader: Reader, node: NodeProto) -> None:
    x, axis = reader.tensor(node.input[0]), reader.static(node.input[1])
    if axis is None:
        unknown(reader, node)
    else:
        reader.emit("along", node.output[0], (x,), {"axes": (int(axis.item()) % len(x.shape),)})


READINGS: dict[str, Reading] = {
    **dict.fromkeys(("Identity", "Dropout", "Cast", "CastLike"), identity),
    **dict.fromkeys(_POINTWISE.split(), pointwise),
    **{f"com.microsoft.{name}": pointwise for name in ("Gelu", "QuickGelu")},
    "com.microsoft.FastGelu": fast_gelu,
    **dict.fromkeys(_BINARY, binary),
    **dict.fromkeys(("Max", "Min", "Sum"), variadic),
    **{f"Reduce{name}": reduction for name in _REDUCTIONS.split()},
    **dict.fromkeys(("ArgMax", "ArgMin"), position_of_extreme),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), global_pool),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), along),
    "CumSum": cumulative,
    "IsNaN": is_nan,
    "Where": choice,
}
