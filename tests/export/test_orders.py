"""Orders that no file can fulfil, or that would give another file than the caller has in mind: one clear error each."""

import numpy as np
import pytest

import nnc
from nnc.errors import ExportError
from nnc.grid import Grid
from nnc.views import Site
from tests.export.quantised import grids_of, simulated
from tests.frameworks import images

SITES = {
    "a string": ({"conv1.weight": Grid(1.0, 0)}, r"grids: 'conv1.weight': Grid is no entry; give \{Site\(layer"),
    "no grid": ({Site("conv1", "weight"): 3}, r"grids: Site\(layer='conv1', tensor='weight'\): int is no entry; give \{Site"),
    "no dict": ([3], "grids: list is no dict; give"),
    "three scales": (
        {Site("conv1", "weight"): Grid(np.ones(3), np.zeros(3), axis=0)},
        r"grids: conv1.weight: the scale has the shape \(3,\); a parameter of shape \(\d+, 1, 5, 5\) needs \(\d+,\)",
    ),
    "no such axis": ({Site("fc1", "weight"): Grid(np.ones(3), np.zeros(3), axis=4)}, "grids: fc1.weight: axis 4, block 0 do not go with"),
}


def lenet(framework):
    return framework.build("lenet"), framework.inputs(np.abs(images(4)))


@pytest.mark.parametrize("wrong", SITES)
def test_grids_of_another_form_are_refused(framework, wrong, tmp_path):
    model, inputs = lenet(framework)
    grids, message = SITES[wrong]

    with pytest.raises(nnc.ConfigError, match=message):
        nnc.export(model, tmp_path / "net.onnx", inputs, grids=grids)


def test_a_model_that_is_seen_on_grids_is_not_exported_without_them(framework, tmp_path):
    model, inputs = lenet(framework)
    simulated(model, inputs, grids_of(model, inputs))

    with pytest.raises(nnc.ConfigError, match=r"conv1.input \(rounded\).*c\.export\(path\).*writes them"):
        nnc.export(model, tmp_path / "net.onnx", inputs)

    assert list(tmp_path.iterdir()) == []


def test_a_model_whose_weights_alone_are_on_grids_is_written_as_it_computes(framework, tmp_path):
    model, inputs = lenet(framework)
    simulated(model, inputs, {site: grid for site, grid in grids_of(model, inputs, bits=3).items() if site.is_parameter})

    assert nnc.export(model, tmp_path / "net.onnx", inputs).difference < 1e-5


@pytest.mark.parametrize("opset", ["x", 17.5, True])
def test_an_opset_that_is_no_whole_number_is_refused(framework, opset, tmp_path):
    model, inputs = lenet(framework)

    with pytest.raises(nnc.ConfigError, match="is no whole number; give one such as 17"):
        nnc.export(model, tmp_path / "net.onnx", inputs, opset=opset)


def test_an_opset_that_no_exporter_knows_is_refused(framework, tmp_path):
    model, inputs = lenet(framework)

    with pytest.raises(nnc.ConfigError, match=r"opset: 99 is outside \d\d to \d\d"):
        nnc.export(model, tmp_path / "net.onnx", inputs, opset=99)


@pytest.mark.parametrize("length", [300, 5000])
def test_a_name_that_is_too_long_for_a_file_is_refused(framework, length, tmp_path):
    model, inputs = lenet(framework)

    with pytest.raises(nnc.StorageError, match=r"the file cannot be written: .*too long"):
        nnc.export(model, tmp_path / f"{'n' * length}.onnx", inputs)


def test_a_file_called_as_one_of_another_format_is_refused(framework, tmp_path):
    model, inputs = lenet(framework)

    with pytest.raises(nnc.ConfigError, match=r"format: 'onnx' was asked for, and 'net.tflite' .* give format='tflite'"):
        nnc.export(model, tmp_path / "net.tflite", inputs, format="onnx")


def test_a_path_says_which_format_is_meant(framework, tmp_path):
    model, inputs = lenet(framework)

    assert nnc.export(model, tmp_path / "net.data", inputs).format == "onnx"
    if framework.name == "torch":
        with pytest.raises(nnc.ConfigError, match="tflite"):
            nnc.export(model, tmp_path / "net.tflite", inputs)
    else:
        assert nnc.export(model, tmp_path / "net.tflite", inputs, data=[inputs], force=True).format == "tflite"


def test_a_loop_that_fills_a_list_is_refused_with_what_to_write_instead(tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.EmbeddingBag(20, 8), torch.nn.Linear(8, 3)).eval()

    with pytest.raises(ExportError, match=r"nn\.EmbeddingBag, and ONNX Runtime crashes on such files; an Embedding and a mean"):
        nnc.export(model, tmp_path / "bags.onnx", torch.randint(0, 20, (4, 5)))
    assert not list(tmp_path.iterdir())
