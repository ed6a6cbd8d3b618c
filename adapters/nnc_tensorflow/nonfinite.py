"""Which layer was the first to give, or to be given back, a number that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from nnc.views import Site
from nnc_tensorflow.names import named_layers
from nnc_tensorflow.taps import Record, tapped
from nnc_tensorflow.views import in_training


class _Order(Record):
    """A record of outputs in the order in which they came."""

    def __init__(self, tape: tf.GradientTape) -> None:
        super().__init__(tape)
        self.came: list[tuple[str, Any]] = []

    def note(self, site: Site, tensor: Any) -> Any:
        if not tensor.dtype.is_floating:
            return tensor
        tensor = super().note(site, tensor)
        self.came.append((site.layer, tensor))
        return tensor


def blame(model: keras.Layer, loss: Callable[[], Any]) -> str:
    """Run `loss` once more, eagerly, and return a sentence that names the layer."""
    layers = {name: layer for name, layer in named_layers(model).items() if not isinstance(layer, keras.layers.InputLayer)}
    with tf.GradientTape(persistent=True) as tape:
        record = _Order(tape)
        with tapped(layers, [Site(name) for name in layers], record), in_training():
            value = loss()
    for name, tensor in record.came:
        if not _finite(tensor):
            return f"the output of {_named(name)} was the first that is not finite."
    variables = model.trainable_variables
    for name, tensor in reversed(record.came):
        gradient = tape.gradient(value, tensor)
        if gradient is not None and not _finite(gradient):
            return f"the gradient at the output of {_named(name)} was the first that is not finite."
    for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
        if gradient is not None and not _finite(gradient):
            return f"the gradient of {variable.path} was the first that is not finite."
    return "every layer's output is finite, so the loss itself is not."


def _finite(tensor: Any) -> bool:
    return bool(tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(tensor))))


def _named(name: str) -> str:
    return f"layer {name!r}" if name else "the model"
