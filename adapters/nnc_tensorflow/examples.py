"""The small network on which `nnc.testing` tries algorithms: what real networks have, in a size that runs in milliseconds."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from nnc.graph.ir import Array
from nnc.trainer import Trainer


def residual_network(seed: int = 0) -> tuple[keras.Model, Array]:
    """Return a Functional CNN with BatchNorm, a residual add, a concat and a depthwise convolution, and example inputs.

    Biases and BatchNorm statistics are random: fresh ones are zeros and ones, which hide every error with constants.
    """
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(image)
    x = stem = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.ReLU(name="depthwise_relu")(layers.BatchNormalization(name="depthwise_bn")(x))
    x = layers.Conv2D(8, 1, name="project")(x)
    x = layers.Concatenate(name="join")([layers.Add(name="residual")([x, stem]), stem])
    x = layers.Conv2D(12, 3, activation="relu", name="mix")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.MaxPooling2D(2, name="pool")(x))
    x = layers.Dense(16, activation="relu", name="hidden")(layers.Dropout(0.1, name="dropout")(x))
    model = keras.Model(image, layers.Dense(5, name="classes")(x), name="residual_network")
    randomise(model, seed)
    return model, np.random.default_rng(seed).standard_normal((4, 12, 12, 3)).astype(np.float32)


def randomise(model: Any, seed: int = 0) -> None:
    """Give every vector of a model random numbers; variances stay positive."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        if len(variable.shape) == 1 and "float" in variable.dtype:
            low, high = (0.5, 1.5) if "variance" in variable.name else (-0.5, 0.5)
            variable.assign(generator.uniform(low, high, variable.shape))


def trainer() -> Trainer:
    """Return a trainer of two steps of the residual network, on random numbers."""
    generator = np.random.default_rng(1)
    shapes = ((4, 12, 12, 3), (4, 5))
    data = [tuple(generator.standard_normal(shape).astype(np.float32) for shape in shapes) for _ in range(2)]
    return Trainer(data, keras.losses.MeanSquaredError(), lambda _: keras.optimizers.SGD(1e-3), progress=False)
