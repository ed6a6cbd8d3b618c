"""TensorFlow's operations under the names of the array API standard (data-apis.org/array-api, 2024.12).

    abs(x)   sum(x, axis=1, keepdims=True)   matmul(a, b)   reshape(x, (-1, 3))   permute_dims(x, (1, 0))

An algorithm is handed this module as `layer.ops`. Arithmetic and comparison operators work on TensorFlow's tensors as they are.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from nnc_tensorflow.selection import only_highest, without_lowest

__all__ = ["only_highest", "without_lowest"]

Axis = int | Sequence[int] | None
Bool = bool  # the standard calls its boolean type `bool`, as Python does

e, pi, inf, nan, newaxis = math.e, math.pi, math.inf, math.nan, None
float16, bfloat16 = tf.float16, tf.bfloat16
float32, float64, int32, int64, bool = tf.float32, tf.float64, tf.int32, tf.int64, tf.bool

abs = tf.abs
sqrt = tf.sqrt
square = tf.square
exp = tf.exp
log = tf.math.log
sign = tf.sign
maximum = tf.maximum
minimum = tf.minimum
matmul = tf.matmul
add = tf.add
subtract = tf.subtract
multiply = tf.multiply
divide = tf.divide
floor_divide = tf.math.floordiv
remainder = tf.math.floormod
negative = tf.negative
reciprocal = tf.math.reciprocal
expm1 = tf.math.expm1
sin = tf.sin
cos = tf.cos
isnan = tf.math.is_nan
isinf = tf.math.is_inf
logical_xor = tf.math.logical_xor
logaddexp = tf.experimental.numpy.logaddexp
log2 = tf.experimental.numpy.log2
eye = tf.eye
tile = tf.tile
tensordot = tf.tensordot
linspace = tf.linspace
relu = tf.nn.relu
sigmoid = tf.sigmoid
tanh = tf.tanh
erf = tf.math.erf
round = tf.round  # halves to even, as the standard and torch have it
floor = tf.floor
ceil = tf.math.ceil
isfinite = tf.math.is_finite
log1p = tf.math.log1p
pow = tf.pow
less = tf.less
greater = tf.greater
less_equal = tf.less_equal
greater_equal = tf.greater_equal
not_equal = tf.not_equal
stop_gradient = tf.stop_gradient
zeros_like = tf.zeros_like
ones_like = tf.ones_like
equal = tf.equal
logical_and = tf.logical_and
logical_not = tf.logical_not
logical_or = tf.logical_or


def with_gradient(forward: Callable[..., Any], backward: Callable[..., Any], *tensors: Any) -> Any:
    """Return `forward(*tensors)[0]` with the gradients that `backward(gradient, *saved)` gives; None stands for none."""

    def work(*given: Any) -> Any:
        y, saved = forward(*given)

        def gradient(upstream: Any, variables: Sequence[Any] = ()) -> Any:
            found = backward(upstream, *saved)
            found = tuple(found) if isinstance(found, (list, tuple)) else (found,)
            return (found, [None] * len(variables)) if variables else found

        return y, gradient

    return tf.custom_gradient(work)(*(tf.convert_to_tensor(tensor) for tensor in tensors))


def shape(x: Any) -> tuple[Any, ...]:
    """Return the sizes of a tensor; one that a compiled function does not know is a tensor."""
    dynamic = tf.shape(x)
    return tuple(dynamic[axis] if size is None else size for axis, size in enumerate(x.shape))


def softmax(x: Any, axis: int = -1) -> Any:
    return tf.cast(tf.nn.softmax(_wide(x), axis), x.dtype)


def log_softmax(x: Any, axis: int = -1) -> Any:
    return tf.cast(tf.nn.log_softmax(_wide(x), axis), x.dtype)


def _wide(x: Any) -> Any:
    return tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x


def where(condition: Any, x: Any, y: Any) -> Any:
    """A Python number takes the type of the other."""
    like = next((each.dtype for each in (x, y) if tf.is_tensor(each)), None)
    return tf.where(condition, *(each if like is None or tf.is_tensor(each) else tf.cast(each, like) for each in (x, y)))


def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else tf.maximum(x, tf.cast(min, x.dtype))
    return x if max is None else tf.minimum(x, tf.cast(max, x.dtype))


def cumulative_sum(x: Any, *, axis: int = 0) -> Any:
    return tf.cumsum(x, axis)


def only(x: Any, keep: Any) -> Any:
    """Return `where(keep, x, 0)`, `keep` a tensor of truth values of the shape of `x`."""
    return tf.where(keep, x, tf.zeros_like(x))


def on_grid(x: Any, scale: Any, zero: Any, low: float | None, high: float | None) -> Any:
    """Return (clip(round(x / scale) + zero, low, high) - zero) * scale; no gradient flows through it.

    Without a zero point it is 0, and without bounds nothing is clipped.
    """
    found = _levels(x, scale, None)
    if low is not None and high is not None:
        shift = tf.zeros((), found.dtype) if zero is None else zero
        clipped = tf.raw_ops.ClipByValue if shift.shape.rank == 0 else tf.clip_by_value  # which goes through the numbers twice
        found = clipped(t=found, clip_value_min=low - shift, clip_value_max=high - shift)
    return found * scale


def clip_gradient_of_levels(gradient: Any, x: Any, scale: Any, zero: Any, low: float, high: float) -> Any:
    """Return `gradient` where low <= round(x / scale) + zero <= high, else 0."""
    levels = _levels(x, scale, zero)
    if levels.dtype not in (tf.float32, tf.float64):
        return _within(gradient, levels, low, high)
    # Whole numbers from low to high lie in (0, 6) then, all others outside: one pass instead of four.
    unit = 6 / (high - low + 1)
    return tf.raw_ops.Relu6Grad(gradients=gradient, features=(levels + (0.5 - low)) * unit)


def ratio_gradients(
    gradient: Any, x: Any, shown: Any, scale: Any, low: float, high: float, axes: Sequence[int] | None = None
) -> tuple[Any, Any]:
    """Return p, which is `gradient` where low <= x / scale <= high, else 0, and sum(gradient * shown - p * x).

    The sum is over all axes, or over `axes`, which then stay as ones.
    """
    passed = _within(gradient, x / scale, low, high)
    apart = gradient * shown - passed * x
    return passed, tf.reduce_sum(apart) if axes is None else tf.reduce_sum(apart, axis=tuple(axes), keepdims=True)


def _within(gradient: Any, x: Any, low: float, high: float) -> Any:
    return tf.where((x >= low) & (x <= high), gradient, tf.zeros((), gradient.dtype))


def _levels(x: Any, scale: Any, zero: Any) -> Any:
    found = tf.round(tf.stop_gradient(x) / scale)
    return found if zero is None else found + zero


def few(function: Callable[..., Any], *numbers: Any) -> tuple[Any, ...]:
    """Return the tuple that `function(ops, *numbers)` makes of tensors of one number each; no gradient flows through it."""
    return tuple(function(sys.modules[__name__], *map(tf.stop_gradient, numbers)))


def extremes(x: Any) -> tuple[Any, Any]:
    """Return the smallest and the largest number."""
    return tf.reduce_min(x), tf.reduce_max(x)


def asarray(value: Any, *, dtype: Any = None) -> Any:
    """Return `value` as a tensor; a tensor of another type is cast."""
    tensor = tf.convert_to_tensor(value)
    return tensor if dtype is None else tf.cast(tensor, dtype)


def astype(x: Any, dtype: Any) -> Any:
    return tf.cast(x, dtype)


def zeros(shape: Any, *, dtype: Any = None) -> Any:
    return tf.zeros(shape, dtype or tf.float32)


def ones(shape: Any, *, dtype: Any = None) -> Any:
    return tf.ones(shape, dtype or tf.float32)


def arange(start: Any, stop: Any = None, step: Any = 1, *, dtype: Any = None) -> Any:
    return tf.range(0 if stop is None else start, start if stop is None else stop, step, dtype=dtype)


def full(shape: Any, value: Any, *, dtype: Any = None) -> Any:
    return tf.cast(tf.fill(shape, value), dtype or tf.convert_to_tensor(value).dtype)


def full_like(x: Any, value: Any) -> Any:
    return tf.fill(tf.shape(x), tf.cast(value, x.dtype))


def reshape(x: Any, shape: Sequence[int]) -> Any:
    return tf.reshape(x, shape)


def permute_dims(x: Any, axes: Sequence[int]) -> Any:
    return tf.transpose(x, axes)


def matrix_transpose(x: Any) -> Any:
    return tf.linalg.matrix_transpose(x)


def expand_dims(x: Any, *, axis: int = 0) -> Any:
    return tf.expand_dims(x, axis)


def broadcast_to(x: Any, shape: Sequence[int]) -> Any:
    return tf.broadcast_to(x, shape)


def squeeze(x: Any, axis: Axis) -> Any:
    return tf.squeeze(x, axis)


def moveaxis(x: Any, source: Axis, destination: Axis) -> Any:
    return tf.experimental.numpy.moveaxis(x, source, destination)


def flip(x: Any, *, axis: Axis = None) -> Any:
    return tf.experimental.numpy.flip(x, axis)


def roll(x: Any, shift: Any, *, axis: Axis = None) -> Any:
    return tf.experimental.numpy.roll(x, shift, axis)


def tril(x: Any, *, k: int = 0) -> Any:
    return tf.experimental.numpy.tril(x, k)


def triu(x: Any, *, k: int = 0) -> Any:
    return tf.experimental.numpy.triu(x, k)


def repeat(x: Any, repeats: Any, *, axis: int | None = None) -> Any:
    return tf.repeat(x, repeats, axis)


def unstack(x: Any, *, axis: int = 0) -> Any:
    return tuple(tf.unstack(x, axis=axis))


def concat(arrays: Sequence[Any], *, axis: int = 0) -> Any:
    return tf.concat(arrays, axis)


def stack(arrays: Sequence[Any], *, axis: int = 0) -> Any:
    return tf.stack(arrays, axis)


def take(x: Any, indices: Any, *, axis: int = 0) -> Any:
    return tf.gather(x, indices, axis=axis)


def take_along_axis(x: Any, indices: Any, *, axis: int = -1) -> Any:
    return tf.experimental.numpy.take_along_axis(x, indices, axis)


def searchsorted(sorted_: Any, x: Any, *, side: str = "left") -> Any:
    return tf.searchsorted(sorted_, x, side)


def sum(x: Any, *, axis: Axis = None, dtype: Any = None, keepdims: Bool = False) -> Any:
    return tf.reduce_sum(x if dtype is None else tf.cast(x, dtype), axis, keepdims)


def mean(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_mean(x, axis, keepdims)


def std(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.math.reduce_std(x, axis, keepdims)


def var(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.math.reduce_variance(x, axis, keepdims)


def prod(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_prod(x, axis, keepdims)


def count_nonzero(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.math.count_nonzero(x, axis, keepdims)


def max(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_max(x, axis, keepdims)


def min(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_min(x, axis, keepdims)


def any(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_any(x, axis, keepdims)


def all(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_all(x, axis, keepdims)


def argmax(x: Any, *, axis: int | None = None) -> Any:
    return tf.argmax(tf.reshape(x, (-1,)) if axis is None else x, axis or 0)


def argmin(x: Any, *, axis: int | None = None) -> Any:
    return tf.argmin(tf.reshape(x, (-1,)) if axis is None else x, axis or 0)


def argsort(x: Any, *, axis: int = -1, descending: Bool = False) -> Any:
    return tf.argsort(x, axis, "DESCENDING" if descending else "ASCENDING", stable=True)


def sort(x: Any, *, axis: int = -1, descending: Bool = False) -> Any:
    return tf.sort(x, axis, "DESCENDING" if descending else "ASCENDING")
