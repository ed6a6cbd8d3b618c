"""Small ONNX models are saved and loaded without pickle, with their original file or without."""

import numpy as np
import onnx
import pytest

import nnc
from nnc.registry import adapter_for
from nnc_onnx.examples import residual_network

HALF = [{"sparsity": 0.5}]


def run(model, x):
    return adapter_for(model).run(x)[0]


@pytest.mark.parametrize("with_original", [False, True])
def test_a_small_model_is_loaded_as_it_was_saved(tmp_path, with_original):
    model, x = residual_network()
    onnx.save(model, tmp_path / "net.onnx")
    done = nnc.compress(tmp_path / "net.onnx", HALF, x)
    small = done.speedup()
    done.save(tmp_path / "small")

    again = nnc.load(tmp_path / "small", model=str(tmp_path / "net.onnx") if with_original else None)

    assert np.array_equal(run(again, x), run(small, x))
    assert adapter_for(again).plans() == adapter_for(small).plans()


def test_masks_are_saved_too(tmp_path):
    model, x = residual_network()
    done = nnc.compress(model, HALF)
    nnc.save(model, tmp_path / "masked")

    again = nnc.load(tmp_path / "masked")

    assert np.array_equal(run(again, x), run(model, x))
    assert adapter_for(again).masks().keys() == done.masks.keys()


def test_a_small_file_written_by_onnx_remembers_its_plan_and_can_be_pruned_again(tmp_path):
    model, x = residual_network()
    onnx.save(nnc.compress(model, HALF, x).speedup(), tmp_path / "small.onnx")

    again = nnc.compress(tmp_path / "small.onnx", HALF, x)
    smaller = again.speedup()

    assert len(adapter_for(smaller).plans()) == 2
    assert next(layer for layer in nnc.layers(smaller) if layer.name == "mix").parameters["weight"] == (3, 4, 3, 3)
    assert again.report().difference <= 1e-5


def test_a_blueprint_that_is_none_is_refused():
    from nnc_onnx.adapter import OnnxAdapter

    with pytest.raises(nnc.StorageError, match="is no ONNX model"):
        OnnxAdapter.rebuild({"onnx": "!"})
