"""Float ONNX of models of either framework."""

import numpy as np
import onnx
import onnxruntime
import pytest

import nnc
from nnc.registry import adapter_for
from nnc_pruning import L1NormPruner
from tests.frameworks import LENET, images


def run(path, array):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: array})[0]


def largest_difference(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", ["lenet", "residual"])
def test_the_file_gives_what_the_model_gives(framework, name, tmp_path):
    model = framework.build(name)
    inputs = framework.inputs(images(2, 3, 12) if name == "residual" else images())

    result = nnc.export(model, tmp_path / "net.onnx", inputs)

    assert result.difference < 1e-5
    assert largest_difference(run(tmp_path / "net.onnx", np.asarray(inputs)), adapter_for(model).run(inputs)[0]) < 1e-5
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_a_file_takes_batches_of_any_size(framework, tmp_path):
    model = framework.build("lenet")
    nnc.export(model, tmp_path / "net.onnx", framework.inputs(images(2)))

    more = framework.inputs(images(5))

    assert largest_difference(run(tmp_path / "net.onnx", np.asarray(more)), adapter_for(model).run(more)[0]) < 1e-5


def test_weights_are_called_as_the_layers_are(framework, tmp_path):
    nnc.export(framework.build("lenet"), tmp_path / "net.onnx", framework.inputs(images()))

    names = {tensor.name for tensor in onnx.load(tmp_path / "net.onnx").graph.initializer}

    assert {"conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"} <= names


def test_a_masked_model_is_written_as_it_computes_and_stays_masked(framework, tmp_path):
    model = framework.build("lenet")
    inputs = framework.inputs(images())
    _, masks = L1NormPruner(model, LENET).compress()
    expected = adapter_for(model).run(inputs)[0]

    nnc.export(model, tmp_path / "net.onnx", inputs)

    assert largest_difference(run(tmp_path / "net.onnx", np.asarray(inputs)), expected) < 1e-5
    assert np.array_equal(adapter_for(model).masks()["conv1"]["weight"], masks["conv1"]["weight"])
    assert largest_difference(adapter_for(model).run(inputs)[0], expected) < 1e-6


def test_a_small_model_is_written_small(framework, tmp_path):
    model = framework.build("lenet")
    inputs = framework.inputs(images())
    _, masks = L1NormPruner(model, LENET).compress()
    small = nnc.ModelSpeedup(model, inputs, masks).speedup_model()

    nnc.export(small, tmp_path / "net.onnx", inputs)

    shapes = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(tmp_path / "net.onnx").graph.initializer}
    assert shapes["conv1.weight"] == (10, 1, 5, 5)
    assert largest_difference(run(tmp_path / "net.onnx", np.asarray(inputs)), adapter_for(small).run(inputs)[0]) < 1e-5


def test_an_opset_that_is_too_old_is_refused_and_nothing_is_left(framework, tmp_path):
    with pytest.raises(nnc.ConfigError, match=r"^opset: 9 is too old|^opset: 9 is outside"):
        nnc.export(framework.build("lenet"), tmp_path / "net.onnx", framework.inputs(images()), opset=9)

    assert list(tmp_path.iterdir()) == []


def test_a_newer_opset_can_be_asked_for(framework, tmp_path):
    result = nnc.export(framework.build("lenet"), tmp_path / "net.onnx", framework.inputs(images()), opset=20)

    assert (result.opset, result.difference < 1e-5) == (20, True)


def test_a_path_below_a_file_is_refused(framework, tmp_path):
    (tmp_path / "taken").write_text("mine")

    with pytest.raises(nnc.StorageError, match="cannot be written"):
        nnc.export(framework.build("lenet"), tmp_path / "taken" / "net.onnx", framework.inputs(images()))

    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_a_folder_is_no_path_for_a_file(framework, tmp_path):
    with pytest.raises(nnc.StorageError, match="is a folder"):
        nnc.export(framework.build("lenet"), tmp_path, framework.inputs(images()))


def test_a_format_that_nobody_writes_is_refused(framework, tmp_path):
    with pytest.raises(nnc.ConfigError, match="format: 'onxx' is none that nnc writes; nearest: 'onnx'"):
        nnc.export(framework.build("lenet"), tmp_path / "net", framework.inputs(images()), format="onxx")


def test_export_needs_inputs(framework, tmp_path):
    with pytest.raises(nnc.ConfigError, match="example_inputs"):
        nnc.export(framework.build("lenet"), tmp_path / "net.onnx")


def test_tensors_that_a_keras_model_holds_besides_its_variables_are_stored(tmp_path):
    keras = pytest.importorskip("keras")
    import tensorflow as tf

    class Shifted(keras.layers.Layer):
        few, many = tf.constant([1.0, 2.0, 3.0]), tf.reshape(tf.range(600.0), (200, 3))

        def call(self, x):
            return x * self.few + self.many

    inputs = keras.Input((200, 3))
    model = keras.Model(inputs, keras.layers.Dense(4)(Shifted()(keras.layers.Normalization(mean=[1.0] * 3, variance=[2.0] * 3)(inputs))))
    x = np.random.default_rng(0).standard_normal((2, 200, 3)).astype("f4")

    result = nnc.export(model, tmp_path / "net.onnx", x)

    assert [each.name for each in onnx.load(tmp_path / "net.onnx").graph.input] == [model.inputs[0].name]
    assert result.difference < 1e-5
