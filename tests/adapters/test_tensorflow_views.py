"""Views that a Keras model is seen through, and what taps show of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from nnc.errors import ConfigError
from nnc.views import Site
from nnc_tensorflow.adapter import TensorFlowAdapter
from nnc_tensorflow.examples import randomise
from tests.adapters.tensorflow_nets import HardCoded, Residual, built, channel_masks, images
from tests.adapters.tensorflow_views import OUTPUT, Counted, Plus, Rounded, Scaled, Untold, small

A = Site("a", "weight")


@pytest.fixture(name="model")
def give_model():
    return small()


@pytest.fixture(name="adapter")
def give_adapter(model):
    return TensorFlowAdapter(model)


def kernel(layer):
    return np.asarray(layer._kernel.value)


def test_a_weight_is_read_as_the_view_of_what_the_mask_leaves(model, adapter):
    stored = kernel(model.layers[0])
    adapter.set_masks(channel_masks(adapter, {"a": (1,)}))

    adapter.set_views({A: (Plus(0.5),)})

    seen = np.asarray(model.layers[0].kernel)
    np.testing.assert_array_equal(seen[:, 1], np.full(6, 0.5, "float32"))
    np.testing.assert_array_equal(seen[:, 0], stored[:, 0] + np.float32(0.5))
    np.testing.assert_array_equal(kernel(model.layers[0]), stored)


def test_views_are_applied_in_the_order_in_which_they_are_given(model, adapter):
    adapter.set_views({A: (Plus(1.0), Scaled(2.0))})

    np.testing.assert_allclose(np.asarray(model.layers[0].kernel), (kernel(model.layers[0]) + 1) * 2, rtol=1e-6)


def test_a_view_sees_the_canonical_orientation(model, adapter):
    shapes = {}

    class Shape(Plus):
        def __call__(self, x, state, ops, training):
            shapes[self.name] = tuple(x.shape)
            return x

    x = images(1, 12, 12, 3)
    residual = built(Residual(), x)
    sites = {"block.depthwise": (8, 1, 3, 3), "stem": (8, 3, 3, 3), "block.norms.inner": (8,), "head": (5, 16)}
    TensorFlowAdapter(residual).set_views({Site(name, "weight"): (Shape(0, name),) for name in sites})

    residual(x)

    assert shapes == sites


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.Dense(4), (6,)),
        (layers.Conv1D(4, 3), (9, 2)),
        (layers.Conv2D(4, 3, groups=2), (8, 8, 2)),
        (layers.Conv2DTranspose(4, 3), (8, 8, 2)),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 2)),
        (layers.SeparableConv2D(4, 3), (8, 8, 2)),
        (layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de"), (4, 6)),
        (layers.BatchNormalization(), (6,)),
        (layers.LayerNormalization(), (6,)),
        (layers.LSTM(3), (4, 6)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_parameter_of_a_layer_is_seen_through_its_view(layer, shape):
    model = keras.Sequential([keras.Input(shape), layer])
    randomise(model)
    adapter, x = TensorFlowAdapter(model), images(2, *shape)
    sites = [Site(each.name, name) for each in adapter.layers() for name in each.parameters if not name.startswith("running")]
    doubled = keras.models.clone_model(model)
    doubled.set_weights(
        [v * (1 if v.shape == () or "moving" in w.name else 2) for v, w in zip(model.get_weights(), model.weights, strict=True)]
    )

    adapter.set_views({site: (Scaled(2.0),) for site in sites})

    np.testing.assert_allclose(np.asarray(model(x)), np.asarray(doubled(x)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.predict(x, verbose=0), np.asarray(doubled(x)), rtol=1e-4, atol=1e-5)


def test_an_embedding_is_seen_through_its_view():
    model = keras.Sequential([keras.Input((3,), dtype="int32"), layers.Embedding(5, 2, name="words")])
    TensorFlowAdapter(model).set_views({Site("words", "weight"): (Plus(1.0),)})

    seen = np.asarray(model(np.array([[0, 4, 2]])))

    np.testing.assert_allclose(seen[0], model.layers[0].get_weights()[0][[0, 4, 2]] + 1)


def test_attention_is_seen_through_the_views_of_its_projections():
    given = keras.Input((4, 6))
    model = keras.Model(given, layers.MultiHeadAttention(2, 3, name="attend")(given, given))
    randomise(model)
    x, adapter = images(2, 4, 6), TensorFlowAdapter(model)
    value = next(layer.name for layer in adapter.layers() if layer.name.endswith("value_dense"))
    before = np.asarray(model(x)) - np.asarray(model.layers[-1]._output_dense.bias)
    model.layers[-1]._value_dense.bias.assign(np.zeros((2, 3)))
    before = np.asarray(model(x)) - np.asarray(model.layers[-1]._output_dense.bias)

    adapter.set_views({Site(value, "weight"): (Scaled(3.0),)})

    np.testing.assert_allclose(np.asarray(model(x)) - np.asarray(model.layers[-1]._output_dense.bias), before * 3, rtol=1e-4, atol=1e-5)


def test_outputs_and_inputs_are_seen_through_their_views(model, adapter):
    x = images(4, 6)
    weights = model.get_weights()
    adapter.set_views({Site("a", "output"): (Scaled(2.0),), Site("b", "input"): (Plus(1.0),), OUTPUT: (Scaled(10.0),)})

    hidden = np.maximum(x @ weights[0] + weights[1], 0) * 2 + 1
    expected = (hidden @ weights[2] + weights[3]) * 10

    np.testing.assert_allclose(np.asarray(model(x)), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-4)


def test_a_named_part_of_an_output_is_seen_through_its_view():
    given = keras.Input((2,))
    model = keras.Model(given, {"logits": layers.Dense(2, name="d")(given), "given": given})
    TensorFlowAdapter(model).set_views({Site("", "output:given"): (Plus(5.0),)})
    x = images(1, 2)

    np.testing.assert_allclose(np.asarray(model(x)["given"]), x + 5)


def test_a_view_keeps_the_mask_that_keras_passes_along():
    model = keras.Sequential([keras.Input((3,), dtype="int32"), layers.Embedding(5, 4, mask_zero=True, name="words"), layers.LSTM(2)])
    randomise(model)
    x = np.array([[1, 2, 0]])
    before = np.asarray(model(x))

    TensorFlowAdapter(model).set_views({Site("words", "output"): (Scaled(1.0),)})

    np.testing.assert_array_equal(np.asarray(model(x)), before)


def test_taking_views_away_gives_class_attributes_and_numbers_back(model, adapter):
    before = [(type(layer), set(layer.__dict__)) for layer in model._flatten_layers()]
    x = images(2, 6)
    expected = np.asarray(model(x))
    adapter.set_views({A: (Plus(1.0),), Site("b", "output"): (Counted(),), OUTPUT: (Scaled(),)})

    adapter.set_views({})

    assert [(type(layer), set(layer.__dict__)) for layer in model._flatten_layers()] == before
    np.testing.assert_array_equal(np.asarray(model(x)), expected)


def test_views_survive_new_masks_and_masks_survive_new_views(model, adapter):
    masks = channel_masks(adapter, {"a": (1,)})
    adapter.set_views({A: (Plus(1.0),)})
    adapter.set_masks(masks)
    adapter.set_views({A: (Plus(2.0),)})

    assert (np.asarray(model.layers[0].kernel)[:, 1] == 2).all()

    adapter.set_masks({})
    np.testing.assert_allclose(np.asarray(model.layers[0].kernel), kernel(model.layers[0]) + 2)
    assert set(adapter.views()) == {A}


def test_an_error_while_setting_views_leaves_the_model_as_it_was(model, adapter):
    class Broken(Plus):
        def variables(self):
            raise ZeroDivisionError

    adapter.set_views({A: (Scaled(3.0),)})

    with pytest.raises(ZeroDivisionError):
        adapter.set_views({A: (Plus(1.0),), Site("b", "weight"): (Broken(1.0),)})

    np.testing.assert_allclose(np.asarray(model.layers[0].kernel), kernel(model.layers[0]) * 3)
    assert type(model.layers[1]) is layers.Dense


@pytest.mark.parametrize(
    ("site", "message"),
    [(Site("aa", "weight"), "'aa' is no layer of the model; nearest: 'a'"), (Site("a", "wieght"), "nearest: 'weight'")],
)
def test_a_site_that_the_model_lacks_is_named_with_the_nearest(adapter, site, message):
    with pytest.raises(ConfigError, match=message):
        adapter.set_views({site: (Plus(1.0),)})


def test_a_straight_through_gradient_reaches_the_stored_weight():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False, name="a")])
    model.set_weights([np.array([[0.4], [1.7]], "float32")])
    TensorFlowAdapter(model).set_views({A: (Rounded(),)})

    with tf.GradientTape() as tape:
        y = model(np.array([[3.0, 5.0]], "float32"))
    gradient = tape.gradient(y, model.trainable_variables[0].value)

    assert float(y[0, 0]) == 3 * 0 + 5 * 2
    assert gradient.numpy().ravel().tolist() == [3, 5]


@pytest.mark.parametrize("how", ["fit", "jit", "predict", "evaluate", "training=True", "training=False"])
def test_a_view_knows_whether_the_model_trains(model, adapter, how):
    adapter.set_views({A: (Counted(),), Site("b", "output"): (Counted(),)})
    x, y = images(4, 6), images(4, 3)
    model.compile("sgd", "mse", jit_compile=how == "jit")
    run = {
        "fit": lambda: model.fit(x, y, batch_size=2, verbose=0),
        "jit": lambda: model.fit(x, y, batch_size=2, verbose=0),
        "predict": lambda: model.predict(x, verbose=0),
        "evaluate": lambda: model.evaluate(x, y, verbose=0),
        "training=True": lambda: [model(x, training=True) for _ in range(2)],
        "training=False": lambda: model(x, training=False),
    }

    run[how]()

    expected = 2 if how in ("fit", "jit", "training=True") else 0
    assert [float(numbers["passes"]) for numbers in adapter.numbers().values()] == [expected] * 2


def test_training_may_be_a_tensor_in_a_compiled_loop(model, adapter):
    adapter.set_views({A: (Counted(),), Site("b", "output"): (Counted(),)})

    @tf.function
    def run(x, training):
        for _ in tf.range(3):
            model(x, training=training)

    run(images(1, 6), tf.constant(True))
    run(images(1, 6), tf.constant(False))

    assert [float(numbers["passes"]) for numbers in adapter.numbers().values()] == [3, 3]


def test_fit_trains_views_in_a_model_whose_call_takes_no_training():
    x = images(4, 6)
    model = built(Untold(), x)
    adapter = TensorFlowAdapter(model)
    adapter.set_views({Site("a", "output"): (Counted(),)})
    model.compile("sgd", "mse")

    model.fit(x, images(4, 3), batch_size=4, epochs=3, verbose=0)
    model.evaluate(x, images(4, 3), verbose=0)

    assert float(adapter.numbers()[("a.output", "counted")]["passes"]) == 3


def test_masks_of_the_same_layers_are_seen_without_compiling_again(model, adapter):
    x = images(4, 6)
    adapter.set_masks(channel_masks(adapter, {"a": (1, 4)}))
    model.predict(x, verbose=0)
    compiled = model.predict_function

    adapter.set_masks(channel_masks(adapter, {"a": (2,)}))

    assert model.predict_function is compiled
    np.testing.assert_allclose(model.predict(x, verbose=0), np.asarray(model(x)), rtol=1e-5, atol=1e-6)


def test_masks_may_change_in_the_middle_of_fit(model, adapter):
    class Mask(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            adapter.set_masks(channel_masks(adapter, {"a": (epoch,)}))

    model.compile("sgd", "mse")

    model.fit(images(4, 6), images(4, 3), epochs=3, verbose=0, callbacks=[Mask()])

    assert np.flatnonzero(~np.asarray(model.layers[0].kernel).any(axis=0)).tolist() == [2]


def test_saving_while_views_are_on_stores_the_users_numbers(model, adapter, tmp_path):
    stored = model.get_weights()
    adapter.set_views({A: (Scaled(3.0, "scores"),), OUTPUT: (Counted(),)})
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")

    loaded = keras.models.load_model(tmp_path / "model.keras")
    model.load_weights(tmp_path / "model.weights.h5")

    assert all((a == b).all() for a, b in zip(loaded.get_weights(), stored, strict=True))
    assert len(loaded.variables) == len(stored)
    assert type(loaded.layers[0]) is layers.Dense


def test_a_trace_sees_masks_and_no_views(model, adapter):
    x = images(4, 6)
    plain = np.asarray(model(x))
    adapter.set_views({A: (Plus(1.0),), OUTPUT: (Scaled(3.0),)})

    trace = adapter.trace(x, {})

    np.testing.assert_allclose(trace.outputs[0], plain, atol=1e-6)
    np.testing.assert_allclose(np.asarray(model.layers[0].kernel), kernel(model.layers[0]) + 1)


def test_a_smaller_copy_takes_no_views_along(adapter):
    from nnc.graph.plan import Plan

    adapter.set_views({A: (Plus(1.0),), OUTPUT: (Scaled(3.0),)})

    small_one = adapter.shrink(Plan(), {}, {})

    assert TensorFlowAdapter(small_one).views() == {}
    assert type(small_one) is keras.Sequential


def test_a_copy_of_a_subclassed_model_takes_no_views_along():
    from nnc.graph.plan import Plan

    x = images(1, 28, 28, 1)
    model = built(HardCoded(), x)
    plain, adapter = np.asarray(model(x)), TensorFlowAdapter(model)
    adapter.set_views({Site("fc1", "weight"): (Plus(1.0),), OUTPUT: (Scaled(3.0),)})

    np.testing.assert_allclose(np.asarray(adapter.shrink(Plan(), {}, {})(x)), plain, atol=1e-6)


def test_under_mixed_precision_views_compute_in_float32():
    seen = []

    class Type(Plus):
        def __call__(self, x, state, ops, training):
            seen.append(x.dtype)
            return x + self.amount

    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="a", dtype="mixed_bfloat16")])
    TensorFlowAdapter(model).set_views({A: (Type(0.0),), Site("a", "output"): (Type(1.0),)})

    assert model(images(2, 6)).dtype == tf.bfloat16
    assert seen == [tf.float32] * 2


def test_the_weight_of_a_layer_is_what_the_model_computes_with(model, adapter):
    adapter.set_masks(channel_masks(adapter, {"a": (1, 4)}))
    before = {layer.name: np.asarray(layer.weight) for layer in adapter.layers()}
    adapter.set_views({Site("a", "weight"): (Scaled(3.0),)})

    found = {layer.name: np.asarray(layer.weight) for layer in adapter.layers()}

    np.testing.assert_allclose(found["a"], 3 * before["a"], rtol=1e-6)
    np.testing.assert_array_equal(found["b"], before["b"])
