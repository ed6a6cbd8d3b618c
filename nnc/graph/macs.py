"""Multiply-accumulate operations of a traced forward pass: what convolutions, linear layers and matrix products need."""

from __future__ import annotations

from math import prod

from nnc.graph.ir import Graph, Node


def macs(graph: Graph) -> int:
    """Return the multiply-accumulates of one forward pass over the whole batch; biases and elementwise work are not counted."""
    return sum(_of(node) for node in graph.nodes)


def _of(node: Node) -> int:
    x, y = node.inputs[0] if node.inputs else None, node.outputs[0]
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if x is None or weight is None:
        return 0
    if node.kind == "linear":
        return prod(y.shape) * weight.shape[1]
    if node.kind == "conv":
        # A transposed convolution spends one kernel per input position, the others one per output position.
        positions = prod(x.shape) // x.shape[node.attrs["channel_axis"]] * weight.shape[0] if node.attrs["transposed"] else prod(y.shape)
        return positions * prod(weight.shape[1:])
    if node.kind == "matmul":
        return prod(y.shape) * x.shape[-1]
    return 0
