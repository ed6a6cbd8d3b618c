"""Which outputs need a grid so that convolutional blocks stay in whole numbers, and that their files do."""

import keras
import numpy as np
import onnx
import pytest
import torch
from torch import nn

import nnc
from nnc.registry import adapter_for
from nnc.views import Site
from nnc_quantization.joints import joints


class Block(nn.Module):
    """A residual block; where it begins with a stride, another convolution brings the shortcut to its shape."""

    def __init__(self, inner, outer):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer)
        self.conv2, self.bn2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer)
        self.relu = nn.ReLU()
        self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, bias=False), nn.BatchNorm2d(outer)) if inner != outer else None

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + (x if self.short is None else self.short(x)))


class TorchNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2)
        self.block1, self.block2 = Block(8, 8), Block(8, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.pool(torch.relu(self.stem(x)))
        return self.head(self.block2(self.block1(x)).mean(dim=(2, 3)))


def torch_net():
    torch.manual_seed(0)
    return TorchNet().eval(), torch.rand(4, 3, 16, 16)


def keras_block(x, name, width):
    y = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_conv1")(x)
    y = keras.layers.ReLU()(keras.layers.BatchNormalization()(y))
    y = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_conv2")(y)
    y = keras.layers.BatchNormalization(name=f"{name}_bn2")(y)
    if x.shape[-1] != width:
        x = keras.layers.Conv2D(width, 1, use_bias=False, name=f"{name}_short")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_short_bn")(x)
    return keras.layers.ReLU(name=f"{name}_out")(keras.layers.Add()([y, x]))


def keras_net():
    keras.utils.set_random_seed(0)
    given = keras.Input((16, 16, 3))
    x = keras.layers.MaxPooling2D()(keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(given))
    x = keras_block(keras_block(x, "block1", 8), "block2", 16)
    model = keras.Model(given, keras.layers.Dense(4, name="head")(keras.layers.GlobalAveragePooling2D()(x)))
    return model, np.random.default_rng(0).random((4, 16, 16, 3)).astype("f4")


NETS = {"torch": torch_net, "keras": keras_net}
OUTPUTS = {
    "torch": {"block1.bn2": "block1.conv2", "block2.bn2": "block2.conv2", "block2.short.1": "block2.short.0", "block2": "block2.conv2"},
    "keras": {
        "block1_bn2": "block1_conv2",
        "block2_bn2": "block2_conv2",
        "block2_short_bn": "block2_short",
        "block2_out": "block2_conv2",
    },
}


@pytest.mark.parametrize("name", sorted(NETS))
def test_summands_and_the_last_sum_need_grids_and_what_a_convolution_reads_does_not(name):
    model, x = NETS[name]()
    adapter = adapter_for(model)
    layers = [layer.name for layer in adapter.layers() if layer.prunable]

    found = joints(adapter.structure(x), layers)

    assert found == {Site(layer, "output"): owner for layer, owner in OUTPUTS[name].items()}


@pytest.mark.parametrize("name", sorted(NETS))
def test_no_grid_is_asked_for_behind_layers_that_stay_float(name):
    model, x = NETS[name]()

    assert joints(adapter_for(model).structure(x), ["head"]) == {}


def torch_relu6():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(1152, 4)]
    return nn.Sequential(*layers).eval(), 20 * torch.rand(4, 3, 16, 16)


def keras_relu6():
    keras.utils.set_random_seed(0)
    first = [keras.layers.Conv2D(8, 3), keras.layers.BatchNormalization(), keras.layers.ReLU(6.0)]
    rest = [keras.layers.Conv2D(8, 3), keras.layers.ReLU(6.0), keras.layers.Flatten(), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input((16, 16, 3)), *first, *rest]), 20 * np.random.default_rng(0).random((4, 16, 16, 3)).astype("f4")


@pytest.mark.parametrize("build", [torch_relu6, keras_relu6])
def test_a_relu6_goes_into_the_integer_convolution_in_front(build, tmp_path):
    model, x = build()
    c = nnc.compress(model, [{"algorithm": "ptq"}], example_inputs=x)

    result = c.export(tmp_path / "net.onnx", force=True)

    kinds = [node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node]
    assert sorted(one.kernel for one in result.placed) == ["QGemm", "QLinearConv", "QLinearConv"]
    assert "Clip" not in kinds and "Relu" not in kinds
    assert result.difference < 0.02


@pytest.mark.parametrize("name", sorted(NETS))
def test_a_residual_network_is_integer_throughout_without_being_told_where_it_adds(name, tmp_path):
    model, x = NETS[name]()
    c = nnc.compress(model, [{"algorithm": "ptq"}], example_inputs=x)

    result = c.export(tmp_path / "net.onnx", force=True)

    assert {one.kernel for one in result.placed} == {"QLinearConv", "QGemm"}
    assert result.difference < 0.02
