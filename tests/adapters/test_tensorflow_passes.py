"""Taps, gradients and written parameters of Keras models."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from nnc.errors import ConfigError
from nnc.views import Site
from nnc_tensorflow import ops
from nnc_tensorflow.adapter import TensorFlowAdapter
from nnc_tensorflow.compiling import compiling
from tests.adapters.tensorflow_nets import built, images
from tests.adapters.tensorflow_views import OUTPUT, small

A = Site("a", "weight")


@pytest.fixture(name="model")
def give_model():
    return small()


@pytest.fixture(name="adapter")
def give_adapter(model):
    return TensorFlowAdapter(model)


def kernel(layer):
    return np.asarray(layer._kernel.value)


def test_taps_show_what_passed(model, adapter):
    x = images(4, 6)
    weights = model.get_weights()

    outputs, shown = adapter.forward(x, [Site("a", "output"), Site("b", "input"), OUTPUT, Site("a", "weight")])

    hidden = np.maximum(x @ weights[0] + weights[1], 0)
    np.testing.assert_allclose(np.asarray(shown[Site("a", "output")]), hidden, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(shown[Site("b", "input")]), np.asarray(shown[Site("a", "output")]))
    np.testing.assert_array_equal(np.asarray(shown[OUTPUT]), np.asarray(outputs))
    np.testing.assert_array_equal(np.asarray(shown[Site("a", "weight")]), weights[0].T)
    assert [type(layer) for layer in model._flatten_layers()] == [keras.Sequential, layers.InputLayer, layers.Dense, layers.Dense]


def test_a_forward_pass_trains_only_where_it_is_told_to():
    model = keras.Sequential([keras.Input((6,)), layers.Dropout(0.5), layers.BatchNormalization(name="norm")])
    adapter, x = TensorFlowAdapter(model), images(64, 6)

    plain, _ = adapter.forward(x)
    assert (np.asarray(model.layers[1].moving_mean) == 0).all()
    dropped, _ = adapter.forward(x, training=True)

    assert (np.asarray(plain) != 0).all()
    assert (np.asarray(model.layers[1].moving_mean) != 0).any()
    assert len(np.unique(np.asarray(dropped)[:, 0])) < 60


@pytest.mark.parametrize("batch", [np.zeros((2, 7), "float32"), {"wrong": np.zeros((2, 6), "float32")}])
def test_a_batch_that_the_model_rejects_is_a_config_error(adapter, batch):
    with pytest.raises(ConfigError):
        adapter.forward(batch)


def test_a_site_that_no_pass_reaches_is_named():
    class Idle(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.idle = layers.Dense(2), layers.Dense(2)
            self.idle.build((None, 2))

        def call(self, x):
            return self.used(x)

    model = built(Idle(), images(1, 2))

    with pytest.raises(ConfigError, match=r"'idle\.output': the forward pass does not reach it"):
        TensorFlowAdapter(model).forward(images(1, 2), [Site("idle", "output")])


def test_gradients_are_those_of_the_effective_weight_masked_entries_included():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, use_bias=False, name="a")])
    model.set_weights([np.array([[1.0, 2.0], [3.0, 4.0]], "float32")])
    adapter = TensorFlowAdapter(model)
    adapter.set_masks({"a": {"weight": np.array([[True, True], [False, False]])}})
    x = np.array([[5.0, 7.0]], "float32")

    loss, found = adapter.gradients(lambda m: tf.reduce_sum(m(x) * [1.0, 10.0]), [A, Site("a", "output"), Site("a", "input")])

    assert loss == 5 * 1 + 7 * 3
    assert found[A].numpy().tolist() == [[5, 7], [50, 70]]
    assert found[Site("a", "output")].numpy().tolist() == [[1, 10]]
    assert found[Site("a", "input")].numpy().tolist() == [[1, 3]]


def test_the_gradient_of_a_layer_that_runs_twice_adds_up():
    shared = layers.Dense(1, use_bias=False, name="a")
    given = keras.Input((1,))
    model = keras.Model(given, shared(shared(given)))
    model.set_weights([np.array([[3.0]], "float32")])

    _, found = TensorFlowAdapter(model).gradients(lambda m: tf.reduce_sum(m(np.array([[2.0]], "float32"))), [A])

    assert found[A].numpy().tolist() == [[2 * 3 * 2]]


def test_the_gradient_of_an_embedding_is_dense():
    model = keras.Sequential([keras.Input((2,), dtype="int32"), layers.Embedding(3, 1, name="a")])

    _, found = TensorFlowAdapter(model).gradients(lambda m: tf.reduce_sum(m(np.array([[2, 2]]))), [A])

    assert found[A].numpy().tolist() == [[0], [0], [2]]


def test_parameters_are_written_in_the_canonical_shape_and_given_back(model, adapter):
    before = kernel(model.layers[0])

    old = adapter.write({A: np.arange(48).reshape(8, 6), Site("a", "bias"): np.ones(8)})

    np.testing.assert_array_equal(kernel(model.layers[0]), np.arange(48).reshape(8, 6).T)
    np.testing.assert_array_equal(old[A], before.T)


def test_writing_a_wrong_shape_writes_nothing(model, adapter):
    before = model.get_weights()

    with pytest.raises(ConfigError, match="the shape is"):
        adapter.write({Site("a", "bias"): np.ones(8), A: np.ones((6, 8))})

    assert all((a == b).all() for a, b in zip(model.get_weights(), before, strict=True))


@pytest.mark.parametrize("jit", [None, False, True])
@pytest.mark.parametrize(("count", "left"), [(0, [0, 1, 2, 3, 4, 5]), (1, [0, 2, 3, 4, 5]), (3, [0, 3, 5]), (6, [])])
def test_the_lowest_leave_and_equal_ones_in_the_order_of_their_index(jit, count, left):
    x = tf.constant([[3.0, -1.0, 2.0], [7.0, 0.0, 2.0]])

    def select(x, count):
        with compiling(SimpleNamespace(compiled=True, jit_compile=jit)):
            return ops.without_lowest(x, count)

    found = select(x, tf.constant(count)) if jit is None else tf.function(select, jit_compile=jit)(x, tf.constant(count))

    assert np.flatnonzero(found).tolist() == left


@pytest.mark.parametrize("kind", ["drawn", "sorted", "many equal", "a stride apart"])
def test_of_many_numbers_exactly_as_many_leave(kind):
    numbers = np.random.default_rng(0).standard_normal(100_000).astype("float32")
    numbers = {
        "drawn": numbers,
        "sorted": np.sort(numbers),
        "many equal": np.round(numbers),
        "a stride apart": np.where(np.arange(100_000) % 16 == 0, numbers + 9, numbers),  # the sample is unlike the rest
    }[kind].astype("float32")
    order = np.argsort(numbers, kind="stable")

    for count in (0, 5, 49_999, 99_998):
        keep = np.asarray(ops.without_lowest(tf.constant(numbers), count))
        np.testing.assert_array_equal(np.flatnonzero(~keep), np.sort(order[:count]))


def test_none_stands_for_no_gradient():
    x, scale = tf.Variable([2.0, 3.0]), tf.Variable(5.0)

    with tf.GradientTape() as tape:
        y = ops.with_gradient(lambda a, s: (a * s, (s,)), lambda g, s: (g * s * 2, None), x, scale)
    found = tape.gradient(y, [x, scale])

    assert y.numpy().tolist() == [10, 15]
    assert found[0].numpy().tolist() == [10, 10]
    assert found[1] is None


class Noted(keras.Model):
    """A dense layer; counts how often Python runs it."""

    def __init__(self):
        super().__init__()
        self.a = layers.Dense(3)
        self.count = 0

    def call(self, x):
        self.count += 1
        return self.a(x)


def test_passes_that_come_again_are_compiled_until_the_model_is_seen_differently():
    model, sites = built(Noted(), images(1, 6)), [Site("a"), A]
    adapter, batches = TensorFlowAdapter(model), [images(4, 6, seed=seed) for seed in range(6)]
    before = model.count

    for x in batches:
        outputs, seen = adapter.forward(x, sites)
        np.testing.assert_allclose(seen[Site("a")], x @ kernel(model.a) + np.asarray(model.a.bias), atol=1e-5)
        np.testing.assert_array_equal(outputs, seen[Site("a")])
    adapter.set_masks({"a": {"weight": np.zeros((3, 6), bool)}})
    _, masked = adapter.forward(batches[0], sites)

    assert model.count - before == 2 + 1 + 1  # two eager passes, one that compiles; one eager pass of the masked model
    assert not np.asarray(masked[A]).any()


def test_gradients_that_come_again_are_compiled_for_any_batch():
    model = built(Noted(), images(1, 6))
    adapter, batches = TensorFlowAdapter(model), [(images(4, 6, seed=seed), images(4, 3, seed=seed)) for seed in range(5)]
    before = model.count

    def loss(model, batch):
        return tf.reduce_sum(model(batch[0]) * batch[1])

    for x, y in batches:
        value, found = adapter.gradients(loss, [A], (x, y))
        np.testing.assert_allclose(found[A], y.T @ x, atol=1e-5)
        np.testing.assert_allclose(value, np.sum((x @ kernel(model.a) + np.asarray(model.a.bias)) * y), rtol=1e-5)

    assert model.count - before == 3


def test_a_pass_that_cannot_be_compiled_stays_eager():
    class Looking(keras.Model):
        def __init__(self):
            super().__init__()
            self.a = layers.Dense(3)

        def call(self, x):
            return self.a(x) if float(np.asarray(x).sum()) > 0 else -self.a(x)

    model, x = Looking(), np.ones((2, 6), "float32")
    model(x)

    for sign in (1, 1, 1, -1):
        outputs, _ = TensorFlowAdapter(model).forward(sign * x)
        np.testing.assert_allclose(outputs, sign * (sign * x @ kernel(model.a)), atol=1e-5)
