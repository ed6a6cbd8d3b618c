"""Variables of the views that a Keras model is seen through: kept, shared, set, and none of the model's own."""

import keras
import numpy as np
import pytest

from nnc.views import Site, Variable, View
from nnc_tensorflow.adapter import TensorFlowAdapter
from tests.adapters.tensorflow_nets import images
from tests.adapters.tensorflow_views import OUTPUT, Plus, Scaled, small

A = Site("a", "weight")


@pytest.fixture(name="model")
def give_model():
    return small()


@pytest.fixture(name="adapter")
def give_adapter(model):
    return TensorFlowAdapter(model)


def kernel(layer):
    return np.asarray(layer._kernel.value)


def test_the_variables_of_a_view_that_stays_keep_their_numbers(adapter):
    adapter.set_views({A: (Scaled(1.0),)})
    adapter.set_numbers({("a.weight", "scaled"): {"s": np.float32(7)}})

    adapter.set_views({A: (Plus(1.0), Scaled(1.0)), Site("b", "weight"): (Scaled(1.0),)})

    assert float(adapter.numbers()[("a.weight", "scaled")]["s"]) == 7
    assert float(adapter.numbers()[("b.weight", "scaled")]["s"]) == 1


def test_variables_of_one_shared_name_are_one(adapter, model):
    adapter.set_views({Site(name, "weight"): (Scaled(1.0, shared="both"),) for name in "ab"})

    adapter.set_numbers({("a.weight", "scaled"): {"s": np.float32(2)}})

    np.testing.assert_allclose(np.asarray(model.layers[1].kernel), kernel(model.layers[1]) * 2)


def test_numbers_that_are_set_are_seen_without_compiling_again(model, adapter):
    x = images(4, 6)
    adapter.set_views({OUTPUT: (Scaled(1.0),)})
    before = model.predict(x, verbose=0)
    compiled = model.predict_function

    adapter.set_numbers({(str(OUTPUT), "scaled"): {"s": np.float32(2)}})

    np.testing.assert_allclose(model.predict(x, verbose=0), before * 2, rtol=1e-6)
    assert model.predict_function is compiled


def test_views_are_no_variables_of_the_model(model, adapter):
    before = [id(variable) for variable in model.variables]

    adapter.set_views({A: (Scaled(1.0, "scores"),)})

    assert [id(variable) for variable in model.variables] == before
    assert [id(variable) for variable in model.trainable_variables] == before


class Weighed(View):
    """A number for each of the weight's, by which it is multiplied."""

    name = "weighed"

    def variables(self):
        return {"scale": Variable(np.arange(6, dtype=np.float32).reshape(2, 3), True, "scales")}

    def __call__(self, x, state, ops, training):
        return x * state["scale"]


def test_a_variable_of_the_weights_shape_is_canonical_to_whoever_asks_though_it_is_stored_as_the_kernel_is():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, use_bias=False, kernel_initializer="ones", name="fc")])
    adapter = TensorFlowAdapter(model)
    adapter.set_views({Site("fc", "weight"): (Weighed(),)})
    key = ("fc.weight", "weighed")

    np.testing.assert_array_equal(adapter.numbers()[key]["scale"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(model(np.eye(3, dtype=np.float32)), [[0, 3], [1, 4], [2, 5]])

    adapter.set_numbers({key: {"scale": np.array([[1, 0, 0], [0, 0, 7]], np.float32)}})
    np.testing.assert_array_equal(adapter.numbers()[key]["scale"], [[1, 0, 0], [0, 0, 7]])
    np.testing.assert_array_equal(model(np.eye(3, dtype=np.float32)), [[1, 0], [0, 0], [0, 7]])
