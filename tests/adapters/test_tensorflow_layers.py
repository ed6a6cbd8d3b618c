"""Keras layers as nnc sees them: names, types, canonical parameters; and which models are refused."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import nnc_tensorflow
from nnc.errors import ModelError
from nnc_tensorflow import ops
from nnc_tensorflow.adapter import TensorFlowAdapter
from tests.adapters.tensorflow_nets import Residual, built, images, lenet


def layers_of(model):
    return {layer.name: layer for layer in TensorFlowAdapter(model).layers()}


def single(layer, shape):
    return TensorFlowAdapter(keras.Sequential([keras.Input(shape), layer])).layers()[0]


def test_children_of_a_sequential_model_go_by_their_names():
    assert list(layers_of(lenet())) == ["conv1", "conv2", "fc1", "fc2"]


def test_children_of_a_subclassed_model_go_by_their_attributes():
    model = built(Residual(), images(2, 12, 12, 3))

    assert list(layers_of(model)) == [
        "",
        "stem",
        "block.convs.0",
        "block.convs.1",
        "block.norms.inner",
        "block.norms.outer",
        "block.depthwise",
        "head",
    ]


def test_a_model_within_a_model_prefixes_its_layers():
    given = keras.Input((28, 28, 1))
    model = keras.Model(given, layers.Dense(2, name="head")(lenet()(given)))

    assert list(layers_of(model)) == ["lenet.conv1", "lenet.conv2", "lenet.fc1", "lenet.fc2", "head"]


@pytest.mark.parametrize(
    ("layer", "shape", "op_types", "weight"),
    [
        (layers.Dense(5), (7,), ("Linear", "Dense"), (5, 7)),
        (layers.EinsumDense("abc,cd->abd", (None, 5)), (3, 7), ("Linear", "EinsumDense"), (5, 7)),
        (layers.EinsumDense("abc,cde->abde", (None, 5, 2)), (3, 7), ("Linear", "EinsumDense"), (10, 7)),
        (layers.EinsumDense("abcd,cde->abe", (None, 5)), (3, 4, 7), ("Linear", "EinsumDense"), (5, 28)),
        (layers.EinsumDense("abc,bcd->abd", (3, 5)), (3, 7), ("EinsumDense",), (3, 7, 5)),
        (layers.Conv1D(5, 3), (9, 7), ("Conv1d", "Conv1D"), (5, 7, 3)),
        (layers.Conv2D(6, (3, 2), groups=2), (9, 9, 4), ("Conv2d", "Conv2D"), (6, 2, 3, 2)),
        (layers.Conv3D(5, 3), (9, 9, 9, 7), ("Conv3d", "Conv3D"), (5, 7, 3, 3, 3)),
        (layers.Conv2DTranspose(5, 3), (9, 9, 7), ("ConvTranspose2d", "Conv2DTranspose"), (5, 7, 3, 3)),
        (layers.DepthwiseConv2D((3, 2), depth_multiplier=2), (9, 9, 4), ("DepthwiseConv2d", "Conv2d", "DepthwiseConv2D"), (8, 1, 3, 2)),
        (layers.SeparableConv2D(5, 3), (9, 9, 4), ("SeparableConv2d", "Conv2d", "SeparableConv2D"), (5, 4, 1, 1)),
        (layers.BatchNormalization(), (9, 9, 4), ("BatchNorm2d", "BatchNormalization"), (4,)),
        (layers.BatchNormalization(), (4,), ("BatchNorm1d", "BatchNormalization"), (4,)),
        (layers.BatchNormalization(), (2, 2, 2, 4), ("BatchNorm3d", "BatchNormalization"), (4,)),
        (layers.LayerNormalization(), (9, 4), ("LayerNorm", "LayerNormalization"), (4,)),
        (layers.Embedding(10, 4), (3,), ("Embedding",), (10, 4)),
    ],
)
def test_a_layer_has_neutral_types_and_a_canonical_weight(layer, shape, op_types, weight):
    found = single(layer, shape)

    assert found.op_types == op_types
    assert found.parameters.get("weight") == weight
    assert found.prunable is op_types[0].startswith(("Linear", "Conv", "Depthwise", "Separable", "Embedding"))


def test_the_canonical_weight_holds_keras_numbers_at_out_in_kernel():
    layer = layers.Conv2D(5, 3)
    weight = single(layer, (9, 9, 7)).weight

    assert weight[4, 6, 2, 1] == layer.get_weights()[0][2, 1, 6, 4]


def test_a_depthwise_weight_counts_the_multiplier_within_the_channel():
    layer = layers.DepthwiseConv2D(3, depth_multiplier=2)
    weight = single(layer, (9, 9, 4)).weight

    assert weight[3 * 2 + 1, 0, 2, 0] == layer.get_weights()[0][2, 0, 3, 1]


def test_native_names_and_layouts_are_brought_to_canonical_ones():
    layer = single(layers.Dense(5), (7,))

    assert layer.native == {"kernel": "weight"}
    assert layer.canonical("kernel", np.ones((7, 5))).shape == (5, 7)
    with pytest.raises(ValueError, match=r"\(7, 5\)"):
        layer.canonical("kernel", np.ones((5, 7)))


def test_a_subclass_of_a_keras_layer_keeps_the_types_of_its_base():
    class MyDense(layers.Dense):
        pass

    assert single(MyDense(3), (4,)).op_types == ("Linear", "Dense", "MyDense")


def test_tensor_operations_go_by_the_array_standards_names():
    x = ops.asarray(np.array([[3.0, -1.0], [2.0, 0.5]]))

    assert ops.sum(ops.abs(x), axis=1, keepdims=True).numpy().tolist() == [[4.0], [2.5]]
    assert ops.permute_dims(ops.reshape(x, (1, 2, 2)), (2, 0, 1)).shape == (2, 1, 2)
    assert ops.argsort(ops.max(x, axis=0), descending=True).numpy().tolist() == [0, 1]
    assert ops.sqrt(ops.square(x))[0, 1].numpy() == 1.0
    assert ops.concat([x, x], axis=0).shape == (4, 2)


def test_an_unbuilt_model_is_refused_with_what_to_do():
    with pytest.raises(ModelError, match=r"not built yet.*model.build\(input_shape\)"):
        TensorFlowAdapter(keras.Sequential([layers.Dense(3)]))


def test_only_keras_models_are_recognised():
    assert nnc_tensorflow.recognises(lenet())
    assert not nnc_tensorflow.recognises(object())


def test_a_model_on_the_torch_backend_is_refused_with_how_to_change_it():
    code = """
import keras, nnc_tensorflow
from nnc.errors import ModelError
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
assert nnc_tensorflow.recognises(model)
from nnc_tensorflow.adapter import TensorFlowAdapter
try:
    TensorFlowAdapter(model)
except ModelError as error:
    print(error)
"""
    environment = {**os.environ, "KERAS_BACKEND": "torch"}

    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert "'torch' backend" in result.stdout
    assert "KERAS_BACKEND=tensorflow" in result.stdout


def test_importing_the_plugin_imports_no_framework():
    code = "import sys, nnc_tensorflow; print([name for name in ('keras', 'tensorflow', 'torch') if name in sys.modules])"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
