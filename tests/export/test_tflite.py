"""LiteRT files of Keras models."""

import numpy as np
import pytest

import nnc
from nnc.errors import ExportError
from nnc.grid import Grid
from nnc.views import Site
from tests.frameworks import FRAMEWORKS, images

KERAS = FRAMEWORKS["keras"]


def test_a_float_file_gives_what_the_model_gives(tmp_path):
    result = nnc.export(KERAS.build("lenet"), tmp_path / "net.tflite", KERAS.inputs(images()), format="tflite")

    assert (result.difference < 1e-5, (tmp_path / "net.tflite").stat().st_size) == (True, result.bytes)


def test_an_int8_file_multiplies_bytes_throughout(tmp_path):
    inputs = KERAS.inputs(images(8))

    result = nnc.export(KERAS.build("lenet"), tmp_path / "net.tflite", inputs, format="tflite", data=[inputs], force=True)

    assert [one.kernel for one in result.placed] == ["CONV_2D", "CONV_2D", "FULLY_CONNECTED", "FULLY_CONNECTED"]
    assert {one.reason for one in result.placed} == {""}
    assert result.bytes < 0.28 * result.float_bytes
    assert result.difference < 0.05


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": []}, "data: is empty"),
        ({"data": [np.full((2, 28, 28, 1), np.nan, "float32")]}, r"data\[0\]: holds NaN"),
        ({"data": [np.full((2, 28, 28, 1), np.inf, "float32")]}, r"data\[0\]: holds NaN or an infinite number"),
        ({"data": [np.ones((0, 28, 28, 1), "float32")]}, r"data\[0\]: is a batch of no samples"),
        ({"data": (np.ones((2, 20, 28, 1), "float32") for _ in range(2))}, r"data\[0\]: holds arrays of shape \(2, 20, 28, 1\)"),
        ({"data": np.ones((2, 28, 28, 1), "float32")}, "data: ndarray is no list of batches"),
        ({"data": 3}, "data: int is no list of batches"),
        ({"grids": {Site("fc1", "weight"): Grid(1.0, 0)}}, "grids: LiteRT's converter finds its own"),
    ],
)
def test_what_the_format_cannot_use_is_refused(options, said, tmp_path):
    with pytest.raises(nnc.ConfigError, match=said):
        nnc.export(KERAS.build("lenet"), tmp_path / "net.tflite", KERAS.inputs(images()), format="tflite", **options)

    assert list(tmp_path.iterdir()) == []


def test_a_torch_model_is_sent_to_onnx(tmp_path):
    torch = FRAMEWORKS["torch"]

    with pytest.raises(nnc.ConfigError, match="written from Keras models"):
        nnc.export(torch.build("lenet"), tmp_path / "net.tflite", torch.inputs(images()), format="tflite")


def test_a_file_that_the_fast_kernels_compute_otherwise_is_refused(tmp_path, monkeypatch):
    """Every file, as none is within less than no step."""
    lite = pytest.importorskip("nnc_tensorflow.lite")
    inputs = KERAS.inputs(images(4))
    order = {"format": "tflite", "data": [inputs]}
    monkeypatch.setattr(lite, "_SLOWER", 1e9)
    assert nnc.export(KERAS.build("lenet"), tmp_path / "right.tflite", inputs, **order).notes == ()
    monkeypatch.setattr(lite, "_STEPS", -1.0)

    with pytest.raises(ExportError, match=r"fast kernels \(XNNPACK\) give other outputs for this file than its plain ones, by \d+ steps"):
        nnc.export(KERAS.build("lenet"), tmp_path / "wrong.tflite", inputs, **order)
    assert not (tmp_path / "wrong.tflite").exists()
    assert (
        "run it without default delegates" in nnc.export(KERAS.build("lenet"), tmp_path / "x.tflite", inputs, force=True, **order).notes[0]
    )
