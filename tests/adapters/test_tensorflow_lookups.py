"""keras.ops.take with indices that stand in the code: they cannot follow, so their axis stays; the other axes are free."""

import keras
import numpy as np
import pytest
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


def test_channels_that_are_taken_stay_where_their_places_stand_in_the_code():
    model, x = network(axis=2)
    rows = np.ones((10, 8), bool)
    rows[[1, 2]] = False

    speedup = nnc.ModelSpeedup(model, x, {"first": {"weight": rows, "bias": rows[:, 0]}})
    with pytest.warns(nnc.NothingRemoved, match="GatherV2"):
        small = speedup.speedup_model()

    assert small.get_layer("first").units == 10
    assert speedup.difference <= 1e-5
