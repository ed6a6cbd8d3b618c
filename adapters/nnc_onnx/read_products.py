"""Operations with weights: matrix products, convolutions, lookups, normalisation."""

from __future__ import annotations

from onnx import NodeProto

from nnc.graph.ir import Tensor
from nnc_onnx.read import Reader, Reading, unknown


def mat_mul(reader: Reader, node: NodeProto) -> None:
    """A product with a stored matrix is a linear layer, with the bias that the next node adds."""
    a, b = node.input
    if min(len(reader.shape(a)), len(reader.shape(b))) < 2:
        unknown(reader, node)
    elif reader.view(b) is None or len(reader.shape(b)) != 2 or reader.view(a) is not None:
        reader.emit("matmul", node.output[0], (reader.tensor(a), reader.tensor(b)))
    else:
        bias = reader.bias_of(node)
        weight = _out_in(reader, b, turned=False)
        reader.emit("linear", reader.made_by(node), (reader.tensor(a), weight, reader.bias(bias)))


def _out_in(reader: Reader, name: str, turned: bool) -> Tensor:
    """Return a weight as (out, in), which is how it lies where `turned`, else (in, out)."""
    view = reader.view(name)
    if view is not None:
        parameter, slot = reader.parameter(view.tensor)
        if (slot.groups == 1) != ((view.order == (1, 0)) != turned):
            return parameter
    tensor = reader.tensor(name)
    return tensor if turned else _turned(reader, tensor)


def _turned(reader: Reader, x: Tensor) -> Tensor:
    return reader.step("transpose", x, x.shape[::-1], permutation=(1, 0))


def gemm(reader: Reader, node: NodeProto) -> None:
    given = reader.attributes(node)
    if given.get("transA") or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
        unknown(reader, node)
        return
    weight = _out_in(reader, node.input[1], turned=bool(given.get("transB")))
    x, bias = reader.tensor(node.input[0]), reader.given(node, 2)
    added = reader.bias(bias)
    if added is None or added.shape == weight.shape[:1]:
        reader.emit("linear", node.output[0], (x, weight, added))
    else:
        product = reader.join("linear", (x, weight, None), (x.shape[0], weight.shape[0]))
        reader.emit("binary", node.output[0], (product, added), {"function": "add"}, _add)


def _add(a: object, b: object) -> object:
    return a + b  # type: ignore[operator]


def conv(reader: Reader, node: NodeProto) -> None:
    given, bias = reader.attributes(node), reader.given(node, 2)
    padded = any(given.get("pads", ())) or given.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")
    attrs = {"channel_axis": 1, "groups": given.get("group", 1), "padded": padded, "transposed": False}
    inputs = (reader.tensor(node.input[0]), reader.tensor(node.input[1]), reader.bias(bias))
    reader.emit("conv", node.output[0], inputs, attrs)


def conv_transposed(reader: Reader, node: NodeProto) -> None:
    """The kernel lies as (in, out / groups, *kernel)."""
    groups, view, bias = reader.attributes(node).get("group", 1), reader.view(node.input[1]), reader.given(node, 2)
    parameter, slot = reader.parameter(view.tensor) if view else (None, None)
    if slot is not None and slot.groups == groups:
        weight = parameter
    elif groups == 1:
        native = reader.tensor(node.input[1])
        order = (1, 0, *range(2, len(native.shape)))
        weight = reader.step("transpose", native, tuple(native.shape[axis] for axis in order), permutation=order)
    else:
        unknown(reader, node)
        return
    attrs = {"channel_axis": 1, "groups": groups, "padded": True, "transposed": True}
    reader.emit("conv", node.output[0], (reader.tensor(node.input[0]), weight, reader.bias(bias)), attrs)


def batch_norm(reader: Reader, node: NodeProto) -> None:
    given = reader.attributes(node)
    if given.get("training_mode"):
        unknown(reader, node)
        return
    attrs = {"channel_axis": 1, "epsilon": given.get("epsilon", 1e-5)}
    reader.emit("batch_norm", node.output[0], [reader.tensor(name) for name in node.input], attrs)


def layer_norm(reader: Reader, node: NodeProto) -> None:
    x = reader.tensor(node.input[0])
    rank = len(x.shape)
    axes = tuple(range(reader.attributes(node).get("axis", -1) % rank, rank))
    vectors = [reader.tensor(name) if name else None for name in (reader.given(node, 1), reader.given(node, 2))]
    if any(vector is not None and len(vector.shape) != len(axes) for vector in vectors):
        unknown(reader, node)
    else:
        reader.emit("layer_norm", node.output[0], (x, *vectors), {"axes": axes})


def gather(reader: Reader, node: NodeProto) -> None:
    """Rows of a table are an embedding, one index of an axis is a select, a vector of them that the file fixes a slice."""
    table, indices = (reader.tensor(name) for name in node.input)
    known, axis = reader.static(node.input[1]), reader.attributes(node).get("axis", 0) % max(1, len(table.shape))
    if known is not None and known.ndim == 0:
        reader.emit("select", node.output[0], (table,), {"axis": axis, "index": int(known) % table.shape[axis]})
    elif known is not None and known.ndim == 1 and known.size and not (axis == 0 and len(table.shape) == 2 and reader.view(node.input[0])):
        index = known % table.shape[axis]
        reader.emit("slice", node.output[0], (table,), {"axis": axis, "index": index, "sizes": tuple(index.tolist()), "looked_up": True})
    elif axis == 0 and len(table.shape) == 2:
        reader.emit("embedding", node.output[0], (indices, table))
    else:
        unknown(reader, node)


READINGS: dict[str, Reading] = {
    "MatMul": mat_mul,
    "Gemm": gemm,
    "Conv": conv,
    "ConvTranspose": conv_transposed,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": layer_norm,
    "Gather": gather,
}
