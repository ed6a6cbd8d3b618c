"""The lowest of many numbers: which they are, and a tensor seen without what has the lowest scores.

    keep = s > b    and of those equal to b the last ones    b: the `count`-th lowest

TensorFlow's selection goes number by number, comparisons and counts do not. So of many numbers a sample tells between which two b lies.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from nnc.graph.ir import Array
from nnc_tensorflow.compiling import needs_xla
from nnc_tensorflow.layouts import Layout, as_stored
from nnc_tensorflow.modes import training_now


def without_lowest(x: Any, count: Any) -> Any:
    """Return False at the `count` lowest numbers, equal ones in the order of their index, else True; no gradient flows through it."""
    flat, count = tf.stop_gradient(tf.reshape(x, (-1,))), tf.cast(count, tf.int32)
    if needs_xla():  # which has no selection
        order = tf.argsort(flat, stable=True)
        return tf.reshape(tf.scatter_nd(order[:, None], tf.range(tf.size(flat)), tf.shape(flat)) >= count, tf.shape(x))
    bound = _selected(flat, tf.maximum(count, 1) - 1)
    return tf.reshape(_with_ties(flat, flat > bound, bound, count), tf.shape(x))


def _with_ties(flat: Any, keep: Any, bound: Any, count: Any) -> Any:
    """Return `keep`, and as many of those equal to the bound, the last of them, as lack."""
    lacking = tf.size(flat) - count - tf.math.count_nonzero(keep, dtype=tf.int32)

    def some() -> Any:
        ties = tf.where(tf.equal(flat, bound))[-lacking:]
        return tf.tensor_scatter_nd_update(keep, ties, tf.fill((lacking,), True))

    return tf.cond(lacking > 0, some, lambda: keep)


def only_highest(x: Any, scores: Any, count: Any) -> Any:
    """Return `where(without_lowest(scores, count), x, 0)`; the scores get the gradient of a mask by which `x` was multiplied."""
    layout, stored = as_stored(x)
    of_scores, stored_scores = as_stored(scores)
    if layout != of_scores or stored.shape != stored_scores.shape:
        return _seen(x, scores, without_lowest(scores, count))
    keep = _kept(stored_scores, scores, layout, tf.cast(count, tf.int32))
    seen = _seen(stored, stored_scores, keep)
    return seen if layout.plain else layout.canonical(seen)


def _kept(stored: Any, scores: Any, layout: Layout, count: Any) -> Any:
    """Return `without_lowest(scores, count)` in the layout of `stored`: what is above the bound is that in any."""
    native = tuple(stored.shape)

    def in_order() -> Any:
        return layout.native_tensor(without_lowest(scores, count), native)

    if needs_xla() or training_now() is not True or stored.dtype not in (tf.float32, tf.float64):
        return in_order()
    # Steps of training are not saved: NumPy, which no other process would find, selects 3 times as fast.
    flat = tf.reshape(tf.stop_gradient(stored), (-1,))
    bound, after = tf.numpy_function(_neighbours, (flat, count), (stored.dtype, stored.dtype), stateful=False)
    bound, after = tf.ensure_shape(bound, ()), tf.ensure_shape(after, ())
    return tf.cond(after > bound, lambda: stored > bound, in_order)


def _neighbours(numbers: Array, count: Array) -> tuple[Any, Any]:
    """Return the highest of the `count` lowest numbers, and the lowest of the others."""
    lowest, highest = numbers.dtype.type(-np.inf), numbers.dtype.type(np.inf)
    if count <= 0:
        return lowest, highest
    parted = np.partition(numbers, int(count) - 1)
    return parted[count - 1], parted[count:].min(initial=highest)


def _seen(x: Any, scores: Any, keep: Any) -> Any:
    """Return x where it is kept, else 0, with the gradients that `Ops.only_highest` promises."""

    @tf.custom_gradient
    def work(x: Any, _: Any) -> Any:
        return _only(x, keep), lambda gradient: (_only(gradient, keep), gradient * x)

    return work(x, scores)


def _only(x: Any, keep: Any) -> Any:
    """Return `where(keep, x, 0)`; it has no gradient."""
    if x.dtype != tf.float32 or needs_xla():
        return tf.where(keep, x, tf.zeros_like(x))
    # On a CPU bits times 1 or 0 are vector instructions, a choice is none.
    return tf.bitcast(tf.bitcast(x, tf.int32) * tf.cast(keep, tf.int32), tf.float32)


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
