"""Inference as Keras' users run it on batches: the model in inference mode, through one compiled function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from nnc_tensorflow.inputs import caller, tensors_of


class Inference:
    """Compiles on the first call; a call with inputs of another form compiles again."""

    def __init__(self, model: keras.Layer) -> None:
        self.model = model
        self._compiled: dict[Any, Any] = {}

    def __call__(self, example_inputs: Any) -> Any:
        form = _form(example_inputs)
        infer = caller(self.model, example_inputs)  # checks the shapes each time
        if form not in self._compiled:
            self._compiled[form] = tf.function(infer)
        return self._compiled[form](*tensors_of(example_inputs))

    def forget(self) -> None:
        """Drop what is compiled: the parameters are seen differently now."""
        self._compiled.clear()


def _form(example_inputs: Any) -> Any:
    if isinstance(example_inputs, Mapping):
        return tuple(example_inputs)
    return len(example_inputs) if isinstance(example_inputs, (list, tuple)) else None
