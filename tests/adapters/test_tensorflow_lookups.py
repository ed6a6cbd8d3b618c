"""Channels that are taken in steps, or by places that stand in the code, leave, and what is left is taken from where it lies now."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import nnc
from nnc_pruning import L1NormPruner
from tests.zoo_keras.architectures import noise, randomise


def network(axis):
    given = keras.Input((6, 8))
    x = layers.Dense(10, name="first")(given)
    x = ops.take(x, np.array([0, 2, -1]), axis=axis)
    return randomise(keras.Model(given, layers.Dense(3, name="last")(ops.relu(x)))), noise(2, 6, 8)


def test_rows_that_are_taken_leave_the_channels_free():
    model, x = network(axis=1)
    masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x).propose()

    speedup = nnc.ModelSpeedup(model, x, masks)
    small = speedup.speedup_model()

    assert speedup.difference <= 1e-5
    assert small.get_layer("first").units == 5


def masks(*rows):
    keep = np.ones((10, 8), bool)
    keep[list(rows)] = False
    return {"first": {"weight": keep, "bias": keep[:, 0]}}


def graph(take):
    """Return a Functional model that takes some of ten channels, and its inputs; its operations are numbered from the start."""
    keras.utils.clear_session()
    given = keras.Input((6, 8))
    x = ops.relu(layers.Dense(10, name="first")(given))
    return randomise(keras.Model(given, layers.Dense(3, name="last")(take(x)))), noise(2, 6, 8)


@keras.saving.register_keras_serializable("nnc-tests")
class Taking(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.last = layers.Dense(10, activation="relu", name="first"), layers.Dense(3, name="last")

    def call(self, x):
        return self.last(self.taken(self.first(x)))


class Gathering(Taking):
    def taken(self, x):
        return tf.gather(x, [0, 2, 4, 6, 8], axis=-1)


class TakingOps(Taking):
    def taken(self, x):
        return ops.take(x, [0, 2, 4, 6, -2], axis=2)


def subclassed(cls):
    x = noise(2, 6, 8)
    model = cls()
    model(x)
    return randomise(model), x


#: Each takes every second of ten channels.
EVEN = {
    "functional-steps": lambda: graph(lambda x: x[:, :, ::2]),
    "functional-steps-behind-dots": lambda: graph(lambda x: x[..., 0:9:2]),
    "functional-take": lambda: graph(lambda x: ops.take(x, [0, 2, 4, 6, 8], axis=-1)),
    "functional-take-from-the-end": lambda: graph(lambda x: ops.take(x, [0, 2, 4, 6, -2], axis=2)),
    "gather": lambda: subclassed(Gathering),
    "take": lambda: subclassed(TakingOps),
}


def widths(model):
    return {layer.name: layer.parameters["weight"] for layer in nnc.layers(model)}


@pytest.mark.parametrize("name", EVEN)
def test_channels_leave_that_are_taken_in_steps_or_by_a_list(name):
    model, x = EVEN[name]()

    speedup = nnc.ModelSpeedup(model, x, masks(2, 3, 8))
    small = speedup.speedup_model()

    assert widths(small) == {"first": (8, 8), "last": (3, 3)}
    assert speedup.difference <= 1e-6


@pytest.mark.parametrize("name", EVEN)
def test_a_second_shrink_and_a_fresh_model_take_the_same(name, tmp_path):
    model, x = EVEN[name]()
    small = nnc.ModelSpeedup(model, x, masks(2)).speedup_model()
    keep = np.arange(9) != 0

    again = nnc.ModelSpeedup(small, x, {"first": {"weight": np.repeat(keep[:, None], 8, 1), "bias": keep}}).speedup_model()
    nnc.save(again, tmp_path / "small")
    loaded = nnc.load(tmp_path / "small", model=EVEN[name]()[0])

    assert widths(again) == {"first": (8, 8), "last": (3, 3)}
    np.testing.assert_array_equal(loaded(x), again(x))


@pytest.mark.parametrize("name", ["functional-steps", "functional-take"])
def test_keras_saves_and_loads_what_is_left(name, tmp_path):
    model, x = EVEN[name]()
    small = nnc.ModelSpeedup(model, x, masks(2, 3, 8)).speedup_model()

    small.save(tmp_path / "small.keras")

    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "small.keras")(x), small(x))


def test_steps_beside_another_cut_in_one_key_stay_and_the_reason_says_what_to_write():
    model, x = graph(lambda x: x[:, 1:3, ::2])

    speedup = nnc.ModelSpeedup(model, x, masks(2))
    with pytest.warns(nnc.NothingRemoved, match=r"takes no list; cut the other axes in an x\[\.\.\.\] of their own"):
        speedup.speedup_model()

    assert speedup.difference <= 1e-6
