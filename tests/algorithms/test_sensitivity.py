"""Sensitivity of layers: configs in every form, layers that cannot be measured, and files; on both frameworks."""

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import nnc
from nnc.bench import bench
from nnc.cli import app
from nnc.errors import ConfigError, StorageError
from nnc.sensitivity import judge, sensitivity
from nnc_quantization import search
from tests.algorithms.quantization_networks import NETWORKS

ROWS = np.random.default_rng(0).standard_normal((24, 6)).astype("f4")
LABELS = np.arange(24) % 3
TWO_BITS = {"algorithm": "ptq", "quant_types": ["weight"], "quant_bits": 2}
HALF = {"algorithm": "l1_norm", "sparsity": 0.5}


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    return NETWORKS[request.param]


def two_layers(network):
    draw = np.random.default_rng(1)
    return network.dense([draw.standard_normal((8, 6)).astype("f4"), draw.standard_normal((3, 8)).astype("f4")])


def given(network):
    """Return a network, its inputs, and a trainer that measures its accuracy."""
    x = network.tensor(ROWS)
    return two_layers(network), x, judge(x, LABELS)


@pytest.mark.parametrize("form", [dict, lambda entry: {"config_list": [entry]}, lambda entry: [entry]])
def test_a_config_is_written_as_for_compress(network, form):
    model, x, trainer = given(network)

    result = sensitivity(model, form(TWO_BITS), trainer, x)

    assert result.config_list == (TWO_BITS,)
    assert set(result.values) == {"fc1", "fc2"}


def test_a_config_may_be_the_path_of_a_recipe(network, tmp_path):
    model, x, trainer = given(network)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"algorithm": "ptq", "config_list": [{"op_names": ["fc1"]}]}))

    result = sensitivity(model, tmp_path / "recipe.yaml", trainer, x)

    assert (set(result.values), result.config_list[0]["algorithm"]) == ({"fc1"}, "ptq")
    with pytest.raises(ConfigError, match="config_list: 3 is no list of entries"):
        sensitivity(model, 3, trainer, x)


def test_without_a_trainer_nothing_is_measured(network):
    model, x, _ = given(network)

    with pytest.raises(ConfigError, match=r"trainer: None measures nothing; pass nnc\.Trainer"):
        sensitivity(model, [TWO_BITS], None, x)


def test_a_layer_of_which_nothing_can_leave_is_left_out_with_the_reason(network):
    """fc2 gives the model's output; without example inputs nobody knows."""
    model, x, trainer = given(network)

    result = sensitivity(model, [HALF], trainer, x)

    assert set(result.values) == {"fc1"}
    assert "nothing of fc2 can leave" in result.left_out["fc2"]
    assert "left out" in str(result)
    with pytest.raises(ConfigError, match="fc2"):
        sensitivity(model, [{**HALF, "op_names": ["fc2"]}], trainer, x)


def test_bits_are_raised_however_they_were_said(network):
    model, x, trainer = given(network)
    spelled = {"algorithm": "ptq", "op_types": ["Linear"], "quant_types": ["weight"]}
    settings = {"target_settings": {"weight": {"quant_dtype": "int2", "quant_scheme": "symmetric"}}}
    for said in (settings, {"quant_dtype": "int2"}, {"int4_layers": ["fc"]}, {"quant_bits": {"weight": 2}}):
        result = sensitivity(model, [{**spelled, **said}], trainer, x)
        (worst,) = result.worst(1)

        compressed = nnc.compress(model, result.raising(1, 8), x)

        bits = {site.layer: grid.bits for site, grid in compressed.quantizers[0].grids().items()}
        compressed.unwrap()
        assert bits[worst] == 8
        assert sorted(bits.values())[0] < 8
    assert result.config_list[0]["quant_bits"] == {"weight": 2}


def test_raised_bits_are_those_of_every_tensor_that_had_settings(network):
    model, x, trainer = given(network)
    result = sensitivity(model, [{"algorithm": "ptq", "op_types": ["Linear"], "quant_bits": {"output": 4}}], trainer, x)

    assert result.raising()[1]["quant_types"] == ["weight", "input", "output"]


def test_no_layers_to_skip_or_to_raise_leave_the_config_as_it_was(network):
    model, x, trainer = given(network)
    result = sensitivity(model, [TWO_BITS], trainer, x)

    assert result.skipping(0) == result.raising(0) == [TWO_BITS]
    for count in (-1, 1.5, True):
        with pytest.raises(ConfigError, match=r"skipping\(\): .* is no number of layers"):
            result.skipping(count)
    pruned = sensitivity(model, [HALF], trainer)
    with pytest.raises(ConfigError, match=r"raising\(\): 0 entries quantise"):
        pruned.raising()


def test_files_that_cannot_be_written_are_one_clear_error(network, tmp_path):
    model, x, trainer = given(network)
    result = sensitivity(model, [{**TWO_BITS, "op_names": ["fc1"]}], trainer, x)

    with pytest.raises(StorageError, match="cannot be written"):
        result.write(tmp_path / "none" / "new.yaml", [])
    with pytest.raises(ConfigError, match=r"draw\(\): .* ends in none of"):
        result.draw(tmp_path / "bars.pgn")


def test_a_search_tries_one_observer_on_one_number_of_batches(network):
    model, x, trainer = given(network)

    table = search(model, {"algorithm": "ptq"}, trainer, x, observers="mse", calib_steps=4)

    assert [(one.observer, one.calib_steps) for one in table.trials] == [("mse", 4)]
    with pytest.raises(ConfigError, match=r"config_list\[0\]\.search\.calib_steps\[0\]: 0 is not a whole number above 0; .* batches"):
        search(model, [{"algorithm": "ptq"}], trainer, x, calib_steps=0)


def test_labels_in_a_column_are_the_same_labels(network):
    model, x, trainer = given(network)

    result = bench([model], data={"x": ROWS, "labels": LABELS[:, None]}, repeats=1)

    assert result.models[0].accuracy == pytest.approx(trainer.evaluate(model))
    assert judge(x, LABELS[:, None]).evaluate(model) == trainer.evaluate(model)


@pytest.mark.parametrize("labels", [LABELS[:5], LABELS.astype(str), LABELS[:0], np.eye(3)[LABELS]])
def test_labels_that_are_not_one_for_each_sample_are_refused_everywhere(network, labels):
    model, x, _ = given(network)

    with pytest.raises(ConfigError, match=r"^labels: "):
        bench([model], data={"x": ROWS, "labels": labels}, repeats=1)
    with pytest.raises(ConfigError, match=r"^labels: "):
        judge(x, labels)


def run_cli(network, folder, entry, *options):
    np.savez(folder / "data.npz", x=ROWS, labels=LABELS)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"config_list": [entry]}))
    head = "from tests.algorithms.test_sensitivity import NETWORKS, two_layers"
    (folder / "built.py").write_text(f"{head}\ndef build(): return two_layers(NETWORKS[{network.name!r}])\n")
    files = [f"{folder}/built.py:build", f"{folder}/recipe.yaml", "--data", f"{folder}/data.npz"]
    return CliRunner().invoke(app, ["sensitivity", *files, *options])


def test_the_command_line_raises_bits(network, tmp_path):
    done = run_cli(network, tmp_path, TWO_BITS, "--raise", "2", "--bits", "6", "--output", f"{tmp_path}/new.yaml")

    assert done.exit_code == 0, done.output
    raised = yaml.safe_load((tmp_path / "new.yaml").read_text())["config_list"][1]
    assert (raised["quant_bits"], sorted(raised["op_names"])) == (6, ["fc1", "fc2"])


def test_the_command_line_measures_pruning_and_says_what_it_left_out(network, tmp_path):
    done = run_cli(network, tmp_path, HALF, "--json")

    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (list(result["values"]), list(result["left_out"])) == (["fc1"], ["fc2"])


@pytest.mark.parametrize(
    ("entry", "options", "told"),
    [
        (HALF, ["--raise", "1"], "raising(): 0 entries quantise, and bits are raised in one"),
        (TWO_BITS, ["--output", "/none/new.yaml"], "--output: '/none/new.yaml' cannot be written: there is no folder '/none'"),
        (TWO_BITS, ["--picture", "bars.pgn"], "--picture: 'bars.pgn' ends in none of"),
        (TWO_BITS, ["--skip", "1", "--raise", "1"], "--skip and --raise: the worst layers are either left alone or given more bits"),
    ],
)
def test_the_command_line_refuses_before_it_measures(entry, options, told, tmp_path):
    done = run_cli(NETWORKS["torch"], tmp_path, entry, *options)

    assert done.exit_code == 1
    assert done.output.startswith(f"error: {told}")
