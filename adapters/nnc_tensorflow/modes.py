"""Whether the model trains in the call that is running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from keras.src.backend.common import global_state  # the only place that tells what `training` is within a call

_now = threading.local()


def training_now() -> Any:
    """Return what `training` is in the call that is running: what it was called with, else whether a training step is under way."""
    context = global_state.get_global_attribute("current_call_ctx")
    value = getattr(context, "training", None)
    if value is None:
        return getattr(_now, "training", False)
    static = value if isinstance(value, (bool, int)) else tf.get_static_value(value)
    return value if static is None else bool(static)


@contextmanager
def in_training(training: bool = True) -> Iterator[None]:
    """Say that a training step is under way, for models whose `call` takes no `training`."""
    before = getattr(_now, "training", False)
    _now.training = training
    try:
        yield
    finally:
        _now.training = before
