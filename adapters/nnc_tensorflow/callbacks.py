"""nnc in Keras' `fit`, which trains objectives and variables by itself: what is left for a callback is the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from nnc.errors import ConfigError


def callback(loop: str | None, done: Callable[[], Any]) -> keras.callbacks.Callback:
    """Return a callback that calls `done` when `fit` has ended."""
    if loop not in (None, "keras"):
        raise ConfigError(f"loop: {loop!r} trains no Keras model; 'keras' does, in fit.")
    return Finish(done)


class Finish(keras.callbacks.Callback):  # type: ignore[misc]
    """Lets what learned in training decide its masks when `fit` has ended."""

    def __init__(self, done: Callable[[], Any]) -> None:
        super().__init__()
        self.done = done

    def on_train_end(self, logs: Any = None) -> None:
        self.done()
