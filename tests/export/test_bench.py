"""`nnc bench` and `nnc export` from a shell's point of view."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import nnc
from nnc.bench import bench
from nnc.cli import app
from nnc.examples import Example, random_arrays
from tests.frameworks import FRAMEWORKS, images

NET = "tests/torch_networks.py:LeNet"


@pytest.fixture(name="files", scope="module")
def give_files(tmp_path_factory):
    """Return the same network as a float file and as one whose linear layers are int8."""
    folder = tmp_path_factory.mktemp("files")
    torch = FRAMEWORKS["torch"]
    model, inputs = torch.build("lenet"), torch.inputs(images())
    nnc.export(model, folder / "float.onnx", inputs)
    nnc.export(model, folder / "int8.onnx", inputs, dynamic=True, force=True)
    return [str(folder / "float.onnx"), str(folder / "int8.onnx")]


def test_variants_are_set_against_the_first_model(files):
    done = CliRunner().invoke(app, ["bench", *files, "--example", "2,1,28,28", "--repeats", "3", "--json"])

    found = json.loads(done.stdout)
    first, second = found["models"]
    assert (first["name"], first["speed"]) == (files[0], 1.0)
    assert second["size"] < 0.4 * first["size"]
    assert first["memory"] > first["size"]
    assert "batch 2, median of 3 runs by turns after 20 to warm up" in found["conditions"]


def test_data_tells_how_often_the_largest_score_is_right(files):
    array = images(20)
    scores = FRAMEWORKS["torch"].run(FRAMEWORKS["torch"].build("lenet"), array)
    labels = scores.argmax(1)
    labels[:5] = (labels[:5] + 1) % 10

    found = bench(files[:1], data={"image": array, "labels": labels}, repeats=2, memory=False)

    assert found.models[0].accuracy == 0.75


def test_an_example_that_is_no_shape_is_refused():
    with pytest.raises(nnc.ConfigError, match="'2,x' is no shape"):
        Example.parse("2,x")


def test_labels_that_are_no_classes_of_the_model_are_refused(files):
    with pytest.raises(nnc.ConfigError, match="labels: go from 1 to 10; the model has 10 classes, 0 to 9"):
        bench(files[:1], data={"image": images(10), "labels": np.arange(1, 11)}, repeats=1, memory=False)


@pytest.mark.parametrize(("name", "message"), [("torch", r"LeNet: failed on inputs of float32 \(2, 5\): "), ("keras", r"\(2, 5\)")])
def test_a_model_that_fails_is_an_error_that_says_what_it_was_given(name, message):
    model = FRAMEWORKS[name].build("lenet")

    with pytest.raises(nnc.NncError, match=message):
        bench([model], [Example((2, 5))], repeats=1, memory=False)


def test_runs_that_are_no_number_are_refused(files):
    with pytest.raises(nnc.ConfigError, match="repeats: 0 is no whole number above 0; it is how often each model is timed"):
        bench(files, [Example((1, 1, 28, 28))], repeats=0)


def test_inputs_of_one_shape_differ():
    first, second = random_arrays([Example.parse("2,3"), Example.parse("2,3")])

    assert not np.array_equal(first, second)


def test_data_without_labels_is_refused(files):
    with pytest.raises(nnc.ConfigError, match="needs the inputs and 'labels'"):
        bench(files, data={"image": np.zeros((1, 1, 28, 28), "float32")})


def test_export_writes_a_file_and_reports_it_as_json(tmp_path):
    done = CliRunner().invoke(app, ["export", NET, str(tmp_path / "net.onnx"), "--example", "2,1,28,28", "--json"])

    found = json.loads(done.stdout)
    assert (found["format"], found["difference"] < 1e-5, (tmp_path / "net.onnx").is_file()) == ("onnx", True, True)


def test_a_call_that_ends_before_the_clock_moves_is_timed_with_others(monkeypatch):
    kernels = pytest.importorskip("nnc_onnx.kernels")
    ticks = iter([0.0, 0.0, 0.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(kernels, "process_time", lambda: next(ticks))

    assert kernels.seconds_by_turns({"short": int}, repeats=2, warm_up=0) == {"short": [2.0, 1.0]}
