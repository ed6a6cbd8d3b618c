"""What a Keras user has before nnc: a network, `fit` and a test. Nothing here knows of nnc."""

from __future__ import annotations

import keras
from keras import layers


def build() -> keras.Model:
    """Return a fresh network, always the same one: the MNIST network of NNI's examples."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(500, activation="relu", name="fc1"),
            layers.Dense(10, activation="log_softmax", name="fc2"),
        ]
    )


def inputs(images):
    """Return `(n, 28, 28)` images as the network's input `(n, 28, 28, 1)`."""
    return images[..., None]


def train(model: keras.Model, images, labels, epochs: int) -> None:
    """Train with Adam in batches of 64. A log-softmax is a valid logit: its softmax is the probability itself."""
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs(images), labels, batch_size=64, epochs=epochs, verbose=0)


def accuracy(model: keras.Model, images, labels) -> float:
    """Return the share of right answers."""
    return float((model.predict(inputs(images), verbose=0).argmax(1) == labels).mean())


def reinitialise(model: keras.Model) -> keras.Model:
    """Return the network with fresh weights."""
    return keras.models.clone_model(model)
