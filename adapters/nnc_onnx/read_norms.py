"""Normalisations over positions and over groups of channels, as the steps that they are: seen in blocks, normalised, scaled, shifted."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from nnc.graph.ir import Tensor, constant
from nnc_onnx.read import Reader, Reading, unknown


def instance_norm(reader: Reader, node: NodeProto) -> None:
    """Each channel is normalised by itself. A scale that the file writes as ones, or zeros as shift, is as long as there are channels."""
    x = reader.tensor(node.input[0])
    vectors = [_vector(reader, name, x) for name in node.input[1:3]]
    if any(vector is None for vector in vectors):
        unknown(reader, node)
        return
    written = all(reader.static(name) is not None for name in node.input[1:3])
    value = _normalised(reader, x, tuple(range(2, len(x.shape))), **({"sizes": x.shape} if written else {}))
    _scaled(reader, node, value, vectors)


def group_norm(reader: Reader, node: NodeProto) -> None:
    """Since opset 21 scale and shift are one number a channel; before, one a group, which is not read."""
    x, groups = reader.tensor(node.input[0]), reader.attributes(node)["num_groups"]
    batch, channels, *rest = x.shape
    if any(reader.view(name) is None or reader.shape(name) != (channels,) for name in node.input[1:3]):
        unknown(reader, node)
        return
    split = (batch, groups, channels // groups, *rest)
    blocks = reader.step("reshape", x, split, sizes=split)
    mixed = _normalised(reader, blocks, tuple(range(2, len(split))))
    joined = reader.step("reshape", mixed, x.shape)
    _scaled(reader, node, joined, [_vector(reader, name, x) for name in node.input[1:3]])


def _normalised(reader: Reader, x: Tensor, axes: tuple[int, ...], **attrs: object) -> Tensor:
    return reader.step("along", x, x.shape, axes=axes, normalises=True, zeros=True, **attrs)


def _vector(reader: Reader, name: str, x: Tensor) -> Tensor | None:
    """Return a scale or shift in a shape that broadcasts, a number for one that is the same throughout; None for any other constant."""
    value = reader.static(name)
    if value is None:
        vector = reader.tensor(name)
        return reader.step("reshape", vector, (1, x.shape[1], *(1 for _ in x.shape[2:])))
    return constant(np.float32(value.flat[0])) if (value == value.flat[0]).all() else None


def _scaled(reader: Reader, node: NodeProto, value: Tensor, vectors: list[Tensor | None]) -> None:
    """Emit value * scale + shift."""
    scale, shift = vectors
    product = reader.join("binary", (value, scale), value.shape, evaluate=lambda a, b: a * b, function="mul")
    reader.emit("binary", node.output[0], (product, shift), {"function": "add"}, lambda a, b: a + b)


READINGS: dict[str, Reading] = {"InstanceNormalization": instance_norm, "GroupNormalization": group_norm}
