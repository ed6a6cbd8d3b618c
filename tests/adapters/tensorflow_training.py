"""What the tests of training on Keras share: a regression, its loss, and the loop written by hand."""

import numpy as np
import tensorflow as tf

import nnc
from tests.adapters.tensorflow_nets import images

X, Y = images(8, 6), images(8, 3, seed=1)
BATCHES = [(X[:4], Y[:4]), (X[4:], Y[4:])]


def mse(outputs, targets):
    return tf.reduce_mean((outputs - targets) ** 2)


def trainer(**options):
    given = {"data": BATCHES, "loss": mse, "optimizer": "sgd", "progress": False}
    return nnc.Trainer(**given | options)


def by_hand(model, batches, optimizer):
    losses = []
    for x, y in batches:
        with tf.GradientTape() as tape:
            loss = mse(model(x, training=True), y)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        losses.append(float(loss))
    return losses


def alike(one, other, tolerance=1e-6):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
