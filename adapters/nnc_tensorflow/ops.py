"""TensorFlow's operations under the names of the array API standard (data-apis.org/array-api, 2024.12).

    abs(x)   sum(x, axis=1, keepdims=True)   matmul(a, b)   reshape(x, (-1, 3))   permute_dims(x, (1, 0))

An algorithm is handed this module as `layer.ops`. Arithmetic and comparison operators work on TensorFlow's tensors as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
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
zeros_like = tf.zeros_like
ones_like = tf.ones_like
equal = tf.equal
logical_and = tf.logical_and
logical_not = tf.logical_not


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
