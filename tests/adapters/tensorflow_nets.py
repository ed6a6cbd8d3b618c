"""Keras networks that the TensorFlow adapter's tests share, and masks for their channels."""

import keras
import numpy as np
from keras import layers, ops

from nnc_tensorflow.demo import lenet
from nnc_tensorflow.examples import randomise, residual_network


class HardCoded(keras.Model):
    """The small CNN as a class, with the literal 4 * 4 * 50 in its call."""

    def __init__(self):
        super().__init__()
        self.conv1 = layers.Conv2D(20, 5, activation="relu")
        self.conv2 = layers.Conv2D(50, 5, activation="relu")
        self.pool = layers.MaxPooling2D(2)
        self.fc1 = layers.Dense(500, activation="relu")
        self.drop = layers.Dropout(0.5)
        self.fc2 = layers.Dense(10)

    def call(self, x, training=False):
        x = self.pool(self.conv1(x))
        x = self.pool(self.conv2(x))
        x = ops.reshape(x, (-1, 4 * 4 * 50))
        x = self.drop(self.fc1(x), training=training)
        return ops.log_softmax(self.fc2(x))


class Block(layers.Layer):
    """conv, BatchNorm, depthwise, conv, BatchNorm; a residual add and a concat. Layers stand in a list and in a dict."""

    def __init__(self, channels):
        super().__init__()
        self.convs = [layers.Conv2D(channels, 3, padding="same", use_bias=False) for _ in range(2)]
        self.norms = {"inner": layers.BatchNormalization(), "outer": layers.BatchNormalization()}
        self.depthwise = layers.DepthwiseConv2D(3, padding="same")

    def call(self, x, training=False):
        y = self.depthwise(ops.relu(self.norms["inner"](self.convs[0](x), training=training)))
        y = self.norms["outer"](self.convs[1](y), training=training)
        return ops.concatenate([ops.relu(x + y), x], axis=-1)


class Residual(keras.Model):
    """A subclassed model around `Block`, with a vector of its own."""

    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(8, 3)
        self.block = Block(8)
        self.mean = layers.GlobalAveragePooling2D()
        self.gate = self.add_weight(shape=(16,), name="gate")
        self.head = layers.Dense(5)

    def call(self, x, training=False):
        return self.head(self.mean(self.block(self.stem(x), training=training)) * self.gate)


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def built(model, x, seed=0):
    """Return a model that has been called, every vector of it random."""
    model(x)
    randomise(model, seed)
    return model


def channel_masks(adapter, rows):
    """Return the masks of whole output channels: {layer: the channels that are masked}."""
    found = {}
    for layer in adapter.layers():
        if layer.name in rows:
            found[layer.name] = {name: np.ones(layer.parameters[name], bool) for name in ("weight", "bias") if name in layer.parameters}
            for mask in found[layer.name].values():
                mask[list(rows[layer.name])] = False
    return found


__all__ = ["Block", "HardCoded", "Residual", "built", "channel_masks", "images", "lenet", "randomise", "residual_network"]
