"""The small network of `nnc demo` on Keras: a Sequential model that saves as a plain .keras file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nnc.graph.ir import Array


class TensorFlowDemo:
    """Implements `nnc.demo.Demo`."""

    framework = "Keras 3 on TensorFlow"

    def build(self, seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        return lenet()

    def train(
        self,
        model: keras.Model,
        images: Array,
        labels: Array,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        advance: Callable[[], None],
    ) -> None:
        keras.utils.set_random_seed(seed)  # what `fit` shuffles by
        steps = epochs * -(-len(images) // batch_size)
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        # The model gives log-probabilities; softmax of those is the probabilities again, so they serve as logits.
        model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(self.example_inputs(images), labels, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[_Advance(advance)])

    def accuracy(self, model: keras.Model, images: Array, labels: Array) -> float:
        scores = model.predict(self.example_inputs(images), batch_size=1000, verbose=0)
        return float(np.mean(scores.argmax(axis=1) == labels))

    def example_inputs(self, images: Array) -> Any:
        return np.asarray(images, np.float32)[..., None]  # (n, 28, 28, 1): channels last

    def save_plain(self, model: keras.Model, folder: Path) -> Path:
        path = Path(folder) / "model.keras"
        model.save(path)
        return path


def lenet() -> keras.Sequential:
    """Return the network: conv1 1->20, conv2 20->50 (5x5), fc1 800->500, fc2 500->10, log_softmax."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(2),
            layers.Conv2D(50, 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(500, activation="relu", name="fc1"),
            layers.Dense(10, name="fc2"),
            layers.Activation("log_softmax", name="log_softmax"),
        ],
        name="lenet",
    )


class _Advance(keras.callbacks.Callback):
    """Tells the progress bar of each batch."""

    def __init__(self, advance: Callable[[], None]) -> None:
        super().__init__()
        self._advance = advance

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._advance()
