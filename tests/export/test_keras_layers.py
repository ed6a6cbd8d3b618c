"""Keras layers that tf2onnx writes in several operations: separable convolutions, and linear layers over sequences and images."""

import keras
import numpy as np
import pytest
from keras import layers

import nnc
from nnc.registry import adapter_for
from tests.export.test_int8 import exact


def array(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def separable():
    keras.utils.set_random_seed(0)
    first = layers.Conv2D(8, 3, name="first", activation="relu", padding="same")
    both = layers.SeparableConv2D(8, 3, name="both", activation="relu", padding="same")
    last = layers.Conv2D(8, 3, name="last", padding="same")
    return keras.Sequential([keras.Input((8, 8, 3)), first, both, last, layers.Flatten(), layers.Dense(4, name="head")])


def linear_pair(between=None):
    keras.utils.set_random_seed(0)
    given = keras.Input((5, 16))
    hidden = layers.Dense(16, name="a")(given)
    return keras.Model(given, layers.Dense(8, name="b")(layers.Dropout(0.1)(hidden) if between == "dropout" else hidden))


def attended():
    keras.utils.set_random_seed(0)
    given = keras.Input((5, 16))
    hidden = layers.Dense(16, name="a")(given)
    return keras.Model(given, layers.MultiHeadAttention(2, 8, name="attention")(hidden, hidden))


def contracted():
    keras.utils.set_random_seed(0)
    given = keras.Input((5, 16))
    heads = layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 8), bias_axes="de", name="heads")
    return keras.Model(given, heads(layers.Dense(16, name="a")(given)))


def squeeze_excite():
    keras.utils.set_random_seed(0)
    given = keras.Input((8, 8, 3))
    planes = layers.Conv2D(8, 3, activation="relu", name="planes")(given)
    gate = layers.Dense(8, activation="sigmoid", name="gate")(layers.GlobalAveragePooling2D(keepdims=True)(planes))
    return keras.Model(given, layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(layers.Multiply()([planes, gate]))))


def quantised(model, inputs, path, **entry):
    """Return the result of an export after post-training quantisation, and the largest distance in steps of the output's range."""
    c = nnc.compress(model, [{"algorithm": "ptq", **entry}], example_inputs=inputs)
    expected = adapter_for(c.model).run(inputs)[0]
    result = c.export(path, force=True)
    c.unwrap()
    return result, result.difference * np.abs(expected).max() / (expected.max() - expected.min()) * 255


def test_a_separable_convolution_stays_float_with_the_reason_and_the_file_is_right(tmp_path):
    result, steps = quantised(separable(), array(2, 8, 8, 3), tmp_path / "net.onnx")

    assert steps <= 2
    kernels = {one.layer: one.kernel for one in result.placed}
    assert kernels == {"first": "QLinearConv", "last": "QLinearConv", "head": "QGemm", "both": "float"}
    assert [one.reason for one in result.placed if one.reason] == ["what it hands from one of its weights to the next has no grid"]
    assert len(result.placed) == len(kernels)


def test_a_layer_that_stays_float_reads_its_input_on_its_grid(tmp_path):
    keras.utils.set_random_seed(0)
    turned = [keras.Input((6, 6, 3)), layers.Conv2DTranspose(4, 3, name="turned"), layers.Flatten(), layers.Dense(4, name="head")]

    _, steps = quantised(keras.Sequential(turned), array(2, 6, 6, 3), tmp_path / "net.onnx", quant_bits={"input": 3})

    assert steps <= 2


@pytest.mark.parametrize("network", [linear_pair, lambda: linear_pair("dropout"), attended, contracted])
def test_linear_layers_over_sequences_follow_one_another(network, tmp_path):
    result, steps = quantised(network(), array(2, 5, 16), tmp_path / "net.onnx")

    assert {one.kernel for one in result.placed} <= {"QLinearMatMul", "MatMulIntegerToFloat", "QGemm"}
    assert steps <= 2


def test_a_linear_layer_over_the_mean_of_an_image_keeps_its_axes(tmp_path):
    result = nnc.export(squeeze_excite(), tmp_path / "net.onnx", array(2, 8, 8, 3))

    assert result.difference < 1e-5


def test_a_gate_of_linear_layers_over_an_image_is_quantised(tmp_path):
    result, steps = quantised(squeeze_excite(), array(2, 8, 8, 3), tmp_path / "net.onnx")

    assert {one.kernel for one in result.placed} <= {"QLinearConv", "QGemm", "MatMulIntegerToFloat"}
    assert steps <= 2


def block():
    """Return a residual block whose BatchNorm has trained: what it adds is not 0."""
    keras.utils.set_random_seed(0)
    given = keras.Input((8, 8, 8))
    first = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(given)
    second = layers.Conv2D(8, 3, padding="same", use_bias=False, name="second")(first)
    second = layers.BatchNormalization(name="norm", beta_initializer="random_normal")(second)
    rectified = layers.ReLU(name="relu")(layers.Add(name="sum")([second, first]))
    return keras.Model(given, layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(rectified)))


def test_the_last_convolution_of_a_residual_block_is_integer_where_its_batch_norm_has_trained(tmp_path):
    path, inputs = tmp_path / "net.onnx", array(64, 8, 8, 8)
    c = nnc.compress(block(), [{"algorithm": "ptq"}], example_inputs=inputs)
    expected = adapter_for(c.model).run(inputs)[0]

    result = c.export(path, force=True)

    assert {one.layer: one.kernel for one in result.placed} == {"first": "QLinearConv", "second": "QLinearConv", "head": "QGemm"}
    steps = np.abs(exact(path, inputs) - expected) / (expected.max() - expected.min()) * 255
    assert (steps <= 2).mean() >= 0.99


@pytest.mark.parametrize("cut", ["relu", "relu6"])
def test_a_linear_layer_is_integer_where_a_float_layer_reads_its_cut(cut, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16,)), layers.Dense(32, activation=cut, name="a"), layers.Dense(4, name="b")])

    result, steps = quantised(model, 4 * array(8, 16), tmp_path / "net.onnx", op_names=["a"])

    assert [(one.layer, one.kernel) for one in result.placed] == [("a", "QGemm")]
    assert steps <= 2


def lines():
    keras.utils.set_random_seed(0)
    first = [layers.Conv1D(16, 3, use_bias=False, name="first"), layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling1D(2)]
    return keras.Sequential(
        [keras.Input((16, 8)), *first, layers.Conv1D(16, 3, activation="relu", name="last"), layers.Flatten(), layers.Dense(4, name="head")]
    )


@pytest.mark.parametrize("bits", [8, 4])
def test_convolutions_over_lines_run_in_integers(bits, tmp_path):
    result, steps = quantised(lines(), array(4, 16, 8), tmp_path / "net.onnx", quant_bits=bits)

    assert {one.layer: one.kernel for one in result.placed} == {"first": "QLinearConv", "last": "QLinearConv", "head": "QGemm"}
    assert steps <= 2


def test_a_float_file_of_convolutions_over_lines_gives_what_the_model_gives(tmp_path):
    assert nnc.export(lines(), tmp_path / "net.onnx", array(4, 16, 8)).difference < 1e-5
