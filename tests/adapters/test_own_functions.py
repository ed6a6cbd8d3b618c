"""Layers of a user's own, which call a function with parameters that they hold: constants go where their code adds them."""

import numpy as np
import pytest

import nnc

ROWS = np.ones((6, 5), bool)
ROWS[[1, 3]] = False


def torch_network(shifts):
    """A linear layer, a sigmoid, and F.linear with parameters that a module holds, which adds a vector of its own or none."""
    torch = pytest.importorskip("torch")

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 6))
            self.shift = torch.nn.Parameter(torch.randn(4)) if shifts else None

        def forward(self, x):
            return torch.nn.functional.linear(x, self.weight, self.shift)

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Sigmoid(), Own(), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    return network.eval(), torch.randn(2, 5), "0"


def keras_network(shifts):
    """The same on Keras; `kernel` is the name that Keras' own layers use."""
    keras = pytest.importorskip("keras")

    class Own(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")
            self.shift = self.add_weight(shape=(4,), name="shift", initializer="ones") if shifts else None

        def call(self, x):
            x = keras.ops.matmul(x, self.kernel)
            return x if self.shift is None else x + self.shift

    keras.utils.set_random_seed(0)
    first = keras.layers.Dense(6, "sigmoid", name="first")
    network = keras.Sequential([keras.Input((5,)), first, Own(), keras.layers.ReLU(), keras.layers.Dense(3)])
    return network, np.random.default_rng(0).standard_normal((2, 5)).astype("float32"), "first"


def shrunk(build, shifts):
    model, inputs, first = build(shifts)
    speedup = nnc.ModelSpeedup(model, inputs, {first: {"weight": ROWS}})
    speedup.speedup_model()
    return speedup


def test_a_constant_goes_into_what_a_module_of_the_users_adds_whatever_its_name():
    speedup = shrunk(torch_network, shifts=True)

    assert speedup.plan.groups[0].members[0].removed == (1, 3)
    assert speedup.difference <= 1e-6


@pytest.mark.parametrize("build", [torch_network, keras_network])
@pytest.mark.filterwarnings("ignore:ModelSpeedup removed nothing")
def test_a_constant_keeps_its_channel_where_code_of_the_users_adds_no_bias(build):
    speedup = shrunk(build, shifts=False)

    assert speedup.plan.groups == ()
    (kept,) = speedup.plan.kept
    assert kept.count == 2
    assert speedup.difference == 0


@pytest.mark.filterwarnings("ignore:ModelSpeedup removed nothing")
def test_what_a_layer_of_the_users_reads_on_keras_is_computed_as_before():
    assert shrunk(keras_network, shifts=True).difference <= 1e-6


def test_a_layer_that_another_keras_model_reads_too_is_cut_in_the_one_at_hand():
    """What reads it elsewhere is a layer of the user's, too, which Keras cannot copy."""
    keras = pytest.importorskip("keras")

    class Times(keras.layers.Layer):
        def __init__(self, function, **options):
            super().__init__(**options)
            self.function = function

        def build(self, shape):
            self.vector = self.add_weight(shape=(shape[-1],), name="vector", initializer="ones")

        def call(self, x):
            return self.function(x) * self.vector

    given = keras.Input((5,))
    hidden = Times(keras.ops.relu, name="times")(keras.layers.Dense(6, name="first")(given))
    keras.Model(given, Times(keras.ops.tanh, name="other")(hidden))
    model = keras.Model(given, keras.layers.Dense(3)(hidden))
    biases = np.ones(6, bool)
    biases[[1, 3]] = False

    speedup = nnc.ModelSpeedup(model, np.ones((2, 5), "float32"), {"first": {"weight": ROWS, "bias": biases}})
    small = speedup.speedup_model()

    assert small.get_layer("times").vector.shape == (4,)
    assert speedup.difference <= 1e-6
