"""Views, objectives and small Keras models that the tests of training share."""

import keras
import numpy as np
from keras import layers

from nnc.objective import Objective
from nnc.views import Site, Variable, View
from nnc_tensorflow.examples import randomise


def small(seed=0):
    """Return a Sequential model from 6 numbers to 3 through the layers a and b; of one seed always the same numbers."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu", name="a"), layers.Dense(3, name="b")])
    randomise(model, seed)
    return model


class Untold(keras.Model):
    """A subclassed model whose `call` takes no `training`."""

    def __init__(self):
        super().__init__()
        self.a = layers.Dense(4)
        self.b = layers.Dense(3)

    def call(self, x):
        return self.b(self.a(x))


class Plus(View):
    """x + amount."""

    def __init__(self, amount, name="plus"):
        self.amount, self.name = amount, name

    def __call__(self, x, state, ops, training):
        return x + self.amount


class Scaled(View):
    """x * s, s trained or not."""

    def __init__(self, first=1.0, group="", name="scaled", shared=""):
        self.first, self.group, self.name, self.shared = first, group, name, shared

    def variables(self):
        return {"s": Variable(np.float32(self.first), trainable=bool(self.group), group=self.group, shared=self.shared)}

    def __call__(self, x, state, ops, training):
        return x * state["s"]


class Rounded(View):
    """round(x), through which gradients pass as if it were x."""

    name = "rounded"

    def __call__(self, x, state, ops, training):
        return ops.with_gradient(lambda given: (ops.round(given), ()), lambda gradient: gradient, x)


class Counted(View):
    """x, with the training passes counted."""

    name = "counted"

    def variables(self):
        return {"passes": Variable(np.float32(0))}

    def __call__(self, x, state, ops, training):
        if training:
            state.assign("passes", state["passes"] + 1)
        return x


class Identity(View):
    name = "identity"

    def __call__(self, x, state, ops, training):
        return x


OUTPUT = Site("", "output")


class Match(Objective):
    """weight * mean((student - teacher)^2) over what passes one site."""

    def __init__(self, site=OUTPUT, weight=1.0, task_weight=1.0, name="match"):
        self.student = self.teacher = (site,)
        self.site, self.weight, self.task_weight, self.name = site, weight, task_weight, name

    def terms(self, seen, ops):
        return {"mse": self.weight * ops.mean(ops.square(seen.student[self.site] - seen.teacher[self.site]))}


class Small(Objective):
    """weight * sum |parameter|."""

    name = "small"

    def __init__(self, site, weight):
        self.student, self.site, self.weight = (site,), site, weight

    def terms(self, seen, ops):
        return {"l1": self.weight * ops.sum(ops.abs(seen.student[self.site]))}


def numpy_forward(weights, x):
    hidden = np.maximum(x @ weights[0] + weights[1], 0)
    return hidden, hidden @ weights[2] + weights[3]


def alike(model, weights, tolerance=1e-5):
    for mine, expected in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=tolerance, atol=tolerance)
