"""Make variables while a function is being traced: outside of it, for a function that makes variables is traced a second time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import tensorflow as tf

Made = TypeVar("Made")


def outside(make: Callable[[], Made]) -> Made:
    """Return what `make` makes, eagerly. TensorFlow knows what belongs to a trace by its thread, so another one makes it."""
    if not tf.inside_function():
        return make()
    if tf.distribute.has_strategy():  # which knows its variables by the thread too
        with tf.init_scope():
            return make()
    with ThreadPoolExecutor(1) as other:
        return other.submit(make).result()
