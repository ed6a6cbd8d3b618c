"""The lowest of many numbers: which they are, and a tensor seen without what has the lowest scores.

    keep = x > b    and of those equal to b the last ones    b: the `count`-th lowest

TensorFlow's selection goes number by number, comparisons and counts do not. So of many numbers a sample tells between which two b lies.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from nnc_tensorflow.compiling import needs_xla


def without_lowest(x: Any, count: Any) -> Any:
    """Return False at the `count` lowest numbers, equal ones in the order of their index, else True; no gradient flows through it."""
    flat, count = tf.stop_gradient(tf.reshape(x, (-1,))), tf.cast(count, tf.int32)
    size = tf.size(flat)
    if needs_xla():  # which has no selection
        order = tf.argsort(flat, stable=True)
        return tf.reshape(tf.scatter_nd(order[:, None], tf.range(size), tf.shape(flat)) >= count, tf.shape(x))
    bound = _selected(flat, tf.maximum(count, 1) - 1)
    keep = flat > bound
    lacking = size - count - tf.math.count_nonzero(keep, dtype=tf.int32)

    def with_ties() -> Any:
        ties = tf.where(tf.equal(flat, bound))[-lacking:]
        return tf.tensor_scatter_nd_update(keep, ties, tf.fill((lacking,), True))

    return tf.reshape(tf.cond(lacking > 0, with_ties, lambda: keep), tf.shape(x))


#: From so many numbers on, which of them are near the one looked for is read from a sample first.
_MANY, _STRIDE = 1 << 16, 16


def _selected(flat: Any, place: Any) -> Any:
    """Return the number at a place, counted from 0, of the sorted numbers of a vector."""
    if (flat.shape[0] or 0) < _MANY:
        return tf.raw_ops.NthElement(input=flat, n=place)
    sample = flat[::_STRIDE]
    size = int(sample.shape[0])
    guess, margin = tf.clip_by_value(place // _STRIDE, 0, size - 1), 3 * math.isqrt(size)
    low, high = (tf.raw_ops.NthElement(input=sample, n=tf.clip_by_value(guess + side, 0, size - 1)) for side in (-margin, margin))
    low = tf.where(guess < margin, tf.constant(-math.inf, flat.dtype), low)
    high = tf.where(guess + margin >= size, tf.constant(math.inf, flat.dtype), high)
    near = tf.boolean_mask(flat, (flat >= low) & (flat <= high))
    rank = place - tf.math.count_nonzero(flat < low, dtype=tf.int32)
    found = (rank >= 0) & (rank < tf.size(near))
    return tf.cond(found, lambda: tf.raw_ops.NthElement(input=near, n=rank), lambda: tf.raw_ops.NthElement(input=flat, n=place))
