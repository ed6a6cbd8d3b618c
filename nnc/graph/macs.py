"""Multiply-accumulate operations of a traced forward pass: what convolutions, linear layers and matrix products need."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from nnc.graph.ir import Graph, Node, Shape, Tensor


def macs(graph: Graph, shapes: Mapping[Tensor, Shape] | None = None) -> int:
    """Return the multiply-accumulates of one forward pass over the whole batch; biases and elementwise work are not counted.

    `shapes` are the tensors' shapes where they are not the recorded ones.
    """
    return sum(_of(node, shapes or {}) for node in graph.nodes)


def _of(node: Node, shapes: Mapping[Tensor, Shape]) -> int:
    if node.kind == "recurrent":
        return _of_recurrent(node, shapes)
    x, weight = (*node.inputs, None, None)[:2]
    if x is None or weight is None or node.kind not in ("linear", "conv", "matmul"):
        return 0
    given, kernel, result = (shapes.get(tensor, tensor.shape) for tensor in (x, weight, node.outputs[0]))
    if node.kind == "linear":
        return prod(result) * kernel[1]
    if node.kind == "matmul":
        return prod(result) * given[-1]
    # A transposed convolution spends one kernel per input position, the others one per output position.
    positions = prod(given) // given[node.attrs["channel_axis"]] * kernel[0] if node.attrs["transposed"] else prod(result)
    return positions * prod(kernel[1:])


def _of_recurrent(node: Node, shapes: Mapping[Tensor, Shape]) -> int:
    """Each step of each sequence spends both of the weights once."""
    x, weight, *_, recurrent_weight, _ = node.inputs
    assert x is not None and weight is not None and recurrent_weight is not None
    given, *weights = (shapes.get(tensor, tensor.shape) for tensor in (x, weight, recurrent_weight))
    return prod(given[:-1]) * sum(map(prod, weights))
