"""Masks that a Keras model is seen through."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from nnc_tensorflow.adapter import TensorFlowAdapter
from nnc_tensorflow.examples import randomise
from tests.adapters.tensorflow_nets import HardCoded, Residual, built, channel_masks, images, lenet


@pytest.fixture(name="model")
def give_model():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="relu", name="a"), layers.Dense(3, name="b")])
    randomise(model)
    return model


@pytest.fixture(name="adapter")
def give_adapter(model):
    return TensorFlowAdapter(model)


def masked(adapter, rows=(1, 4)):
    masks = channel_masks(adapter, {"a": rows})
    adapter.set_masks(masks)
    return masks


def test_a_masked_kernel_is_exactly_zero_and_the_stored_one_is_as_it_was(model, adapter):
    stored = model.layers[0].get_weights()[0]

    masked(adapter)

    assert (np.asarray(model.layers[0].kernel)[:, [1, 4]] == 0).all()
    assert (model.layers[0].get_weights()[0] == stored).all()


def test_the_masks_that_are_set_are_the_masks_that_are_given_back(adapter):
    masks = masked(adapter)

    assert all((adapter.masks()["a"][name] == mask).all() for name, mask in masks["a"].items())
    assert set(adapter.masks()) == {"a"}


def test_a_masked_layer_still_says_that_it_is_of_the_users_class(model, adapter):
    masked(adapter)

    assert model.layers[0].__class__ is layers.Dense
    assert isinstance(model.layers[0], layers.Dense)
    assert repr(model.layers[0]) == "<Dense name=a, built=True>"


def test_unmasking_gives_the_exact_class_and_attributes_back(model, adapter):
    before = [(type(layer), set(layer.__dict__)) for layer in model._flatten_layers()]
    masked(adapter)

    adapter.set_masks({})

    assert [(type(layer), set(layer.__dict__)) for layer in model._flatten_layers()] == before


def test_masking_twice_replaces_the_first_masks(model, adapter):
    masked(adapter, (1, 4))

    masked(adapter, (2,))

    assert np.flatnonzero(~np.asarray(model.layers[0].kernel).any(axis=0)).tolist() == [2]


def test_masks_are_no_variables_of_the_model(model, adapter):
    before = [id(variable) for variable in model.variables]

    masked(adapter)

    assert [id(variable) for variable in model.variables] == before


def test_fit_after_a_fit_without_masks_trains_through_the_masks(model, adapter):
    x, y = images(32, 6), images(32, 3, seed=1)
    model.compile(keras.optimizers.AdamW(0.05, weight_decay=0.1), "mse")
    model.fit(x, y, epochs=1, verbose=0)
    masked(adapter)
    before = np.asarray(model.layers[0].kernel)

    model.fit(x, y, epochs=100, verbose=0)

    after = np.asarray(model.layers[0].kernel)
    assert (after[:, [1, 4]] == 0).all()
    assert np.abs(after - before)[:, [0, 2, 3]].max() > 0.01
    assert (np.asarray(model.layers[0].bias)[[1, 4]] == 0).all()


def test_predict_sees_masks_that_came_after_it_was_compiled(model, adapter):
    x = images(4, 6)
    before = model.predict(x, verbose=0)
    masked(adapter)
    seen = model.predict(x, verbose=0)
    adapter.set_masks({})

    assert np.abs(seen - before).max() > 1e-3
    assert (model.predict(x, verbose=0) == before).all()


def test_the_gradient_of_a_masked_entry_is_zero(model, adapter):
    masked(adapter)

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images(4, 6)) ** 2)
    kernel, bias, *_ = tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    assert (kernel.numpy()[:, [1, 4]] == 0).all()
    assert (bias.numpy()[[1, 4]] == 0).all()
    assert np.abs(kernel.numpy()).max() > 0


def test_a_jit_compiled_model_trains_through_the_masks(model, adapter):
    masked(adapter)
    model.compile("adam", "mse", jit_compile=True)

    model.fit(images(8, 6), images(8, 3), verbose=0)

    assert (np.asarray(model.layers[0].kernel)[:, [1, 4]] == 0).all()


def test_a_model_saved_while_masked_holds_the_users_weights(model, adapter, tmp_path):
    stored = model.get_weights()
    masked(adapter)

    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = keras.models.load_model(tmp_path / "model.keras")

    assert all((a == b).all() for a, b in zip(loaded.get_weights(), stored, strict=True))
    assert type(loaded.layers[0]) is layers.Dense


def test_weights_load_into_a_masked_model(model, adapter, tmp_path):
    model.save_weights(tmp_path / "model.weights.h5")
    stored = model.get_weights()
    masked(adapter)
    model.set_weights([array * 0 for array in stored])

    model.load_weights(tmp_path / "model.weights.h5")

    assert all((a == b).all() for a, b in zip(model.get_weights(), stored, strict=True))


def test_an_error_while_masking_leaves_every_layer_as_it_was(model, adapter):
    first = masked(adapter)
    bad = channel_masks(adapter, {"a": (0,)}) | {"b": {"weight": np.ones((7, 7), bool)}}

    with pytest.raises(ValueError, match="reshape"):
        adapter.set_masks(bad)

    assert (adapter.masks()["a"]["weight"] == first["a"]["weight"]).all()
    assert set(adapter.masks()) == {"a"}


def test_a_trace_leaves_masks_and_compiled_functions_in_place(model, adapter):
    masks, x = masked(adapter), images(4, 6)
    expected = model.predict(x, verbose=0)
    compiled = model.predict_function

    adapter.trace(x, {})

    assert model.predict_function is compiled
    assert (adapter.masks()["a"]["weight"] == masks["a"]["weight"]).all()
    assert (model.predict(x, verbose=0) == expected).all()


def test_batch_norm_and_depthwise_parameters_can_be_masked():
    x = images(2, 12, 12, 3)
    model = built(Residual(), x)
    adapter = TensorFlowAdapter(model)
    adapter.set_masks(channel_masks(adapter, {"block.norms.inner": (3,), "block.depthwise": (5,), "block.convs.0": (1,)}))

    assert np.asarray(model.block.norms["inner"].gamma)[3] == 0
    assert np.asarray(model.block.norms["inner"].beta)[3] == 0
    assert (np.asarray(model.block.depthwise.kernel)[:, :, 5] == 0).all()
    assert (np.asarray(model.block.convs[0].kernel)[..., 1] == 0).all()


def test_a_vector_of_the_models_own_can_be_masked():
    x = images(2, 12, 12, 3)
    model = built(Residual(), x)
    adapter = TensorFlowAdapter(model)
    keep = np.arange(16) != 2

    adapter.set_masks({"": {"gate": keep}})

    assert np.asarray(model.gate)[2] == 0
    assert model.__class__ is Residual
    np.testing.assert_allclose(np.asarray(model(x)), adapter.trace(x, {"": {"gate": keep}}).outputs[0], atol=1e-6)


@pytest.mark.parametrize("build", [lenet, HardCoded])
def test_the_traced_outputs_are_those_of_the_masked_model(build):
    x = images(2, 28, 28, 1)
    model = built(build(), x)
    adapter = TensorFlowAdapter(model)
    masks = channel_masks(adapter, {"conv1": range(10), "fc1": range(100)})

    traced = adapter.trace(x, masks).outputs[0]
    adapter.set_masks(masks)

    np.testing.assert_allclose(traced, adapter.run(x)[0], atol=1e-6)
