"""Schedules: sparsities worked out by hand, the budget of searches, and runs that go on after they were killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnc
from nnc.errors import ConfigError
from nnc.registry import schedule_class
from nnc.schedules import Prunable, Round
from tests.algorithms.tiny_networks import ROWS, mlp, seen, tensor, trainer
from tests.frameworks import FRAMEWORKS

LAYERS = {"a": Prunable(0.5, 8, 100), "b": Prunable(0.8, 16, 400), "c": Prunable(0.5, 4, 300)}
CONFIG = [{"op_names": ["hidden"], "sparsity": 0.67}]
ROOT = Path(__file__).parents[2]


def walk(schedule, metric_of=lambda task: None):
    """Return a schedule's tasks, its rounds having gone as `metric_of(task)` says."""
    tasks = []
    while (task := schedule.propose()) is not None:
        tasks.append(task)
        schedule.observe(Round(len(tasks), task, metric_of(task), 1, 0.0))
    return tasks


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", [0.2, 0.4, 0.6, 0.8]),
        ("agp", [0.8 * (1 - 0.75**3), 0.8 * (1 - 0.125), 0.8 * (1 - 0.25**3), 0.8]),
        ("lottery_ticket", [1 - 0.2**0.25, 1 - 0.2**0.5, 1 - 0.2**0.75, 0.8]),
    ],
)
def test_a_formulas_sparsities_are_those_of_its_paper(name, expected):
    tasks = walk(schedule_class(name)(LAYERS, 4))

    np.testing.assert_allclose([task.sparsity["b"] for task in tasks], expected, rtol=1e-12)
    assert {task.rewind for task in tasks} == {name == "lottery_ticket"}


SEARCHES = [("simulated_annealing", {}), ("auto_compress", {"steps": 2}), ("amc", {})]


@pytest.mark.parametrize(("name", "options"), SEARCHES)
def test_every_trial_of_a_search_removes_the_weights_that_the_config_asks_for(name, options):
    weights = {unit: layer.weights for unit, layer in LAYERS.items()}
    tasks = walk(schedule_class(name)(LAYERS, 6, seed=1, **options), lambda task: -task.sparsity["b"])
    removed = [sum(weights[unit] * value for unit, value in task.sparsity.items()) for task in tasks]

    whole = 0.5 * 100 + 0.8 * 400 + 0.5 * 300
    half = sum(weights[unit] * (1 - (1 - layer.sparsity) ** 0.5) for unit, layer in LAYERS.items())
    expected = [half] * 7 + [whole] * 7 if name == "auto_compress" else [whole] * 7
    np.testing.assert_allclose(removed, expected, rtol=1e-6)
    assert all(0 <= value <= 0.95 for task in tasks for value in task.sparsity.values())
    assert len({task.sparsity["b"] for task in tasks}) > 3


@pytest.mark.parametrize(("name", "options"), SEARCHES)
def test_the_last_round_of_a_search_trains_the_best_trial(name, options):
    tasks = walk(schedule_class(name)(LAYERS, 8, seed=2, **options), lambda task: -task.sparsity["b"])[-9:]

    best = min(tasks[:-1], key=lambda task: task.sparsity["b"])
    assert tasks[-1].sparsity == best.sparsity
    assert [task.train for task in tasks] == [False] * 8 + [True]
    assert {task.start for task in tasks} == {9 if name == "auto_compress" else 0}
    assert tasks[-1].algorithm == ("admm" if name == "auto_compress" else None)


@pytest.mark.parametrize(("name", "options"), SEARCHES)
def test_a_search_is_a_function_of_its_seed_and_of_how_its_rounds_went(name, options):
    first, again, other = (
        walk(schedule_class(name)(LAYERS, 5, seed=seed, **options), lambda task: task.sparsity["a"]) for seed in (3, 3, 4)
    )

    assert first == again
    assert first != other


def test_the_agent_finds_the_layer_that_does_not_matter():
    """The metric falls with what leaves b, so the best of the later trials takes less from b than the config's even share."""
    tasks = walk(schedule_class("amc")(LAYERS, 30, seed=0), lambda task: -task.sparsity["b"])

    assert tasks[-1].sparsity["b"] < 0.7


def accuracy(model):
    """Return a metric of any number: the negative squared error on the first batch."""
    x, y = ROWS[0]
    w1, b1, w2, b2 = (seen(model, layer, key) for layer in ("hidden", "classes") for key in ("weight", "bias"))
    return -float(np.mean((np.maximum(x @ w1.T + b1, 0) @ w2.T + b2 - y) ** 2))


def scheduled(framework, folder, schedule="agp", rounds=3, config=CONFIG, evaluate=accuracy, **options):
    trained = trainer(framework, ROWS, rate=0.05, steps=2, evaluate=evaluate)
    return nnc.ScheduledPruner(mlp(framework), config, schedule=schedule, rounds=rounds, trainer=trained, folder=folder, **options)


def test_each_round_is_on_disk_with_its_sparsity_metric_and_model(framework, tmp_path):
    model, masks = scheduled(framework, tmp_path / "run", "linear").compress()

    rounds = json.loads((tmp_path / "run" / "rounds.json").read_text())
    np.testing.assert_allclose([one["task"]["sparsity"]["hidden"] for one in rounds], [0.67 / 3, 0.67 * 2 / 3, 0.67], rtol=1e-9)
    assert rounds[-1]["metric"] == pytest.approx(accuracy(model), rel=1e-6)
    # Of 3 channels, with 5 numbers each, leave floor(0.67 * 3) = 2; 8 numbers of the classes stay.
    assert rounds[-1]["parameters"] == 5 + 8
    assert masks["hidden"]["bias"].sum() == 1
    saved = nnc.load(tmp_path / "run" / "round_003", model=mlp(framework))
    np.testing.assert_array_equal(seen(saved, "hidden"), seen(model, "hidden"))


def test_a_lottery_ticket_has_its_first_weights_again_before_it_trains(framework, tmp_path):
    model, masks = scheduled(framework, tmp_path / "run", "lottery_ticket", train=False).compress()

    np.testing.assert_array_equal(seen(model, "hidden"), seen(mlp(framework), "hidden") * masks["hidden"]["weight"])


@pytest.mark.parametrize("schedule", ["simulated_annealing", "amc"])
def test_a_search_ends_with_a_trained_model_of_the_sparsity_asked_for(framework, tmp_path, schedule):
    _, masks = scheduled(framework, tmp_path / "run", schedule, rounds=2).compress()

    assert masks["hidden"]["bias"].sum() == 1
    assert len(json.loads((tmp_path / "run" / "rounds.json").read_text())) == 3


def test_auto_compress_trains_towards_each_stages_sparsities(framework, tmp_path):
    _, masks = scheduled(framework, tmp_path / "run", "auto_compress", rounds=1, steps=2).compress()

    rounds = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert [one["task"]["algorithm"] for one in rounds] == [None, "admm", None, "admm"]
    assert masks["hidden"]["bias"].sum() == 1


KILLED = """
import os, signal, sys
{first_import}
from tests.algorithms.test_schedules import FRAMEWORKS, accuracy, scheduled
calls = []
def evaluate(model):
    calls.append(1)
    if len(calls) == {last}:
        os.kill(os.getpid(), signal.SIGKILL)  # in the middle of a round, before it is written
    return accuracy(model)
scheduled(FRAMEWORKS[sys.argv[1]], sys.argv[2], sys.argv[3], evaluate=evaluate).compress()
"""


#: The metric is asked for after each training and at the end of each round.
IN_ROUND_2 = [("agp", 4), pytest.param("simulated_annealing", 2, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("schedule", "last"), IN_ROUND_2)
def test_a_run_that_was_killed_goes_on_to_the_result_of_one_that_was_not(framework, tmp_path, schedule, last):
    whole, _ = scheduled(framework, tmp_path / "whole", schedule).compress()
    script = KILLED.format(first_import="import torch" if framework.name == "torch" else "", last=last)
    killed = subprocess.run(
        [sys.executable, "-c", script, framework.name, str(tmp_path / "killed"), schedule],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    rounds = len(json.loads((tmp_path / "killed" / "rounds.json").read_text()))
    assert rounds == 1
    resumed, _ = scheduled(framework, tmp_path / "killed", schedule).compress()

    for layer in ("hidden", "classes"):
        np.testing.assert_array_equal(seen(resumed, layer), seen(whole, layer))
    found, expected = (
        [{**one, "seconds": 0} for one in json.loads((tmp_path / name / "rounds.json").read_text())] for name in ("killed", "whole")
    )
    assert found == expected


def test_a_folder_of_another_run_is_refused_before_anything_is_touched(framework, tmp_path):
    scheduled(framework, tmp_path / "run", rounds=1, train=False).compress()

    with pytest.raises(ConfigError, match=r"folder: .*run holds a run with rounds 1, not 2; choose another folder"):
        scheduled(framework, tmp_path / "run", rounds=2)
    with pytest.raises(ConfigError, match="holds a run with config_list"):
        scheduled(framework, tmp_path / "run", rounds=1, config=[{"op_names": ["hidden"], "sparsity": 0.34}])


def test_a_folder_of_other_files_is_refused(framework, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(ConfigError, match="holds other files and no run; choose a new or empty folder"):
        scheduled(framework, tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schedule": "agb"}, "schedule: 'agb' is no schedule; nearest: 'agp'"),
        ({"schedule": "amc", "evaluate": None}, "the schedule 'amc' learns from a metric; pass trainer=nnc.Trainer"),
        ({"rounds": 0}, "rounds: 0 is no whole number above 0"),
        ({"steepness": 3}, "schedule: 'agp' does not take steepness"),
        ({"schedule": "lottery_ticket", "speedup": True}, "gives back the first weights, whole; speed up after the last round"),
        ({"config": [{"algorithm": "kl"}]}, "does not prune, so there is no sparsity"),
    ],
)
def test_what_cannot_be_scheduled_is_one_clear_error(tmp_path, given, message):
    with pytest.raises(ConfigError, match=message):
        scheduled(FRAMEWORKS["torch"], tmp_path / "run", **given)


@pytest.mark.filterwarnings("ignore:.*nothing leaves:UserWarning", "ignore::nnc.errors.NothingRemoved")
def test_a_round_whose_share_is_less_than_one_channel_leaves_the_network_whole_and_the_next_go_on(framework):
    model = mlp(framework)
    pruner = nnc.ScheduledPruner(model, CONFIG, tensor(framework, ROWS[0][0]), schedule="linear", rounds=4, speedup=True)

    small, _ = pruner.compress()

    # Of 3 channels 0.17, 0.34, 0.5 and 0.67 are due: 0, 1, 1 and 2, rounded down; the hidden layer has 4 weights and a bias, the last 2.
    assert [one.parameters for one in pruner.done] == [23, 16, 16, 9]
    assert small is not model
