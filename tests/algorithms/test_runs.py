"""Runs in rounds that are interrupted, repeated, or given what cannot be meant."""

import json
import shutil

import numpy as np
import pytest

import nnc
from nnc.errors import ConfigError, StorageError, TrainingError
from nnc.registry import adapter_for
from tests.algorithms.test_schedules import CONFIG, accuracy
from tests.algorithms.tiny_networks import ROWS, mlp, seen, tensor, trainer


class Killed(BaseException):
    """Stands for Ctrl-C and for a process that ends."""


def dies_at(call):
    """Return a metric that ends the process when it is asked for the `call`-th time: once after training, once for the round."""
    calls = []

    def evaluate(model):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return accuracy(model)

    return evaluate


def pruner(framework, model, folder=None, evaluate=accuracy, trainer_options=None, **options):
    trained = trainer(framework, ROWS, rate=0.05, evaluate=evaluate, **{"steps": 2, **(trainer_options or {})})
    return nnc.ScheduledPruner(model, CONFIG, **{"trainer": trained, "rounds": 2, "folder": folder, **options})


def state(model):
    """Return the weights and masks of the hidden layer."""
    return seen(model, "hidden").tolist(), adapter_for(model).masks().keys()


@pytest.mark.parametrize("speedup", [False, True])
def test_after_an_exception_the_users_model_is_as_it_was_and_the_same_call_goes_on(framework, tmp_path, speedup):
    model, inputs = mlp(framework), tensor(framework, ROWS[0][0])
    before = state(model)

    with pytest.raises(Killed):
        pruner(framework, model, tmp_path / "run", dies_at(4), example_inputs=inputs, speedup=speedup).compress()

    assert state(model) == before
    again = pruner(framework, model, tmp_path / "run", example_inputs=inputs, speedup=speedup)
    assert len(again.done) == 1
    result, _ = again.compress()
    whole, _ = pruner(framework, mlp(framework), example_inputs=inputs, speedup=speedup).compress()
    np.testing.assert_array_equal(seen(result, "hidden"), seen(whole, "hidden"))


def test_a_pruner_whose_run_was_interrupted_can_be_asked_again(framework):
    model = mlp(framework)
    interrupted = pruner(framework, model, evaluate=dies_at(4))
    with pytest.raises(Killed):
        interrupted.compress()

    result, _ = interrupted.compress()

    assert [one.number for one in interrupted.done] == [1, 2]
    whole, _ = pruner(framework, mlp(framework)).compress()
    np.testing.assert_array_equal(seen(result, "hidden"), seen(whole, "hidden"))


def test_the_same_call_on_a_finished_run_returns_its_result(framework, tmp_path):
    model = mlp(framework)
    first, _ = pruner(framework, model, tmp_path / "run").compress()
    result = state(first)

    again, masks = pruner(framework, model, tmp_path / "run").compress()

    assert state(again) == result
    assert masks["hidden"]["bias"].sum() == 1


def test_after_a_speedup_the_users_model_is_as_it_was(framework):
    model, inputs = mlp(framework), tensor(framework, ROWS[0][0])
    before = state(model)
    trained = trainer(framework, ROWS, rate=0.05, steps=2)  # admm trains the model before its channels leave

    nnc.ScheduledPruner(model, [{**CONFIG[0], "algorithm": "admm"}], inputs, rounds=2, trainer=trained, speedup=True).compress()

    assert state(model) == before


@pytest.mark.parametrize("left", [["round_000"], ["run.json"], ["run.json", "round_000"]])
def test_a_run_that_was_killed_before_its_first_round_begins_again(framework, tmp_path, left):
    folder = tmp_path / "run"
    pruner(framework, mlp(framework), folder).compress()
    for path in folder.iterdir():
        if path.name not in left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    again = pruner(framework, mlp(framework), folder)
    again.compress()

    assert [one.number for one in again.done] == [1, 2]


def other_weights(framework):
    model = mlp(framework)
    trainer(framework, ROWS, steps=1).train(model)
    return model


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (other_weights, {}, "began with other weights than the model has; choose another folder, or give the model as it was"),
        (mlp, {"train": False}, "holds a run with train True, not False"),
        (mlp, {"trainer_options": {"steps": 9}}, "holds a run with trainer.steps 2, not 9"),
        (mlp, {"trainer_options": {"accumulate": 2}}, "holds a run with trainer.accumulate 1, not 2"),
        (mlp, {"trainer": None}, "holds a run with trainer .*, not None"),
        (mlp, {"seed": 1}, "holds a run with seed 0, not 1"),
    ],
)
def test_a_folder_of_another_run_names_what_differs(framework, tmp_path, build, options, message):
    pruner(framework, mlp(framework), tmp_path / "run", rounds=1).compress()

    with pytest.raises(ConfigError, match=message):
        pruner(framework, build(framework), tmp_path / "run", **{"rounds": 1, **options})


def test_a_run_goes_on_that_was_begun_before_a_key_was_known(framework, tmp_path):
    pruner(framework, mlp(framework), tmp_path / "run").compress()
    path = tmp_path / "run" / "run.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in known.items() if key not in ("train", "trainer")}))

    assert len(pruner(framework, mlp(framework), tmp_path / "run").done) == 2


def test_a_description_that_is_none_is_one_clear_error(tmp_path):
    (tmp_path / "run.json").write_text("[]")

    with pytest.raises(StorageError, match=r"the run cannot be read: run\.json holds a list"):
        nnc.runs.read_rounds(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_no_number_names_its_round(framework, value):
    model = mlp(framework)
    before = state(model)
    calls = []

    def evaluate(model):
        calls.append(1)
        return value if len(calls) == 2 else 1.0

    with pytest.raises(TrainingError, match=f"round 2: Trainer.evaluate returned {value}; a finite number is needed"):
        pruner(framework, model, evaluate=evaluate, schedule="simulated_annealing").compress()
    assert state(model) == before


ANNEALING = {"schedule": "simulated_annealing"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**ANNEALING, "temperature": 0}, "temperature: 0 is no number above 0; a worse trial"),
        ({**ANNEALING, "temperature": "1"}, "temperature: '1' is no number above 0"),
        ({**ANNEALING, "cool_down": 0}, "cool_down: 0 is no number above 0 to 1"),
        ({**ANNEALING, "cool_down": 5.0}, "cool_down: 5.0 is no number above 0 to 1"),
        ({**ANNEALING, "reach": -1}, "reach: -1 is no number above 0"),
        ({**ANNEALING, "temprature": 1}, "'simulated_annealing' does not take temprature; nearest: 'temperature'; its options are"),
        ({"schedule": "auto_compress", "steps": 0}, "steps: 0 is no whole number above 0"),
        ({"schedule": "auto_compress", "steps": 1.5}, "steps: 1.5 is no whole number above 0"),
        ({"schedule": "auto_compress", "coldown": 1}, "'auto_compress' does not take coldown; nearest: 'cool_down'"),
        ({"schedule": "amc", "noise": -1}, "noise: -1 is no number from 0"),
        ({"schedule": "amc", "noise": float("nan")}, "noise: nan is no number from 0"),
        ({"seed": "a"}, "seed: 'a' is no whole number from 0"),
        ({"seed": -1}, "seed: -1 is no whole number from 0"),
        ({"rounds": True}, "rounds: True is no whole number above 0"),
        ({"trainer": "x"}, "trainer: 'x' is no nnc.Trainer; pass nnc.Trainer"),
        ({"train": "no"}, "train: 'no' is neither True nor False"),
        ({"folder": __file__}, "folder: .* is a file; the rounds need a folder"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_error_before_anything_is_touched(framework, given, message):
    model = mlp(framework)
    before = state(model)

    with pytest.raises(ConfigError, match=message):
        pruner(framework, model, **given)
    assert state(model) == before


def test_a_pruner_that_learns_needs_a_trainer(framework):
    with pytest.raises(ConfigError, match=r"trainer: 'movement' learns in training; pass trainer=nnc\.Trainer"):
        nnc.ScheduledPruner(mlp(framework), [{**CONFIG[0], "algorithm": "movement"}])


def test_numbers_of_numpy_are_numbers(framework, tmp_path):
    pruner(framework, mlp(framework), tmp_path / "run", rounds=np.int64(1), seed=np.int64(3)).compress()

    assert json.loads((tmp_path / "run" / "run.json").read_text())["seed"] == 3
