"""The command line, on both frameworks, as a user types it."""

import json
import textwrap

import pytest
from typer.testing import CliRunner

from nnc.cli import app

NETS = {
    "torch": """
        import torch
        from collections import OrderedDict

        def build():
            torch.manual_seed(0)
            layers = {"conv": torch.nn.Conv2d(1, 4, 3), "act": torch.nn.ReLU(), "flat": torch.nn.Flatten(), "fc": torch.nn.Linear(16, 2)}
            return torch.nn.Sequential(OrderedDict(layers))
    """,
    "tensorflow": """
        import keras
        from keras import layers

        def build():
            keras.utils.set_random_seed(0)
            conv = layers.Conv2D(4, 3, activation="relu", name="conv")
            return keras.Sequential([keras.Input((4, 4, 1)), conv, layers.Flatten(), layers.Dense(2, name="fc")])
    """,
}
SHAPES = {"torch": [[2, 1, 4, 4]], "tensorflow": [[2, 4, 4, 1]]}


@pytest.fixture(name="framework", params=sorted(NETS))
def give_framework(request, tmp_path, monkeypatch):
    """Work in a folder with the network of one framework as `net_<framework>.py`, and a recipe for it."""
    framework = request.param
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"net_{framework}.py").write_text(textwrap.dedent(NETS[framework]))
    recipe = {
        "algorithm": "l1_norm",
        "config_list": [{"op_types": ["Conv2d"], "sparsity": 0.5}],
        "model": f"net_{framework}.py:build",
        "example_inputs": SHAPES[framework],
        "output": "small",
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    yield framework
    import sys

    # Every test has a file of that name in a folder of its own.
    sys.modules.pop(f"net_{framework}", None)
    sys.path[:] = [folder for folder in sys.path if folder != str(tmp_path)]


def nnc(*words):
    return CliRunner().invoke(app, list(words))


def test_layers_lists_names_types_and_shapes(framework):
    rows = json.loads(nnc("layers", f"net_{framework}.py:build", "--json").stdout)

    assert [(row["name"], row["weight"], row["prunable"]) for row in rows] == [("conv", [4, 1, 3, 3], True), ("fc", [2, 16], True)]
    assert "Conv2d" in rows[0]["op_types"] and "Linear" in rows[1]["op_types"]


def test_layers_shows_the_same_as_a_table(framework):
    assert "conv" in nnc("layers", f"net_{framework}.py:build").stdout


def test_a_recipe_gives_a_small_model_and_a_report(framework):
    report = json.loads(nnc("compress", "recipe.json", "--json").stdout)

    # 4 x 9 + 4 + 16 x 2 + 2 before; 2 x 9 + 2 + 8 x 2 + 2 after.
    assert report["parameters"] == [74, 38]
    assert report["macs"] == [4 * 9 * 4 + 32, 2 * 9 * 4 + 16]
    assert report["channels"] == {"conv": [4, 2], "fc": [2, 2]}
    assert report["difference"] < 1e-6


def test_the_saved_model_is_one_that_layers_can_read(framework):
    nnc("compress", "recipe.json")
    needs_code = framework == "torch"
    result = nnc("layers", "small", "--json")

    if needs_code:
        assert result.exit_code == 1 and "Pass model=" in result.stderr
    else:
        assert json.loads(result.stdout)[0]["weight"] == [2, 1, 3, 3]


def test_a_dotted_key_changes_the_recipe(framework):
    report = json.loads(nnc("compress", "recipe.json", "-o", "config_list.0.sparsity=0.25", "--json").stdout)

    assert report["channels"]["conv"] == [4, 3]


def test_the_report_is_a_table_without_json(framework):
    shown = nnc("compress", "recipe.json").stdout

    assert "parameters" in shown and "saved: small" in shown


def test_an_output_with_the_suffix_of_a_file_format_is_such_a_file(framework):
    onnx = pytest.importorskip("onnx")
    shown = nnc("compress", "recipe.json", "-o", "output=small.onnx").stdout

    weights = {tuple(each.dims) for each in onnx.load("small.onnx").graph.initializer}
    assert (2, 1, 3, 3) in weights and "small.onnx: onnx, opset" in shown


def test_a_narrow_terminal_shows_long_names_whole(tmp_path, monkeypatch):
    (tmp_path / "long.py").write_text(
        "from torch import nn\n\ndef build():\n"
        "    return nn.ModuleDict({f'{number}_' + 'n' * 90: nn.Linear(2, 2) for number in range(2)})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    shown = nnc("layers", "long.py:build").stdout

    assert shown.count("n" * 10) > 2 and "…" not in shown
    assert sum(line.split("│")[1].count("n") for line in shown.splitlines() if line.startswith("│")) == 2 * 90


def test_an_error_is_one_line_without_a_traceback(framework):
    result = nnc("compress", "recipe.json", "-o", "config_list.0.op_names=cnv")

    assert result.exit_code == 1
    assert result.stderr.startswith("error: config_list[0].op_names: 'cnv' matches no layer; nearest: 'conv'")
    assert "Traceback" not in result.output and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("key", ["model", "example_inputs", "output"])
def test_a_recipe_that_lacks_a_key_is_an_error(framework, key):
    result = nnc("compress", "recipe.json", "-o", f"{key}=null")

    assert (result.exit_code, result.stderr) == (1, f"error: {key}: is missing in the recipe; add it, or give -o {key}=...\n")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("net.py:build", "there is no file 'net.py'"),
        ("net", "'net' is no file. Write file.py:build"),
        ("json:lods", "json has no 'lods'; nearest: 'loads'"),
        ("no_such_package:build", "ModuleNotFoundError"),
        ("recipe.json", "is of no format that nnc reads (.keras, .onnx)"),
        ("json:__name__", "which is no model of a framework"),
    ],
)
def test_a_model_that_is_not_there_is_an_error(framework, reference, message):
    result = nnc("layers", reference)

    assert result.exit_code == 1
    assert message in result.stderr


def test_an_error_in_the_users_file_names_its_line(framework, tmp_path):
    (tmp_path / "broken.py").write_text("def build():\n    return 1 / 0\n")

    assert "ZeroDivisionError: division by zero" in nnc("layers", "broken.py:build").stderr
    assert "broken.py:2" in nnc("layers", "broken.py:build").stderr


def test_a_keras_file_is_a_model(tmp_path):
    keras = pytest.importorskip("keras")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")]).save(tmp_path / "model.keras")

    assert json.loads(nnc("layers", str(tmp_path / "model.keras"), "--json").stdout)[0]["name"] == "fc"


def test_algorithms_lists_the_built_in_ones():
    rows = json.loads(nnc("algorithms", "--json").stdout)

    assert {"level", "l1_norm", "l2_norm", "fpgm", "random"} <= {row["name"] for row in rows}
    assert "l1_norm" in nnc("algorithms").stdout


def test_schema_prints_json_schema():
    assert json.loads(nnc("schema").stdout)["title"] == "config_list"


def test_wrong_usage_ends_with_two():
    assert nnc("compres").exit_code == 2


def test_a_framework_without_a_demo_is_an_error():
    result = nnc("demo", "--framework", "toch")

    assert (result.exit_code, "nearest: 'torch'" in result.stderr) == (1, True)


WORDS = {
    "torch": """
        from torch import nn

        def build():
            return nn.Sequential(nn.Embedding(9, 6), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 2))
    """,
    "tensorflow": """
        import keras
        from keras import layers

        def build():
            hidden = layers.Dense(8, activation="relu", name="2")
            last = layers.Dense(2, name="4")
            return keras.Sequential([keras.Input((4,), dtype="int64"), layers.Embedding(9, 6, name="0"), layers.Flatten(), hidden, last])
    """,
}


@pytest.fixture(name="words")
def give_words(framework, tmp_path):
    """Return the reference of a network that reads whole numbers, and a recipe for it."""
    (tmp_path / f"net_{framework}.py").write_text(textwrap.dedent(WORDS[framework]))
    reference = f"net_{framework}.py:build"
    recipe = {"config_list": [{"op_names": ["2"], "sparsity": 0.5}], "model": reference, "example_inputs": "3,4:int64", "output": "small"}
    (tmp_path / "words.json").write_text(json.dumps(recipe))
    return reference


def test_inputs_may_be_whole_numbers(words):
    found = nnc("compress", "words.json", "--json")

    assert json.loads(found.stdout)["channels"]["2"] == [8, 4]
    assert nnc("layers", words, "--example", "3,4:int64").exit_code == 0


@pytest.mark.parametrize("command", ["layers", "export", "compress"])
def test_a_type_that_is_none_is_named(words, command):
    more = {"layers": [words, "--example"], "export": [words, "net.onnx", "--example"], "compress": ["words.json", "-o"]}[command]
    for kind in ("foo", "str"):
        given = f"example_inputs=3,4:{kind}" if command == "compress" else f"3,4:{kind}"
        place = "example_inputs" if command == "compress" else "--example"

        assert f"error: {place}: '3,4:{kind}': '{kind}' is no type of numbers; write float32, int64" in nnc(command, *more, given).stderr


@pytest.mark.parametrize("shape", ["3,-4:int64", "0,4", "3,x", ""])
def test_sizes_that_are_none_are_refused(words, shape):
    exported = nnc("export", words, "net.onnx", "--example", shape)
    compressed = nnc("compress", "words.json", "-o", f"example_inputs='{shape}'")

    assert f"error: --example: {shape!r} is no shape; write sizes with commas" in exported.stderr
    assert f"error: example_inputs: {shape!r} is not a list of shapes" in compressed.stderr
