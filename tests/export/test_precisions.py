"""Models that compute in other numbers than float32."""

import numpy as np
import pytest

import nnc
from nnc.grid import Grid
from nnc.views import Site
from tests.frameworks import FRAMEWORKS, images


def in_precision(framework, name):
    """Return a small network in that precision, and inputs; "float64" is PyTorch's alone."""
    array = images(2)
    if framework.name == "torch":
        import torch

        kind = getattr(torch, name)
        return framework.build("lenet").to(kind), framework.inputs(array).to(kind)
    import keras

    keras.utils.set_random_seed(0)
    rows = [keras.layers.Conv2D(4, 3, name="conv1"), keras.layers.Flatten(), keras.layers.Dense(4, name="fc1")]
    for layer in rows:
        layer.dtype_policy = keras.DTypePolicy(f"mixed_{name}")
    return keras.Sequential([keras.Input((28, 28, 1)), *rows]), framework.inputs(array)


def test_a_model_in_float16_is_compared_within_that_precision(framework, tmp_path):
    model, inputs = in_precision(framework, "float16")

    assert nnc.export(model, tmp_path / "net.onnx", inputs).difference < 0.01


def test_a_model_in_float16_is_not_quantised(framework, tmp_path):
    model, inputs = in_precision(framework, "float16")
    grids = {Site("conv1", "weight"): Grid(1.0, 0), Site("conv1", "input"): Grid.between(-1, 1)}

    with pytest.raises(nnc.ConfigError, match=r"it computes in float16; quantised files are made from float32. Convert it first"):
        nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids, force=True)


def test_a_model_in_bfloat16_is_refused_with_the_remedy(framework, tmp_path):
    model, inputs = in_precision(framework, "bfloat16")

    with pytest.raises(nnc.ConfigError, match=r"bfloat16, for which ONNX Runtime lacks kernels. Convert it first"):
        nnc.export(model, tmp_path / "net.onnx", inputs)


def test_a_model_in_float64_is_refused_with_the_remedy(tmp_path):
    model, inputs = in_precision(FRAMEWORKS["torch"], "float64")

    with pytest.raises(nnc.ConfigError, match=r"float64, for which ONNX Runtime lacks kernels. Convert it first"):
        nnc.export(model, tmp_path / "net.onnx", inputs)


def test_what_the_exporter_of_torch_cannot_take_is_said_once(tmp_path, capfd):
    torch = FRAMEWORKS["torch"]

    with pytest.raises(nnc.ExportError, match="torch cannot export this LeNet to ONNX: "):
        nnc.export(torch.build("lenet"), tmp_path / "net.onnx", torch.inputs(images(2, channels=3)))

    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_a_dict_of_outputs_keeps_its_names(tmp_path):
    import onnx
    import torch

    class Two(torch.nn.Linear):
        def forward(self, x):
            found = super().forward(x)
            return {"logits": found, "shares": found.softmax(-1)}

    nnc.export(Two(4, 3), tmp_path / "net.onnx", torch.from_numpy(np.ones((2, 4), "float32")))

    assert [each.name for each in onnx.load(tmp_path / "net.onnx").graph.output] == ["logits", "shares"]
