"""Which layer was the first to give, or to be given back, a number that is not finite"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from nnc_tensorflow.names import TAPS, named_layers
from nnc_tensorflow.parts import parts_of, replaced
from nnc_tensorflow.swap import held_by, hold


def blame(model: keras.Layer, loss: Callable[[], Any], batch: Any = None) -> str:
    """Run `loss` once more, eagerly, on `batch`, and return, in words, what was not finite first."""
    of_batch = "" if all(map(_finite, tf.nest.flatten(batch))) else ", and the batch itself has NaN or infinite numbers"
    return _first(model, loss) + of_batch


def _first(model: keras.Layer, loss: Callable[[], Any]) -> str:
    variables = model.trainable_variables
    for variable in variables:
        if not _finite(variable.value):
            return f"{variable.path} was not finite before the step"
    came: list[tuple[str, Any]] = []
    with tf.GradientTape(persistent=True) as tape, _watched(model, came, tape):
        value = loss()
    for name, tensor in came:
        if not _finite(tensor):
            return f"the output of {name} was the first that is not finite"
    if not _finite(value):
        return "every layer's output is finite, the loss that is taken of them is not"
    for name, tensor in reversed(came):
        if not _finite(tape.gradient(value, tensor)):
            return f"the gradient at the output of {name} was the first that is not finite"
    for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
        if not _finite(gradient):
            return f"the gradient of {variable.path} was the first that is not finite"
    return "run once more, all was finite"


@dataclass(frozen=True)
class _Watch:
    """A tap that notes all that a layer gives, in the order of the forward pass."""

    name: str
    came: list[tuple[str, Any]]
    tape: tf.GradientTape
    before: Any = field(default=None)

    def passed(self, value: Any) -> Any:
        value = value if self.before is None else self.before.passed(value)
        for path, tensor in parts_of(value):
            if tensor.dtype.is_floating:
                noted = tf.identity(tensor)
                self.tape.watch(noted)
                self.came.append((self.name, noted))
                value = replaced(value, path, noted)
        return value


@contextmanager
def _watched(model: keras.Layer, came: list[tuple[str, Any]], tape: tf.GradientTape) -> Iterator[None]:
    layers = named_layers(model)
    before = [(layer, held_by(layer)) for layer in layers.values()]
    try:
        for name, layer in layers.items():
            taps = layer.__dict__.get(TAPS, {})
            watch = _Watch(f"layer {name!r}" if name else "the model", came, tape, taps.get("output"))
            hold(layer, {**held_by(layer), TAPS: {**taps, "output": watch}})
        yield
    finally:
        for layer, held in before:
            hold(layer, held)


def _finite(tensor: Any) -> bool:
    if tensor is None or not tf.convert_to_tensor(tensor).dtype.is_floating:
        return True
    return bool(tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(tensor))))
