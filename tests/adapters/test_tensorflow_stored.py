"""A Keras model's numbers by path, its architecture as data, and the demo."""

import json

import keras
import numpy as np
import pytest
from keras import layers

import nnc.testing
from nnc.errors import StorageError
from nnc_tensorflow.adapter import TensorFlowAdapter
from nnc_tensorflow.demo import TensorFlowDemo
from nnc_tensorflow.examples import residual_network
from tests.adapters.tensorflow_nets import HardCoded, Residual, built, images, lenet


def test_every_variable_has_a_path_and_keeps_keras_layout():
    found = TensorFlowAdapter(built(HardCoded(), images(2, 28, 28, 1))).tensors()

    assert list(found) == [
        "conv1.kernel",
        "conv1.bias",
        "conv2.kernel",
        "conv2.bias",
        "fc1.kernel",
        "fc1.bias",
        "drop.seed_generator.0",
        "fc2.kernel",
        "fc2.bias",
    ]
    assert found["conv2.kernel"].shape == (5, 5, 20, 50)


def test_tensors_load_into_a_fresh_model():
    x = images(2, 12, 12, 3)
    first, second = built(Residual(), x), built(Residual(), x, seed=1)

    TensorFlowAdapter(second).load_tensors(TensorFlowAdapter(first).tensors())

    assert (np.asarray(first(x)) == np.asarray(second(x))).all()


def test_what_does_not_fit_is_named_and_nothing_is_set():
    model = lenet()
    adapter, before = TensorFlowAdapter(model), model.get_weights()
    given = {path: array * 0 for path, array in adapter.tensors().items()}
    given |= {"fc1.kernel": np.zeros((400, 500)), "fc9.bias": np.zeros(3)}
    del given["conv1.bias"]

    with pytest.raises(StorageError) as caught:
        adapter.load_tensors(given)

    assert "conv1.bias is missing" in str(caught.value)
    assert "the model has no fc9.bias; nearest: 'fc1.bias'" in str(caught.value)
    assert "fc1.kernel has shape (400, 500), the model's has (800, 500)" in str(caught.value)
    assert all((a == b).all() for a, b in zip(model.get_weights(), before, strict=True))


def test_a_functional_model_is_rebuilt_from_json():
    model, x = residual_network()
    data = json.loads(json.dumps(TensorFlowAdapter(model).blueprint()))

    fresh = TensorFlowAdapter.rebuild(data)
    TensorFlowAdapter(fresh).load_tensors(TensorFlowAdapter(model).tensors())

    np.testing.assert_allclose(np.asarray(fresh(x)), np.asarray(model(x)), atol=1e-6)


def test_a_subclassed_model_has_no_blueprint():
    assert TensorFlowAdapter(built(Residual(), images(2, 12, 12, 3))).blueprint() is None


def test_a_blueprint_with_code_in_it_is_refused():
    given = keras.Input((3,))
    model = keras.Model(given, layers.Dense(2)(layers.Lambda(lambda x: x + 1)(given)))
    data = TensorFlowAdapter(model).blueprint()

    with pytest.raises(StorageError, match="Keras cannot build"):
        TensorFlowAdapter.rebuild(data)


def test_what_is_no_blueprint_is_refused():
    with pytest.raises(StorageError, match="Keras cannot build"):
        TensorFlowAdapter.rebuild({"keras": {"module": "os", "class_name": "system", "config": {}}})


def test_the_adapter_keeps_every_contract():
    nnc.testing.check_adapter(residual_network)


def test_the_demo_learns_and_reports_every_batch(tmp_path):
    demo, generator = TensorFlowDemo(), np.random.default_rng(0)
    labels = generator.integers(0, 10, 200)
    pictures = np.zeros((200, 28, 28), np.float32)
    pictures[np.arange(200), labels * 2 + 3] = 1.0  # a bright row tells the digit
    model, batches = demo.build(0), []

    demo.train(model, pictures, labels, epochs=3, batch_size=64, learning_rate=2e-3, seed=0, advance=lambda: batches.append(1))

    assert len(batches) == 3 * 4
    assert demo.accuracy(model, pictures, labels) > 0.9
    assert keras.models.load_model(demo.save_plain(model, tmp_path)).count_params() == 431_080


def test_the_same_seed_builds_the_same_network():
    demo = TensorFlowDemo()

    assert (demo.build(3).get_weights()[0] == demo.build(3).get_weights()[0]).all()
