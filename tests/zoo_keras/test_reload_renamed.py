"""Keras numbers the names of layers on when a model is built again in one process; what was saved comes back all the same."""

import keras
import numpy as np
import pytest
from keras import layers

import nnc
from nnc.errors import ConfigError
from nnc.renamed import new_names


def build(hidden=12, more=()):
    image = keras.Input((8,))
    x = layers.Dense(hidden, activation="relu")(image)
    x = layers.LayerNormalization()(layers.Dense(6)(x))
    for size in more:
        x = layers.Dense(size)(x)
    return keras.Model(image, layers.Dense(3)(x))


@pytest.fixture
def saved(tmp_path):
    keras.utils.set_random_seed(0)
    model, x = build(), np.random.default_rng(0).standard_normal((4, 8)).astype("float32")
    small = nnc.compress(model, [{"sparsity": 0.5}], example_inputs=x).speedup()
    nnc.save(small, tmp_path)
    return small, x, tmp_path


def test_a_model_whose_layers_are_numbered_on_is_loaded(saved):
    small, x, folder = saved
    again = build()
    assert {layer.name for layer in again.layers}.isdisjoint(layer.name for layer in small.layers)

    loaded = nnc.load(folder, model=again)

    np.testing.assert_array_equal(loaded(x), small(x))
    nnc.save(loaded, folder)
    np.testing.assert_array_equal(nnc.load(folder, model=build)(x), small(x))


def test_masks_come_back_under_new_names(tmp_path):
    model, x = build(), np.ones((2, 8), "float32")
    nnc.compress(model, [{"algorithm": "level", "sparsity": 0.5}], example_inputs=x)
    nnc.save(model, tmp_path)

    np.testing.assert_array_equal(nnc.load(tmp_path, model=build)(x), model(x))


@pytest.mark.parametrize("other", [lambda: build(more=(4,)), lambda: build(hidden=4)], ids=["another layer", "fewer units"])
def test_another_architecture_is_refused(saved, other):
    with pytest.raises(ConfigError, match="has another architecture than the saved one"):
        nnc.load(saved[2], model=other)


def test_names_are_matched_by_place_where_they_differ_in_numbers_only():
    assert new_names(["dense", "dense_1", "block_2/dense"], ["dense_7", "dense_8", "block_5/dense_3"]) == {
        "dense": "dense_7",
        "dense_1": "dense_8",
        "block_2/dense": "block_5/dense_3",
    }
    assert new_names(["dense", "norm"], ["dense_1", "norm"]) == {"dense": "dense_1"}
    assert new_names(["dense", "norm"], ["norm", "dense_1"]) == {}
    assert new_names(["dense"], ["dense", "dense_1"]) == {}
