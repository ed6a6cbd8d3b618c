"""Runs a graph in NumPy, masked or shrunk: an independent answer to what the plan promises."""

from __future__ import annotations

import numpy as np

from nnc.graph.ir import Array, Graph, Tensor
from nnc.graph.propagate import Propagation


def run(graph: Graph, parameters: dict[str, Array], inputs: list[Array], shapes: list | None = None) -> list[Array]:
    """Return the graph's outputs; `shapes` are each node's output shapes where they are not the recorded ones."""
    known: dict[Tensor, Array] = dict(zip(graph.inputs, inputs, strict=True))
    for number, node in enumerate(graph.nodes):
        given = [None if t is None else known[t] if t in known else parameters[t.name] if t.name else t.data() for t in node.inputs]
        if node.kind in ("linear", "conv") and given[2] is None:
            given[2] = parameters.get(f"{node.layer}.bias")  # one that a fold has made
        known[node.outputs[0]] = OPERATIONS[node.kind](node, shapes[number][0] if shapes else node.outputs[0].shape, *given)
    return [known[tensor] for tensor in graph.outputs]


def masked_parameters(graph: Graph, masks: dict) -> dict[str, Array]:
    numbers = {name: np.array(tensor.data()) for name, tensor in graph.parameters().items()}
    for layer, given in masks.items():
        for name, mask in given.items():
            numbers[f"{layer}.{name}"] *= mask
    return numbers


def shrunk_parameters(graph: Graph, masks: dict, found: Propagation) -> dict[str, Array]:
    numbers = masked_parameters(graph, masks)
    for path, addend in found.folds.items():
        numbers[path] = numbers.get(path, 0) + addend
    shapes = {name: array.shape for name, array in numbers.items()}
    for name, axes in found.plan.kept_indices(shapes).items():
        for axis, kept in axes.items():
            numbers[name] = np.take(numbers[name], kept, axis)
    return numbers


def _linear(node, shape, x, w, b):
    return x @ w.T + (0 if b is None else b)


def _conv(node, shape, x, w, b):
    last = node.attrs["channel_axis"] == x.ndim - 1
    x = np.moveaxis(x, -1, 1) if last else x
    if node.attrs["padded"]:
        half = w.shape[2] // 2
        x = np.pad(x, [(0, 0), (0, 0), (half, half), (half, half)])
    groups = x.shape[1] // w.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axis=(2, 3))  # (n, c, h, w, kh, kw)
    windows = windows.reshape(x.shape[0], groups, -1, *windows.shape[2:])
    y = np.einsum("ngihwkl,goikl->ngohw", windows, w.reshape(groups, -1, *w.shape[1:]))
    y = y.reshape(y.shape[0], -1, *y.shape[3:]) + (0 if b is None else b[:, None, None])
    return np.moveaxis(y, 1, -1) if last else y


def _batch_norm(node, shape, x, w, b, mean, var):
    wide = [-1 if axis == node.attrs["channel_axis"] else 1 for axis in range(x.ndim)]
    w, b, mean, var = (v.reshape(wide) for v in (w, b, mean, var))
    return (x - mean) / np.sqrt(var + node.attrs["epsilon"]) * w + b


def _softmax(node, shape, x):
    e = np.exp(x - x.max(axis=node.attrs["axes"], keepdims=True))
    return e / e.sum(axis=node.attrs["axes"], keepdims=True)


OPERATIONS = {
    "identity": lambda node, shape, x: x,
    "pointwise": lambda node, shape, x: node.evaluate(x),
    "binary": lambda node, shape, a, b: node.evaluate(a, b),
    "linear": _linear,
    "conv": _conv,
    "batch_norm": _batch_norm,
    "along": _softmax,
    "matmul": lambda node, shape, a, b: a @ b,
    "reshape": lambda node, shape, x: x.reshape(shape),
    "transpose": lambda node, shape, x: x.transpose(node.attrs["permutation"]),
    "concat": lambda node, shape, *xs: np.concatenate(xs, node.attrs["axis"]),
    "expand": lambda node, shape, x: np.broadcast_to(x, shape),
    "reduce": lambda node, shape, x: getattr(np, node.attrs["function"])(x, axis=tuple(node.attrs["axes"])),
}
