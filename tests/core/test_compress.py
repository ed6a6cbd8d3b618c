"""The front door on the NumPy framework: entries, algorithms, recipes, and what must stay as it was."""

import json

import numpy as np
import pytest

import nnc
from nnc.algorithm import Pruner
from nnc_pruning import L1NormPruner, LevelPruner
from tests import fakes

pytestmark = pytest.mark.usefixtures("fake_framework")
LENET = [{"sparsity_per_layer": 0.5, "op_types": ["Linear", "Conv2d"]}, {"exclude": True, "op_names": ["fc2"]}]


def gone(masks):
    """Return the fraction of weights that each layer loses."""
    return {name: round(1 - float(given["weight"].mean()), 4) for name, given in masks.items()}


def test_the_lowest_half_of_each_layer_is_masked_and_the_model_keeps_its_class():
    model = fakes.lenet()

    masked, masks = L1NormPruner(model, LENET).compress()

    assert masked is model
    assert gone(masks) == {"conv1": 0.5, "conv2": 0.5, "fc1": 0.5}


def test_entries_of_several_algorithms_work_in_one_list():
    config = [{"sparsity": 0.5}, {"op_types": "Linear", "algorithm": "level", "total_sparsity": 0.3}, {"op_names": "fc2", "exclude": True}]

    masks = nnc.compress(fakes.lenet(), config).masks

    assert gone(masks) == {"fc1": 0.3, "conv1": 0.5, "conv2": 0.5}
    assert masks["fc1"]["weight"].any(axis=1).all()


def test_an_algorithm_that_governs_nothing_in_the_end_is_not_run():
    config = [{"algorithm": "random", "sparsity": 0.9}, {"algorithm": "l1_norm", "sparsity": 0.5}]

    assert set(gone(nnc.compress(fakes.lenet(), config).masks).values()) == {0.5}


@pytest.mark.parametrize(
    ("name", "text"), [("r.json", json.dumps(LENET)), ("r.yaml", "algorithm: l2_norm\nconfig_list:\n- {sparsity: 0.5}\n")]
)
def test_a_recipe_may_be_a_file(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)

    assert set(gone(nnc.compress(fakes.lenet(), path).masks).values()) == {0.5}


def test_a_single_entry_may_be_a_dict():
    assert gone(nnc.compress(fakes.lenet(), {"op_names": "fc1", "sparsity": 0.2}).masks) == {"fc1": 0.2}


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is no JSON"), ('[{"sparsity": 2}]', r"r.json: config_list\[0\].sparsity: 2 is outside")]
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    path = tmp_path / "r.json"
    path.write_text(text)

    with pytest.raises(nnc.ConfigError, match=message):
        nnc.compress(fakes.lenet(), path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(nnc.ConfigError, match=r"nowhere.yaml: the recipe cannot be read"):
        nnc.compress(fakes.lenet(), tmp_path / "nowhere.yaml")


def test_a_pruner_that_does_not_exist_is_an_error_with_the_nearest():
    with pytest.raises(nnc.ConfigError, match=r"config_list\[1\].algorithm: 'l1norm' is no algorithm; nearest: 'l1_norm'"):
        nnc.compress(fakes.lenet(), [{"sparsity": 0.5}, {"algorithm": "l1norm", "sparsity": 0.5}])


def test_a_pruner_refuses_entries_of_another():
    with pytest.raises(nnc.ConfigError, match=r"config_list\[0\].algorithm: 'fpgm' was asked of L1NormPruner"):
        L1NormPruner(fakes.lenet(), [{"algorithm": "fpgm", "sparsity": 0.5}])


def test_a_config_error_hides_the_schema_library():
    with pytest.raises(nnc.ConfigError) as caught:
        L1NormPruner(fakes.lenet(), [{"sparsity": 2}])

    assert caught.value.__suppress_context__


def test_pruning_again_never_revives_and_keeps_other_layers_masks():
    model = fakes.lenet()
    LevelPruner(model, [{"op_names": "fc1", "sparsity": 0.5}]).compress()
    first = model.masked["fc1"]["weight"]

    _, masks = L1NormPruner(model, [{"op_names": ["fc1", "fc2"], "sparsity": 0.5}]).compress()

    assert masks.keys() == {"fc1", "fc2"}
    assert not (masks["fc1"]["weight"] & ~first).any()


def test_unwrap_gives_the_model_back():
    model = fakes.lenet()
    compressed = nnc.compress(model, LENET)

    assert compressed.unwrap() is model
    assert model.masked == {}


@pytest.mark.parametrize("purpose", ["speedup", "report"])
def test_what_runs_the_model_says_that_it_needs_inputs(purpose):
    with pytest.raises(nnc.ConfigError, match=rf"example_inputs: {purpose}\(\) runs the model"):
        getattr(nnc.compress(fakes.lenet(), LENET), purpose)()


class Faulty(Pruner):
    """A pruner whose score is whatever a test sets."""

    name = "faulty"
    result = None

    def score(self, layer):
        return self.result


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.ones(3), r"Faulty.score\('fc1'\): the scores have shape \(3,\); granularity 'channel' needs \(50,\)"),
        (np.full(50, np.nan), r"Faulty.score\('fc1'\): 50 of 50 scores are NaN"),
    ],
)
def test_scores_that_cannot_be_ranked_name_the_algorithm_and_the_layer(result, message):
    model = fakes.lenet()
    pruner = Faulty(model, [{"op_names": "fc1", "sparsity": 0.5}])
    pruner.result = result

    with pytest.raises(nnc.ConfigError, match=message):
        pruner.compress()

    assert model.masked == {}


def test_scores_that_differ_by_rounding_only_count_as_equal():
    pruner = Faulty(fakes.lenet(), [{"op_names": "fc2", "sparsity": 0.5}])
    pruner.result = 0.1 + np.array([3, 1, 2, 0, 3, 1, 0, 1, 2, 0]) * 1e-17

    _, masks = pruner.compress()

    assert np.flatnonzero(masks["fc2"]["bias"]).tolist() == [5, 6, 7, 8, 9]
