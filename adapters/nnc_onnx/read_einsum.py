"""Einsum, taken apart into transposes, reshapes and one matrix product."""

from __future__ import annotations

from onnx import NodeProto

from nnc.graph.einsum import Operand, product
from nnc.graph.ir import Tensor
from nnc_onnx.read import Reader, Reading, unknown


def einsum(reader: Reader, node: NodeProto) -> None:
    inputs = [reader.tensor(name) for name in node.input]
    found = product(reader.attributes(node)["equation"].decode(), [x.shape for x in inputs])
    if found is None:
        unknown(reader, node)
        return
    rows, columns = (_seen(reader, x, way) for x, way in zip(inputs, (found.left, found.right), strict=True))
    split = _regrouped(reader, reader.join("matmul", (rows, columns), found.product), found.split)
    reader.emit("transpose", node.output[0], (split,), {"permutation": found.permutation})


def _seen(reader: Reader, x: Tensor, way: Operand) -> Tensor:
    """Return an operand as (*batch, rows, columns)."""
    if way.permutation != tuple(range(len(way.permutation))):
        x = reader.step("transpose", x, way.turned, permutation=way.permutation)
    return _regrouped(reader, x, way.shape)


def _regrouped(reader: Reader, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return reader.step("reshape", x, shape) if x.shape != shape else x


READINGS: dict[str, Reading] = {"Einsum": einsum}
