"""Operations with weights: convolutions, matrix products, embeddings, normalisations.

torch runs a linear layer as `addmm(bias, x, t(weight))`, with a view before and after it where x has more than two axes. The
transposed weight is recognised as what it is, so the graph has `linear(x, weight, bias)`.
"""

from __future__ import annotations

import torch

from nnc.graph.ir import Tensor, constant
from nnc_torch.record import Call

aten = torch.ops.aten


def convolution(call: Call) -> bool | None:
    """convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)."""
    weight = _transposed_convolution_weight(call) if call["transposed"] else call.read("weight")
    if weight is None:
        return False
    x, bias, padded = call.read("input"), call.read("bias"), any(call["padding"])
    call.emit("conv", x, weight, bias, channel_axis=1, groups=call["groups"], padded=padded, transposed=call["transposed"])
    return None


def _transposed_convolution_weight(call: Call) -> Tensor | None:
    """Return the canonical weight: torch's own has its first two axes exchanged."""
    shown = call.values.weight(call["weight"])
    if shown is not None and shown[1]:
        return shown[0]
    if call["groups"] != 1:
        return None
    weight = call.read("weight")
    assert weight is not None
    return _exchanged(call, weight)


def _exchanged(call: Call, tensor: Tensor) -> Tensor:
    order = (1, 0, *range(2, len(tensor.shape)))
    return call.node("transpose", (tensor,), [tensor.shape[axis] for axis in order], permutation=order)


def linear_weight(call: Call, name: str) -> Tensor | None:
    """Return the (out, in) parameter that stands transposed as the second factor of a product, or None."""
    shown = call.values.weight(call[name])
    return shown[0] if shown is not None and shown[1] and len(shown[0].shape) == 2 else None


def mm(call: Call) -> None:
    """mm(self, mat2)."""
    weight = linear_weight(call, "mat2")
    if weight is None:
        call.emit("matmul", call.read("self"), call.read("mat2"))
    else:
        call.emit("linear", call.read("self"), weight, None)


def addmm(call: Call) -> None:
    """addmm(self, mat1, mat2, beta, alpha): beta * self + alpha * mat1 @ mat2."""
    weight, bias = linear_weight(call, "mat2"), call.read("self")
    plain = call["beta"] == call["alpha"] == 1
    if weight is not None and plain and bias is not None and bias.shape == weight.shape[:1]:
        call.emit("linear", call.read("mat1"), weight, bias)
    else:
        _product_plus(call, "mat1", "mat2")


def baddbmm(call: Call) -> None:
    """baddbmm(self, batch1, batch2, beta, alpha)."""
    _product_plus(call, "batch1", "batch2")


def _product_plus(call: Call, left: str, right: str) -> None:
    shape = call.output.shape
    product = call.node("matmul", (call.read(left), call.read(right)), shape)
    if call["alpha"] != 1:
        product = call.node("binary", (product, constant(float(call["alpha"]))), shape, lambda a, b: a * b, function="mul")
    if call["beta"] == 0:
        return call.give(product)
    addend = call.read("self")
    if call["beta"] != 1:
        addend = call.node("binary", (addend, constant(float(call["beta"]))), call["self"].shape, lambda a, b: a * b, function="mul")
    call.emit("binary", product, addend, evaluate=lambda a, b: a + b, function="add")
    return None


def product(call: Call) -> None:
    """bmm(self, mat2) and its like."""
    call.emit("matmul", call.read("self"), call.read("mat2"))


def embedding(call: Call) -> None:
    """embedding(weight, indices)."""
    call.emit("embedding", call.read("indices"), call.read("weight"))


def batch_norm(call: Call) -> bool | None:
    """native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)."""
    if call["running_mean"] is None or call.get("training"):
        return _batch_statistics(call)
    names = ("input", "weight", "bias", "running_mean", "running_var")
    call.emit("batch_norm", *(call.read(name) for name in names), channel_axis=1, epsilon=_epsilon(call))
    return None


def _epsilon(call: Call) -> float:
    return float(call.get("eps", call.get("epsilon")))


def _batch_statistics(call: Call) -> bool | None:
    """A normalisation by the statistics of the batch (InstanceNorm): mixes every axis but the channels."""
    x = call.read("input")
    assert x is not None
    mixed = tuple(axis for axis in range(len(x.shape)) if axis != 1)
    normalised = call.node("along", (x,), x.shape, axes=mixed, normalises=True, zeros=True)
    return _scaled(call, normalised, (1, x.shape[1], *(1 for _ in x.shape[2:])))


def _scaled(call: Call, value: Tensor, shape: tuple[int, ...]) -> None:
    """Give `value * weight + bias`, both seen in a shape that broadcasts."""
    for name, function, evaluate in (("weight", "mul", lambda a, b: a * b), ("bias", "add", lambda a, b: a + b)):
        parameter = call.read(name) if name in call else None
        if parameter is not None:
            seen = call.node("reshape", (parameter,), shape, sizes=shape)
            value = call.node("binary", (value, seen), value.shape, evaluate, function=function)
    call.give(value)


def layer_norm(call: Call) -> None:
    """native_layer_norm(input, normalized_shape, weight, bias, eps)."""
    rank = call["input"].dim()
    axes = tuple(range(rank - len(call["normalized_shape"]), rank))
    call.emit("layer_norm", call.read("input"), call.read("weight"), call.read("bias"), axes=axes)


def rms_norm(call: Call) -> None:
    """_fused_rms_norm(input, normalized_shape, weight, eps)."""
    x, rank = call.read("input"), call["input"].dim()
    assert x is not None
    count = len(call["normalized_shape"])
    normalised = call.node("along", (x,), x.shape, axes=tuple(range(rank - count, rank)), normalises=True, zeros=True)
    _scaled(call, normalised, tuple(call["normalized_shape"]))


def group_norm(call: Call) -> None:
    """native_group_norm(input, weight, bias, N, C, HxW, group, eps): x is seen as (N, group, C / group, ...), normalised, seen back."""
    x, groups = call.read("input"), call["group"]
    assert x is not None
    batch, channels, *rest = x.shape
    split = (batch, groups, channels // groups, *rest)
    blocks = call.node("reshape", (x,), split, sizes=split)
    mixed = call.node("along", (blocks,), split, axes=tuple(range(2, len(split))), normalises=True, zeros=True)
    joined = call.node("reshape", (mixed,), x.shape, sizes=x.shape)
    _scaled(call, joined, (1, channels, *(1 for _ in rest)))


def pixel_shuffle(call: Call) -> None:
    """pixel_shuffle(self, upscale_factor): (..., c r r, h, w) becomes (..., c, h r, w r)."""
    x, r = call.read("self"), call["upscale_factor"]
    assert x is not None
    *lead, channels, height, width = x.shape
    n = len(lead)
    split = (*lead, channels // r**2, r, r, height, width)
    blocks = call.node("reshape", (x,), split, sizes=split)
    order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    moved = call.node("transpose", (blocks,), [split[axis] for axis in order], permutation=order)
    call.emit("reshape", moved, sizes=tuple(call.output.shape))


def pixel_unshuffle(call: Call) -> None:
    """pixel_unshuffle(self, downscale_factor): (..., c, h r, w r) becomes (..., c r r, h, w)."""
    x, r = call.read("self"), call["downscale_factor"]
    assert x is not None
    *lead, channels, height, width = x.shape
    n = len(lead)
    split = (*lead, channels, height // r, r, width // r, r)
    blocks = call.node("reshape", (x,), split, sizes=split)
    order = (*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    moved = call.node("transpose", (blocks,), [split[axis] for axis in order], permutation=order)
    call.emit("reshape", moved, sizes=tuple(call.output.shape))


READERS = {
    aten.convolution: convolution,
    aten.mm: mm,
    aten.addmm: addmm,
    aten.bmm: product,
    aten.baddbmm: baddbmm,
    aten.embedding: embedding,
    aten.native_batch_norm: batch_norm,
    aten._native_batch_norm_legit: batch_norm,
    aten._native_batch_norm_legit_no_training: batch_norm,
    aten._batch_norm_no_update: batch_norm,
    aten.cudnn_batch_norm: batch_norm,
    aten.native_layer_norm: layer_norm,
    aten._fused_rms_norm: rms_norm,
    aten.native_group_norm: group_norm,
    aten.pixel_shuffle: pixel_shuffle,
    aten.pixel_unshuffle: pixel_unshuffle,
}
