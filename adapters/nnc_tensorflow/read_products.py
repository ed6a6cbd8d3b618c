"""Matrix products, and operations with weights: convolutions, biases, lookups, fused normalisation."""

from __future__ import annotations

from typing import Any

from nnc.graph.einsum import Operand, product
from nnc.graph.ir import Tensor
from nnc_tensorflow.attention import is_attention
from nnc_tensorflow.layouts import LINEAR
from nnc_tensorflow.names import is_ops_take
from nnc_tensorflow.read import Parameter, Reader, Reading, shape_of, static, static_index, unknown
from nnc_tensorflow.read_biases import takes_bias


def mat_mul(reader: Reader, op: Any) -> None:
    """A product with a parameter is a linear layer; the parameter is turned where Keras' own layout does not do."""
    x, weight = op.inputs
    parameter = reader.parameter(weight)
    flags = ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")
    turn_x, turn_weight = (op.get_attr(flag) for flag in flags)
    if parameter is None or turn_x or len(parameter.native) != 2 or parameter.squeezed or reader.parameter(x) is not None:
        _plain_product(reader, op, turn_x, turn_weight)
        return
    out_in = parameter.layout == LINEAR  # the canonical orientation is (out, in) and Keras' is (in, out)
    given = reader.tensor(x)
    canonical = parameter.tensor if out_in != turn_weight else _turned(reader, parameter.tensor)
    reader.emit("linear", op, (given, canonical, None))


def _plain_product(reader: Reader, op: Any, turn_a: bool, turn_b: bool) -> None:
    a, b = (reader.tensor(given) for given in op.inputs)
    reader.emit("matmul", op, (_fixed_width(reader, _turned(reader, a) if turn_a else a), _turned(reader, b) if turn_b else b))


def _fixed_width(reader: Reader, x: Tensor) -> Tensor:
    """Pin what a product within Keras' own attention sums over: the scale of the scores is one number, for that width."""
    if not is_attention(reader.owner):
        return x
    return reader.step("identity", x, x.shape, fixed=(len(x.shape) - 1,))


def einsum(reader: Reader, op: Any) -> None:
    """A product of two operands, between transposes and reshapes."""
    found = product(op.get_attr("equation").decode(), [shape_of(given) for given in op.inputs])
    if found is None:
        unknown(reader, op)
        return
    a, b = (reader.tensor(given) for given in op.inputs)
    sides = _fixed_width(reader, _arranged(reader, a, found.left)), _arranged(reader, b, found.right)
    spread = reader.step("reshape", reader.join("matmul", sides, found.product), found.split)
    reader.values[op.outputs[0].ref()] = reader.step("transpose", spread, found.shape, permutation=found.permutation)


def _arranged(reader: Reader, x: Tensor, way: Operand) -> Tensor:
    """Return an operand as (*batch, rows, columns)."""
    return reader.step("reshape", reader.step("transpose", x, way.turned, permutation=way.permutation), way.shape)


def _turned(reader: Reader, x: Tensor) -> Tensor:
    """Emit a transpose of the last two axes."""
    rank = len(x.shape)
    order = (*range(rank - 2), rank - 1, rank - 2)
    return reader.step("transpose", x, tuple(x.shape[axis] for axis in order), permutation=order)


def conv(reader: Reader, op: Any) -> None:
    x, weight = op.inputs
    channel = _channel_axis(op)
    parameter = reader.parameter(weight)
    kernel, out = shape_of(weight), shape_of(op.outputs[0])
    depthwise = op.type == "DepthwiseConv2dNative"
    given = reader.tensor(x)
    if parameter is not None and _fits(parameter, depthwise):
        canonical = parameter.tensor
    else:
        canonical = _canonical(reader, reader.tensor(weight), depthwise)
    groups = given.shape[channel] // (1 if depthwise else kernel[-2])
    attrs = {"channel_axis": channel, "groups": groups, "padded": _padded(op, given.shape, kernel, out, channel), "transposed": False}
    reader.emit("conv", op, (given, canonical, None), attrs)


def _fits(parameter: Parameter, depthwise: bool) -> bool:
    """Tell whether a convolution's kernel is this parameter as it is: its layout is a kernel's, but for axes of size 1."""
    rank = len(parameter.native)
    order = (rank - 2, rank - 1) if depthwise else (rank - 1, rank - 2)
    tail = parameter.view[-2:] == parameter.native[-2:]
    return rank > 2 and tail and parameter.layout.depthwise == depthwise and parameter.layout.permutation[:2] == order


def _canonical(reader: Reader, kernel: Tensor, depthwise: bool) -> Tensor:
    """Emit the way from TensorFlow's layout of a kernel to the canonical orientation."""
    rank = len(kernel.shape)
    order = (rank - 2, rank - 1, *range(rank - 2)) if depthwise else (rank - 1, rank - 2, *range(rank - 2))
    shape = tuple(kernel.shape[axis] for axis in order)
    turned = reader.step("transpose", kernel, shape, permutation=order)
    return reader.step("reshape", turned, (shape[0] * shape[1], 1, *shape[2:])) if depthwise else turned


def conv_transposed(reader: Reader, op: Any) -> None:
    """Conv2DBackpropInput(sizes, kernel (*k, out, in), x): what Keras calls a transposed convolution."""
    _, weight, x = op.inputs
    parameter, rank = reader.parameter(weight), len(shape_of(weight))
    given, channel = reader.tensor(x), _channel_axis(op)
    width = len(parameter.native) if parameter else 0
    if parameter is not None and parameter.layout.permutation[:2] == (width - 2, width - 1) and not parameter.layout.depthwise:
        canonical = parameter.tensor
    else:
        kernel = reader.tensor(weight)
        order = (rank - 2, rank - 1, *range(rank - 2))
        canonical = reader.step("transpose", kernel, tuple(kernel.shape[axis] for axis in order), permutation=order)
    attrs = {"channel_axis": channel, "groups": given.shape[channel] // canonical.shape[1], "padded": True, "transposed": True}
    reader.emit("conv", op, (given, canonical, None), attrs)


def _channel_axis(op: Any) -> int:
    """Return the channel axis of the operation's data format."""
    return op.get_attr("data_format").decode().index("C")


def _padded(op: Any, x: tuple[int, ...], kernel: tuple[int, ...], out: tuple[int, ...], channel: int) -> bool:
    """Tell whether SAME padding, or explicit padding, really adds something for these sizes."""
    padding = op.get_attr("padding").decode()
    if padding == "EXPLICIT":
        return any(op.get_attr("explicit_paddings"))
    if padding == "VALID":
        return False
    strides, dilations = op.get_attr("strides"), op.get_attr("dilations")
    spatial = [axis for axis in range(1, len(x)) if axis != channel]
    return any((out[a] - 1) * strides[a] + (kernel[n] - 1) * dilations[a] + 1 > x[a] for n, a in enumerate(spatial))


def bias_add(reader: Reader, op: Any) -> None:
    """A vector added along the channels: from the right where they come last, else as (C, 1, 1)."""
    if takes_bias(reader, op):
        return
    x, bias = (reader.tensor(given) for given in op.inputs)
    behind = len(x.shape) - 2 if op.get_attr("data_format") == b"NCHW" else 0
    if behind:
        bias = reader.step("reshape", bias, (*bias.shape, *(1,) * behind))
    reader.emit("binary", op, (x, bias), {"function": "add"}, _add)


def _add(a: Any, b: Any) -> Any:
    return a + b


def lookup(reader: Reader, op: Any) -> None:
    """GatherV2 and ResourceGather: rows of a table are an embedding; a constant index along an axis is a slice."""
    table, indices = op.inputs[0], op.inputs[1]
    axis = int(static(op.inputs[2])) if len(op.inputs) > 2 else 0  # type: ignore[arg-type]
    parameter, known, places = reader.parameter(table), static(indices), static_index(indices)
    theirs = is_ops_take(reader.owner) or reader.recording.source(op) is not None
    if axis == 0 and len(parameter.view if parameter else shape_of(table)) == 2 and known is None:
        reader.emit("embedding", op, (reader.tensor(indices), reader.tensor(table)))
    elif op.type == "GatherV2" and op.get_attr("batch_dims"):
        unknown(reader, op)
    elif known is None and places is not None and not (theirs and places.ndim == 1):
        # ops.take with places that nobody can change: that axis stays, and the others are free.
        reader.emit("pool", op, (reader.tensor(table),), {"axes": (axis % len(shape_of(table)),), "function": "max", "padded": False})
    elif places is None:
        unknown(reader, op)
    elif places.ndim == 1:
        index = places % shape_of(table)[axis]
        attrs = {"sizes": tuple(index.tolist()), "looked_up": True} if theirs else {}
        reader.emit("slice", op, (reader.tensor(table),), {"axis": axis % len(shape_of(table)), "index": index, **attrs})
    elif known is not None and known.ndim == 0:
        reader.emit("select", op, (reader.tensor(table),), {"axis": axis % len(shape_of(table)), "index": int(known)})
    else:
        unknown(reader, op)


def fused_batch_norm(reader: Reader, op: Any) -> None:
    """In inference the statistics are the moving ones; in training they are the batch's, which no rule covers."""
    if op.get_attr("is_training"):
        unknown(reader, op)
        return
    attrs = {"channel_axis": _channel_axis(op), "epsilon": op.get_attr("epsilon")}
    out = op.outputs[0]
    reader.emit_part("batch_norm", [reader.tensor(given) for given in op.inputs], out, attrs)


READINGS: dict[str, Reading] = {
    "MatMul": mat_mul,
    "BatchMatMulV2": mat_mul,
    "Einsum": einsum,
    "Conv2D": conv,
    "Conv3D": conv,
    "DepthwiseConv2dNative": conv,
    "Conv2DBackpropInput": conv_transposed,
    "Conv3DBackpropInputV2": conv_transposed,
    "BiasAdd": bias_add,
    "BiasAddV1": bias_add,
    "GatherV2": lookup,
    "ResourceGather": lookup,
    "FusedBatchNormV3": fused_batch_norm,
    "FusedBatchNormV2": fused_batch_norm,
}
