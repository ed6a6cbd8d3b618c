"""A pencil for graphs: write down a small network as nodes, without any framework."""

from __future__ import annotations

import numpy as np

from nnc.graph.ir import Array, Graph, Node, Source, Tensor


class Pencil:
    """Each method adds one operation and returns its result. Parameters are filled with random numbers, never zero."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.numbers: dict[str, Array] = {}
        self._random = np.random.default_rng(0)

    def input(self, *shape: int, floating: bool = True) -> Tensor:
        tensor = Tensor(shape, "input", floating=floating)
        self.graph.inputs.append(tensor)
        return tensor

    def output(self, tensor: Tensor) -> None:
        self.graph.outputs.append(tensor)

    def parameter(self, name: str, *shape: int) -> Tensor:
        known = self.graph.parameters()
        if name in known:
            return known[name]
        numbers = self.numbers.setdefault(name, self._random.uniform(0.5, 1.5, shape))
        return Tensor(shape, "parameter", name, trainable=True, data=lambda: numbers)

    def node(self, kind, *inputs, shape, evaluate=None, floating=True, source=None, layer="", **attrs) -> Tensor:
        result = Tensor(shape, floating=floating)
        self.graph.nodes.append(Node(kind, inputs, (result,), attrs, kind, layer, source, evaluate))
        return result

    def linear(self, x: Tensor, name: str, out: int, bias: bool = True) -> Tensor:
        weight = self.parameter(f"{name}.weight", out, x.shape[-1])
        extra = self.parameter(f"{name}.bias", out) if bias else None
        return self.node("linear", x, weight, extra, shape=(*x.shape[:-1], out), layer=name)

    def conv(self, x, name, out, kernel=3, padded=False, groups=1, bias=True, last=False) -> Tensor:
        channel = len(x.shape) - 1 if last else 1
        weight = self.parameter(f"{name}.weight", out, x.shape[channel] // groups, kernel, kernel)
        extra = self.parameter(f"{name}.bias", out) if bias else None
        shrink = 0 if padded else kernel - 1
        shape = tuple(out if axis == channel else size - shrink if axis else size for axis, size in enumerate(x.shape))
        attrs = {"channel_axis": channel, "groups": groups, "padded": padded, "transposed": False}
        return self.node("conv", x, weight, extra, shape=shape, layer=name, **attrs)

    def batch_norm(self, x: Tensor, name: str, channel: int = 1) -> Tensor:
        vectors = [self.parameter(f"{name}.{part}", x.shape[channel]) for part in ("weight", "bias", "running_mean", "running_var")]
        return self.node("batch_norm", x, *vectors, shape=x.shape, layer=name, channel_axis=channel, epsilon=1e-5)

    def relu(self, x: Tensor) -> Tensor:
        return self.node("pointwise", x, shape=x.shape, evaluate=lambda v: np.maximum(v, 0))

    def sigmoid(self, x: Tensor) -> Tensor:
        return self.node("pointwise", x, shape=x.shape, evaluate=lambda v: 1 / (1 + np.exp(-v)))

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return self.node("binary", a, b, shape=np.broadcast_shapes(a.shape, b.shape), evaluate=np.add, function="add")

    def mul(self, a: Tensor, b: Tensor) -> Tensor:
        return self.node("binary", a, b, shape=np.broadcast_shapes(a.shape, b.shape), evaluate=np.multiply, function="mul")

    def concat(self, *xs: Tensor, axis: int = 1) -> Tensor:
        shape = tuple(sum(x.shape[axis] for x in xs) if a == axis else size for a, size in enumerate(xs[0].shape))
        return self.node("concat", *xs, shape=shape, axis=axis)

    def split(self, x: Tensor, *sizes: int, axis: int = -1) -> list[Tensor]:
        axis, start, parts = axis % len(x.shape), 0, []
        for size in sizes:
            shape = tuple(size if a == axis else old for a, old in enumerate(x.shape))
            parts.append(self.node("slice", x, shape=shape, axis=axis, index=np.arange(start, start + size)))
            start += size
        return parts

    def reshape(self, x: Tensor, *shape: int, line: int = 1) -> Tensor:
        return self.node("reshape", x, shape=shape, sizes=shape, source=Source("net.py", line, "Net.forward"))

    def transpose(self, x: Tensor, *permutation: int) -> Tensor:
        return self.node("transpose", x, shape=tuple(x.shape[p] for p in permutation), permutation=permutation)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return self.node("matmul", a, b, shape=(*a.shape[:-1], b.shape[-1]))

    def softmax(self, x: Tensor) -> Tensor:
        return self.node("along", x, shape=x.shape, axes=(len(x.shape) - 1,))

    def mean(self, x: Tensor, *axes: int) -> Tensor:
        shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
        return self.node("reduce", x, shape=shape, axes=axes, keepdims=False, function="mean")


def masked(pencil: Pencil, layer: str, *rows: int, bias: bool = True) -> dict[str, dict[str, Array]]:
    """Masks of output channels of one layer: the weight's rows and, where it has one, the bias."""
    weight = np.ones(pencil.numbers[f"{layer}.weight"].shape, bool)
    weight[list(rows)] = False
    masks = {"weight": weight}
    if bias and f"{layer}.bias" in pencil.numbers:
        masks["bias"] = np.ones(len(weight), bool)
        masks["bias"][list(rows)] = False
    return {layer: masks}


def removed(plan, tensor: str, axis: int) -> list[int]:
    """The flat indices of a parameter's axis that a plan removes."""
    members = plan.axes().get((tensor, axis), [])
    size = max((m.start + m.outer * m.size * m.inner for m in members), default=0)
    keep = np.ones(size, bool)
    for member in members:
        member.clear(keep)
    return np.flatnonzero(~keep).tolist()
