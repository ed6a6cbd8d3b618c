"""Elementwise operations, and those that leave the numbers as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nnc.graph.ir import Array, Tensor, constant
from nnc.graph.values import same
from nnc_torch.inference import tensors_in
from nnc_torch.record import Call

aten = torch.ops.aten


def identity(call: Call) -> None:
    """A copy, a cast or an alias; that of a parameter is the parameter."""
    source = call.get("self", call.get("input"))
    output, shown = call.output, call.values.weight(source)
    if output is source:
        return
    if shown is not None:
        values = call.values
        values.later(output, lambda: values.read(source), *shown)
        return
    call.emit("identity", call.values.read(source))


def moved(call: Call) -> None:
    """clone(self): the numbers in another place, where `reshape` and `contiguous` need it. That depends on sizes, so it is no node."""
    source = call["self"]
    if call.values.weight(source) is not None:
        identity(call)
    else:
        call.values.bind(call.output, call.values.read(source))


def copy(call: Call) -> None:
    """copy_(self, src): self holds src from now on."""
    source = call.read("src")
    assert source is not None
    kind = "identity" if source.shape == tuple(call.output.shape) else "expand"
    call.emit(kind, source)


def pointwise(call: Call) -> bool | None:
    """One function of each element of the first argument; the others are numbers."""
    name = next(iter(call.operation.arguments))
    if sum(isinstance(value, torch.Tensor) for value in (*call.args, *call.kwargs.values())) != 1:
        return False
    rest, kwargs, function = tuple(call.args[1:]), dict(call.kwargs), _pure(call)
    kind = call[name].dtype

    def evaluate(x: Array) -> Array:
        known = torch.tensor(np.asarray(x))
        with torch.no_grad():
            return next(tensors_in(function(known if kind.is_floating_point else known.to(kind), *rest, **kwargs))).numpy()

    call.emit("pointwise", call.read(name), evaluate=evaluate)
    return None


def _pure(call: Call) -> Callable[..., torch.Tensor]:
    """Return the operation that leaves its arguments alone: relu for relu_."""
    return getattr(aten, call.func.overloadpacket.__name__.rstrip("_"))


def fill(call: Call) -> None:
    """fill_(self, value), zero_(self): every element is one number."""
    value = call.get("value", 0)
    if isinstance(value, torch.Tensor):
        call.emit("binary", call.read("self"), call.values.read(value), function="other")
    else:
        call.emit("pointwise", call.read("self"), evaluate=lambda x: np.full_like(x, value))


def empty_like(call: Call) -> None:
    """empty_like(self): no number is known."""
    call.emit("pointwise", call.read("self"), evaluate=lambda x: np.full_like(x, np.nan))


def clamp(call: Call) -> None:
    """clamp(self, min, max), clamp_min, clamp_max: bounds are numbers, or tensors that broadcast."""
    bounds = [(call.get(name), compute) for name, compute in (("min", np.maximum), ("max", np.minimum))]
    if not any(isinstance(bound, torch.Tensor) for bound, _ in bounds):
        pointwise(call)
        return
    x, shape = call.read("self"), tuple(call.output.shape)
    for bound, compute in bounds:
        if bound is not None:
            limit = call.values.read(bound) if isinstance(bound, torch.Tensor) else constant(bound)
            x = call.node("binary", (x, limit), shape, _on_arrays(compute), function="other")
    assert x is not None
    call.give(x)


def glu(call: Call) -> None:
    """glu(self, dim): the first half times the sigmoid of the second."""
    x, axis = call.read("self"), call.axis()
    assert x is not None
    shape, half = tuple(call.output.shape), x.shape[axis] // 2
    left, right = (call.node("slice", (x,), shape, axis=axis, index=np.arange(half) + start) for start in (0, half))
    gate = call.node("pointwise", (right,), shape, lambda x: 1 / (1 + np.exp(-x)))
    call.emit("binary", left, gate, evaluate=np.multiply, function="mul")


def binary(function: str, compute: Callable[[Any, Any], Any] | None = None) -> Callable[[Call], bool | None]:
    """Return the reader of an elementwise operation of two operands; a number is a constant."""

    def read(call: Call) -> bool | None:
        names = list(call.operation.arguments)
        a, b = call.read(names[0]), call.read(names[1])
        if function == "div" and call.get("rounding_mode") is not None:
            call.emit("binary", a, b, function="other")
            return None
        if call.get("alpha", 1) != 1:
            b = _times(call, b, call["alpha"])
        call.emit("binary", a, b, evaluate=_on_arrays(compute) if compute else None, function=function)
        return None

    return read


def _on_arrays(compute: Callable[[Any, Any], Any]) -> Callable[[Array, Array], Array]:
    return lambda a, b: np.asarray(compute(np.asarray(a), np.asarray(b)))


def _times(call: Call, tensor: Tensor | None, factor: float) -> Tensor:
    assert tensor is not None
    return call.node("binary", (tensor, constant(factor)), tensor.shape, lambda a, b: a * b, function="mul")


def reverse_subtract(call: Call) -> None:
    """rsub(self, other, alpha): other - alpha * self."""
    a, b = call.read("self"), call.read("other")
    if call["alpha"] != 1:
        a = _times(call, a, call["alpha"])
    call.emit("binary", b, a, evaluate=_on_arrays(np.subtract), function="sub")


def where(call: Call) -> bool | None:
    """where(condition, self, other), masked_fill(self, mask, value): all broadcast; what the two agree on is the result."""
    names = ("self", "value", "mask") if "mask" in call else ("self", "other", "condition")
    if any(name not in call for name in names):
        return False
    a, b, condition = (call.read(name) if isinstance(call[name], torch.Tensor) else constant(float(call[name])) for name in names)
    assert a is not None and b is not None
    both = call.node("binary", (a, b), np.broadcast_shapes(a.shape, b.shape), same, function="other")
    call.emit("binary", both, condition, function="guarded")
    return None


def addcmul(call: Call) -> None:
    """addcmul(self, tensor1, tensor2, value), addcdiv: self + value * tensor1 * tensor2."""
    divides = "addcdiv" in call.operation.name
    left, right, shape = call.read("tensor1"), call.read("tensor2"), call.output.shape
    compute = np.divide if divides else np.multiply
    product = call.node("binary", (left, right), shape, _on_arrays(compute), function="div" if divides else "mul")
    if call["value"] != 1:
        product = _times(call, product, call["value"])
    call.emit("binary", call.read("self"), product, evaluate=_on_arrays(np.add), function="add")


def power(call: Call) -> bool | None:
    """pow(self, exponent): pointwise where one of them is a number."""
    both = isinstance(call["self"], torch.Tensor) and isinstance(call["exponent"], torch.Tensor)
    if both:
        return binary("other", np.power)(call)
    if isinstance(call["self"], torch.Tensor):
        return pointwise(call)
    base = float(call["self"])
    call.emit("pointwise", call.read("exponent"), evaluate=lambda x: np.power(base, x))
    return None


_SAME = ("alias", "detach", "_to_copy", "lift_fresh", "lift_fresh_copy", "dropout", "positive")
_UNARY = """
relu relu6 gelu silu mish sigmoid tanh hardtanh hardswish hardsigmoid leaky_relu elu celu selu softplus hardshrink softshrink
log_sigmoid_forward threshold neg abs sign exp exp2 expm1 log log2 log10 log1p sqrt rsqrt square reciprocal erf erfc sin cos tan asin acos
atan sinh cosh asinh acosh atanh floor ceil round trunc frac nan_to_num zeros_like ones_like full_like logit
isnan isinf isfinite logical_not bitwise_not"""
#: Operations of two operands, and what computes the same on arrays.
_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "maximum": np.maximum,
    "minimum": np.minimum,
    "fmax": np.fmax,
    "fmin": np.fmin,
    "fmod": np.fmod,
    "remainder": np.remainder,
    "floor_divide": np.floor_divide,
    "atan2": np.arctan2,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}


def _prelu(x: Array, slope: Array) -> Array:
    return np.where(x > 0, x, slope * x)


_NAMED: dict[str, Callable[[Call], bool | None]] = {
    **dict.fromkeys(_SAME, identity),
    **dict.fromkeys(("clone", "contiguous"), moved),
    **dict.fromkeys(_UNARY.split(), pointwise),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), clamp),
    **{name: binary("other", compute) for name, compute in _COMPARED.items()},
    **{name: binary("other") for name in ("bitwise_and", "bitwise_or", "bitwise_xor")},
    "add": binary("add", np.add),
    "sub": binary("sub", np.subtract),
    "mul": binary("mul", np.multiply),
    "div": binary("div", np.divide),
    **dict.fromkeys(("prelu", "_prelu_kernel"), binary("other", _prelu)),
    "rsub": reverse_subtract,
    "where": where,
    "masked_fill": where,
    "addcmul": addcmul,
    "addcdiv": addcmul,
    "pow": power,
    "empty_like": empty_like,
    "glu": glu,
    "fill": fill,
    "zero": fill,
    "copy": copy,
}


def _packets(name: str) -> list[Any]:
    """Return an operation and its in-place form, whichever torch has."""
    return [getattr(aten, form) for form in (name, f"{name}_") if hasattr(aten, form)]


READERS = {packet: reader for name, reader in _NAMED.items() for packet in _packets(name)}
