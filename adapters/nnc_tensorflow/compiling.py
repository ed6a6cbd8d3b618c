"""Whether what is being traced will be compiled by XLA, which lacks some of TensorFlow's operations."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

_now = threading.local()


@contextmanager
def compiling(model: Any) -> Iterator[None]:
    """Say that a model is being run: Keras compiles it with XLA where it was told to."""
    before = getattr(_now, "xla", False)
    _now.xla = before or bool(getattr(model, "compiled", False) and model.jit_compile)
    try:
        yield
    finally:
        _now.xla = before


def needs_xla() -> bool:
    """Tell whether operations must be such that XLA has: where there are accelerators Keras compiles with it unless told not to."""
    return getattr(_now, "xla", False) or bool(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))
