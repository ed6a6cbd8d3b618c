"""Operations on numbers: functions of each element, of pairs of elements, reductions, pools and what mixes along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnc.graph.ir import constant
from nnc.graph.values import same
from nnc_tensorflow.read import Reader, Reading, evaluation, shape_of, static, unknown
from nnc_tensorflow.read_biases import takes_bias

_FUNCTIONS = """
    Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Digamma Elu Erf Erfc Erfinv Exp Expm1 Floor Inv IsFinite IsInf IsNan LeakyRelu
    Lgamma Log Log1p LogicalNot Neg OnesLike Reciprocal Relu Relu6 Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt
    Square Tan Tanh ZerosLike"""
_PAIRS = """
    Atan2 DivNoNan Equal FloorDiv FloorMod Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr Maximum Minimum Mod NotEqual Pow
    SquaredDifference Xdivy Xlogy"""
_POINTWISE = tuple(_FUNCTIONS.split())
_BINARY = {"AddV2": "add", "Add": "add", "Sub": "sub", "Mul": "mul", "RealDiv": "div", "Div": "div"} | dict.fromkeys(
    _PAIRS.split(), "other"
)
_REDUCTIONS = {"Mean": "mean", "Sum": "sum", "Max": "extreme", "Min": "extreme"}
_REDUCTIONS |= dict.fromkeys(("Prod", "All", "Any", "EuclideanNorm"), "other")


def identity(reader: Reader, op: Any) -> None:
    """A copy or a cast of a parameter is the parameter; of a mask, the mask."""
    if reader.is_mask(op.inputs[0]):
        reader.note_mask(op.outputs[0])
    elif reader.parameter(op.inputs[0]) is not None:
        reader.alias(op)
    else:
        reader.emit("identity", op, (reader.tensor(op.inputs[0]),))


def identities(reader: Reader, op: Any) -> None:
    """IdentityN: one copy for each pair; Keras' swish is such a one, for its gradient."""
    for given, out in zip(op.inputs, op.outputs, strict=True):
        reader.emit_part("identity", (reader.tensor(given),), out, {})


def pointwise(reader: Reader, op: Any) -> None:
    reader.emit("pointwise", op, (reader.tensor(op.inputs[0]),), evaluate=evaluation(op))


def binary(reader: Reader, op: Any) -> None:
    """The product of a parameter with its mask is the parameter, whose numbers are read masked."""
    if op.type == "Mul" and any(reader.is_mask(given) for given in op.inputs):
        parameter = next(given for given in op.inputs if not reader.is_mask(given))
        reader.values[op.outputs[0].ref()] = reader.values[parameter.ref()]
        return
    if _BINARY[op.type] == "add" and takes_bias(reader, op):
        return
    given = [reader.tensor(value) for value in op.inputs]
    reader.emit("binary", op, given, {"function": _BINARY[op.type]}, evaluation(op))


def choice(reader: Reader, op: Any) -> None:
    """SelectV2(condition, a, b): three operands that broadcast, as two pairs. What a and b agree on is the result."""
    condition, a, b = (reader.tensor(given) for given in op.inputs)
    both = reader.join("binary", (a, b), np.broadcast_shapes(a.shape, b.shape), same, function="other")
    reader.emit("binary", op, (both, condition), {"function": "guarded"})


def filled(reader: Reader, op: Any) -> None:
    """Fill(shape, number): what `zeros_like` makes, as a constant; a small one TensorFlow writes down itself."""
    sizes, number = static(op.inputs[0]), static(op.inputs[1])
    if sizes is None or number is None:
        unknown(reader, op)
        return
    reader.values[op.outputs[0].ref()] = constant(np.broadcast_to(number, sizes))


def reduction(reader: Reader, op: Any) -> None:
    axes, rank = static(op.inputs[1]), len(shape_of(op.inputs[0]))
    if axes is None:
        unknown(reader, op)
        return
    gone = tuple(sorted({int(axis) % rank for axis in np.atleast_1d(axes)})) if rank else ()
    attrs = {"axes": gone, "keepdims": bool(op.get_attr("keep_dims")), "function": _REDUCTIONS[op.type]}
    reader.emit("reduce", op, (reader.tensor(op.inputs[0]),), attrs)


def position_of_extreme(reader: Reader, op: Any) -> None:
    """ArgMax and ArgMin: a reduction to positions."""
    axis, rank = static(op.inputs[1]), len(shape_of(op.inputs[0]))
    if axis is None:
        unknown(reader, op)
        return
    attrs = {"axes": (int(axis) % rank,), "keepdims": False, "function": "other"}
    reader.emit("reduce", op, (reader.tensor(op.inputs[0]),), attrs)


def pool(reader: Reader, op: Any) -> None:
    """TensorFlow leaves padding out of an average and takes it as -inf in a maximum, so no zeros are ever counted in."""
    channel = op.get_attr("data_format").decode().index("C")
    axes = tuple(axis for axis in range(1, len(shape_of(op.inputs[0]))) if axis != channel)
    sizes, strides = op.get_attr("ksize"), op.get_attr("strides")
    if sizes[channel] != 1 or strides[channel] != 1 or sizes[0] != 1:
        unknown(reader, op)
        return
    function = "max" if op.type.startswith("Max") else "average"
    reader.emit("pool", op, (reader.tensor(op.inputs[0]),), {"axes": axes, "function": function, "padded": False})


def softmax(reader: Reader, op: Any) -> None:
    last = len(shape_of(op.inputs[0])) - 1
    reader.emit("along", op, (reader.tensor(op.inputs[0]),), {"axes": (last,)})


def along_given(reader: Reader, op: Any) -> None:
    """Cumsum, ReverseV2 and Roll: the last input names the axes."""
    axes, rank = static(op.inputs[-1]), len(shape_of(op.inputs[0]))
    if axes is None:
        unknown(reader, op)
        return
    attrs = {"axes": tuple(int(axis) % rank for axis in np.atleast_1d(axes)), "zeros": True}
    reader.emit("along", op, (reader.tensor(op.inputs[0]),), attrs)


READINGS: dict[str, Reading] = {
    **dict.fromkeys(("Identity", "StopGradient", "Cast", "PreventGradient", "Snapshot", "CheckNumerics", "EnsureShape"), identity),
    **dict.fromkeys(_POINTWISE, pointwise),
    **dict.fromkeys(_BINARY, binary),
    **dict.fromkeys(_REDUCTIONS, reduction),
    **dict.fromkeys(("ArgMax", "ArgMin"), position_of_extreme),
    **dict.fromkeys(("MaxPool", "MaxPool3D", "AvgPool", "AvgPool3D"), pool),
    **dict.fromkeys(("Softmax", "LogSoftmax"), softmax),
    **dict.fromkeys(("Cumsum", "Cumprod", "ReverseV2", "Roll"), along_given),
    "Fill": filled,
    "IdentityN": identities,
    "SelectV2": choice,
}
