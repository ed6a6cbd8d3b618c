"""The search for an observer, and the sensitivity of layers, on both frameworks."""

import numpy as np
import pytest

import nnc
from nnc.errors import ConfigError
from nnc.registry import adapter_for
from nnc.sensitivity import sensitivity
from nnc_quantization.search import search
from tests.algorithms.quantization_networks import NETWORKS

DRAW = np.random.default_rng(0)
ROWS = DRAW.standard_normal((64, 16)).astype("f4")


@pytest.fixture(params=sorted(NETWORKS))
def network(request):
    return NETWORKS[request.param]


def judged(network, model, rows=ROWS, metric=True):
    """Return a trainer whose metric is minus the error to the outputs that the model has now."""
    x = network.tensor(rows)
    truth = network.run(model, x)
    data = [(x, network.tensor(truth))]
    ops = adapter_for(model).layers()[0].ops

    def evaluate(model):
        return -float(((network.run(model, x) - truth) ** 2).mean())

    return nnc.Trainer(data, lambda outputs, targets: ops.sum((outputs - targets) ** 2), evaluate=evaluate if metric else None)


def two_layers(network):
    """Return a network whose second layer has rows that two bits cannot hold, and whose first has only -1, 0 and 1."""
    first = DRAW.integers(-1, 2, (8, 16)).astype("f4")
    return network.dense([first, np.linspace(-1, 1, 32).reshape(4, 8).astype("f4")])


WEIGHTS = {"algorithm": "ptq", "quant_types": ["weight"], "quant_bits": 2}


@pytest.mark.parametrize("metric", [True, False])
def test_the_layer_whose_weights_do_not_fit_the_grid_is_the_worst(network, metric):
    model = two_layers(network)
    before = {name: array.copy() for name, array in adapter_for(model).tensors().items()}

    found = sensitivity(model, [WEIGHTS], judged(network, model, metric=metric), network.tensor(ROWS))

    assert found.measure == ("metric" if metric else "loss")
    assert found.worst(1) == ("fc2",)
    assert found.lost["fc1"] == pytest.approx(0, abs=1e-4)
    assert found.lost["fc2"] > 0.01
    assert found.skipping() == [WEIGHTS, {"exclude": True, "op_names": ["fc2"]}]
    assert found.raising(1, 8) == [WEIGHTS, {**WEIGHTS, "op_names": ["fc2"], "quant_bits": 8}]
    assert all(np.array_equal(array, before[name]) for name, array in adapter_for(model).tensors().items())


def test_sensitivity_to_pruning_is_measured_in_the_same_way(network):
    model = two_layers(network)

    found = sensitivity(model, [{"algorithm": "l1_norm", "sparsity": 0.5}], judged(network, model))

    assert set(found.values) == {"fc1", "fc2"}
    assert min(found.lost.values()) > 0


def test_the_result_prints_draws_and_writes_a_recipe_that_runs(network, tmp_path):
    model = two_layers(network)
    found = sensitivity(model, [WEIGHTS], judged(network, model), network.tensor(ROWS))

    found.draw(tmp_path / "bars.png")
    found.write(tmp_path / "recipe.yaml", found.raising())
    compressed = nnc.compress(model, tmp_path / "recipe.yaml", example_inputs=network.tensor(ROWS))

    assert "fc2" in str(found)
    assert (tmp_path / "bars.png").stat().st_size > 1000
    assert {str(site): grid.bits for site, grid in compressed.quantizers[0].grids().items()} == {"fc1.weight": 2, "fc2.weight": 8}


def test_the_search_prefers_an_observer_that_cuts_a_lone_outlier_off(network):
    """One number of a thousand is a hundred times the others: in four bits, covering it leaves the others one level."""
    rows = ROWS.copy()
    rows[0, 0] = 300
    model = two_layers(network)
    usual, outlier = judged(network, model), [(network.tensor(rows), network.tensor(ROWS[:, :4]))]
    trainer = nnc.Trainer(outlier, usual.loss, evaluate=usual.metric)
    entry = {"algorithm": "ptq", "op_names": ["fc1"], "quant_types": ["input"], "quant_bits": 4}

    found = search(model, [entry], trainer, network.tensor(ROWS), observers=["minmax", "avg"], calib_steps=[1])

    assert [trial.observer for trial in found.trials] == ["avg", "minmax"]
    assert found.best.metric > 0.5 * found.trials[-1].metric  # errors, with a minus
    assert found.config_list[0]["observer"]["input"] == found.best.observer
    assert "minmax" in str(found)


def test_an_entry_that_asks_for_a_search_leaves_the_model_on_the_grids_of_the_best_trial(network):
    rows = ROWS.copy()
    rows[0, 0] = 300
    model = two_layers(network)
    usual = judged(network, model)
    trainer = nnc.Trainer([(network.tensor(rows), None), (network.tensor(ROWS), None)], usual.loss, evaluate=usual.metric)
    entry = {"algorithm": "ptq", "op_names": ["fc1"], "quant_types": ["input"], "quant_bits": 4}
    tries = {"observers": ["minmax", "avg"], "calib_steps": [1, 2]}

    def by_hand(observer, steps):
        compressed = nnc.compress(model, [{**entry, "observer": observer, "calib_steps": steps}], network.tensor(ROWS), trainer=trainer)
        found = usual.evaluate(model), compressed.quantizers[0].grids()
        compressed.unwrap()
        return found

    expected = {(observer, steps): by_hand(observer, steps) for observer in tries["observers"] for steps in tries["calib_steps"]}
    compressed = nnc.compress(model, [{**entry, "search": tries}], network.tensor(ROWS), trainer=trainer)
    quantizer = compressed.quantizers[0]

    best = max(expected, key=lambda way: expected[way][0])
    assert {(one.observer, one.calib_steps): one.metric for one in quantizer.searched.trials} == pytest.approx(
        {way: metric for way, (metric, _) in expected.items()}
    )
    assert (quantizer.searched.best.observer, quantizer.searched.best.calib_steps) == best == ("avg", 2)
    assert {site: float(grid.scale) for site, grid in quantizer.grids().items()} == pytest.approx(
        {site: float(grid.scale) for site, grid in expected[best][1].items()}
    )
    assert usual.evaluate(model) == pytest.approx(expected[best][0])
    again = nnc.compress(compressed.unwrap(), quantizer.searched.config_list, network.tensor(ROWS), trainer=trainer)
    assert usual.evaluate(model) == pytest.approx(expected[best][0])
    assert usual.evaluate(again.unwrap()) == pytest.approx(0, abs=1e-9)


def test_a_search_sees_the_model_through_the_masks_that_it_will_have(network):
    model = two_layers(network)
    usual = judged(network, model)
    pruned = {"algorithm": "l1_norm", "op_names": ["fc1"], "sparsity": 0.5}
    masked = nnc.compress(model, [pruned])
    worth = usual.evaluate(model)
    masked.unwrap()

    compressed = nnc.compress(model, [pruned, {"algorithm": "ptq", "search": {"observers": ["minmax"]}}], trainer=usual)

    assert compressed.quantizers[0].searched.before == pytest.approx(worth)
    assert len(compressed.quantizers[0].searched.trials) == 3


def test_an_error_in_the_midst_of_a_search_leaves_the_model_as_it_was(network):
    model = two_layers(network)
    usual, calls = judged(network, model), []

    def evaluate(model):
        calls.append(usual.evaluate(model))
        if len(calls) == 3:
            raise RuntimeError("the third time")
        return calls[-1]

    with pytest.raises(RuntimeError, match="the third time"):
        trainer = nnc.Trainer(usual.data, usual.loss, evaluate=evaluate)
        nnc.compress(model, [{**WEIGHTS, "quant_types": ["weight", "input"], "search": True}], trainer=trainer)

    assert calls[1] < -0.1
    assert usual.evaluate(model) == pytest.approx(0, abs=1e-9)


def test_a_search_that_cannot_be_made_says_so(network):
    model = two_layers(network)

    with pytest.raises(ConfigError, match=r"config_list\[0\]\.search: compares metrics"):
        search(model, [WEIGHTS], judged(network, model, metric=False))
    with pytest.raises(ConfigError, match="'minmx' is no observer; nearest: 'minmax'"):
        search(model, [WEIGHTS], judged(network, model), observers=["minmx"])
    with pytest.raises(ConfigError, match=r"config_list\[0\]\.search\.calib_steps"):
        search(model, [WEIGHTS], judged(network, model), calib_steps=[])
    with pytest.raises(ConfigError, match=r"config_list\[1\]\.search: is not what config_list\[0\]\.search is"):
        entries = [{**WEIGHTS, "op_names": ["fc1"], "search": True}, {**WEIGHTS, "op_names": ["fc2"], "search": {"calib_steps": [1]}}]
        nnc.compress(model, entries, trainer=judged(network, model))
    with pytest.raises(ConfigError, match='no entry names the algorithm "ptq"'):
        search(model, [{"sparsity": 0.5}], judged(network, model))


def test_the_command_line_prints_each_layer_and_writes_the_recipe_that_skips_the_worst(network, tmp_path):
    import yaml
    from typer.testing import CliRunner

    from nnc.cli import app

    draw = np.random.default_rng(1)
    np.savez(tmp_path / "data.npz", x=ROWS, labels=draw.integers(0, 4, 64))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"config_list": [WEIGHTS]}))
    head = "from tests.algorithms.test_quantization_search import NETWORKS, two_layers"
    (tmp_path / "built.py").write_text(f"{head}\ndef build(): return two_layers(NETWORKS[{network.name!r}])\n")
    files = ["--data", f"{tmp_path}/data.npz", "--output", f"{tmp_path}/new.yaml", "--picture", f"{tmp_path}/bars.png"]

    done = CliRunner().invoke(app, ["sensitivity", f"{tmp_path}/built.py:build", f"{tmp_path}/recipe.yaml", *files])

    assert done.exit_code == 0, done.output
    assert "fc1" in done.output
    assert "fc2" in done.output
    assert yaml.safe_load((tmp_path / "new.yaml").read_text())["config_list"][1]["exclude"] is True
    assert (tmp_path / "bars.png").exists()
