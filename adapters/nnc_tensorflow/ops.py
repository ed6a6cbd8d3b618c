"""TensorFlow's operations under the names of the array API standard (data-apis.org/array-api, 2024.12).

    abs(x)   sum(x, axis=1, keepdims=True)   matmul(a, b)   reshape(x, (-1, 3))   permute_dims(x, (1, 0))

An algorithm is handed this module as `layer.ops`. Arithmetic and comparison operators work on TensorFlow's tensors as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

Axis = int | Sequence[int] | None
Bool = bool  # the standard calls its boolean type `bool`, as Python does

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
where = tf.where
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


def softmax(x: Any, axis: int = -1) -> Any:
    return tf.nn.softmax(x, axis)


def log_softmax(x: Any, axis: int = -1) -> Any:
    return tf.nn.log_softmax(x, axis)


def clip(x: Any, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else tf.maximum(x, tf.cast(min, x.dtype))
    return x if max is None else tf.minimum(x, tf.cast(max, x.dtype))


def cumulative_sum(x: Any, *, axis: int = 0) -> Any:
    return tf.cumsum(x, axis)


def kth_smallest(x: Any, k: Any) -> Any:
    """Return the k-th smallest number of the whole tensor, a scalar; `k` counts from 1 and may be a scalar tensor."""
    flat = tf.reshape(x, (-1,))
    size = tf.size(flat)
    below = tf.cast(k, tf.int32)
    # top_k selects without sorting the rest, so it is asked from the nearer end.
    return tf.cond(
        below * 2 <= size,
        lambda: -tf.math.top_k(-flat, below).values[-1],
        lambda: tf.math.top_k(flat, size - below + 1).values[-1],
    )


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


def concat(arrays: Sequence[Any], *, axis: int = 0) -> Any:
    return tf.concat(arrays, axis)


def stack(arrays: Sequence[Any], *, axis: int = 0) -> Any:
    return tf.stack(arrays, axis)


def take(x: Any, indices: Any, *, axis: int = 0) -> Any:
    return tf.gather(x, indices, axis=axis)


def sum(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_sum(x, axis, keepdims)


def mean(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_mean(x, axis, keepdims)


def std(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.math.reduce_std(x, axis, keepdims)


def max(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_max(x, axis, keepdims)


def min(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_min(x, axis, keepdims)


def any(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_any(x, axis, keepdims)


def all(x: Any, *, axis: Axis = None, keepdims: Bool = False) -> Any:
    return tf.reduce_all(x, axis, keepdims)


def argsort(x: Any, *, axis: int = -1, descending: Bool = False) -> Any:
    return tf.argsort(x, axis, "DESCENDING" if descending else "ASCENDING", stable=True)


def sort(x: Any, *, axis: int = -1, descending: Bool = False) -> Any:
    return tf.sort(x, axis, "DESCENDING" if descending else "ASCENDING")
