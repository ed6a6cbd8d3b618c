"""A layer's own bias, which Keras adds in an operation of its own, as the third input of the layer's convolution or product.

So a layer has the same operations with a bias and without one, as one that is given a bias for a constant that was folded into it.
"""

from __future__ import annotations

from typing import Any

from nnc.graph.ir import Node, Shape
from nnc_tensorflow.read import Parameter, Reader, shape_of


def takes_bias(reader: Reader, op: Any) -> bool:
    """Join a sum with the weighted sum right before it, where it adds that layer's bias along the outputs. False where it does not."""
    given, bias = op.inputs[0], reader.parameter(op.inputs[1])
    if bias is None:
        return False
    node = _weighted_sum(reader, given)
    if node is None or not _is_bias_of(bias, node) or not _along_outputs(op, bias, node, shape_of(given)):
        return False
    node.inputs = (*node.inputs[:2], bias.tensor)
    reader.alias(op)
    return True


def _weighted_sum(reader: Reader, given: Any) -> Node | None:
    """Return the node without a bias that makes a tensor, regrouped or as it is, if nothing else reads its result."""
    wanted = reader.values.get(given.ref())
    for node in reversed(reader.graph.nodes[-2:]):
        if node.outputs[0] is not wanted or len(given.consumers()) != 1:
            return None
        if node.kind != "reshape":
            return node if node.kind in ("linear", "conv") and node.inputs[2] is None else None
        wanted, given = node.inputs[0], given.op.inputs[0]
    return None


def _is_bias_of(bias: Parameter, node: Node) -> bool:
    weight = node.inputs[1]
    assert weight is not None
    named = weight.role == "parameter" and weight.name.endswith("weight")
    return named and bias.tensor.name == weight.name.removesuffix("weight") + "bias" and bias.tensor.shape == weight.shape[:1]


def _along_outputs(op: Any, bias: Parameter, node: Node, shape: Shape) -> bool:
    """Tell whether a bias runs along the output channels of `shape`: (heads, dim) of (..., heads, dim), or in the channels' place."""
    made = node.outputs[0].shape
    channel = node.attrs.get("channel_axis", len(made) - 1)
    if op.type in ("BiasAdd", "BiasAddV1") and op.get_attr("data_format") == b"NCHW":
        return channel == 1 and shape == made
    view = (*(1,) * (len(shape) - len(bias.view)), *bias.view)  # as it broadcasts
    if channel == len(made) - 1:
        own = len(bias.native)
        return len(view) == len(shape) and view[-own:] == shape[-own:] == bias.native and all(size == 1 for size in view[:-own])
    return shape == made and view == tuple(size if axis == channel else 1 for axis, size in enumerate(shape))
