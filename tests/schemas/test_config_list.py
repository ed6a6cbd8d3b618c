"""What a config_list may say, and what it is told when it says something else."""

import json

import numpy as np
import pytest

from nnc_schemas import SpecError, json_schema, parse_config_list, parse_recipe


def one(**keys):
    return parse_config_list([keys])[0]


@pytest.mark.parametrize("word", ["sparsity", "sparsity_per_layer", "sparse_ratio"])
def test_three_words_mean_the_sparsity_of_a_layer(word):
    assert one(**{word: 0.25}).per_layer == 0.25


@pytest.mark.parametrize("word", ["max_sparsity_per_layer", "max_sparse_ratio"])
def test_two_words_cap_a_layer_under_a_total(word):
    assert one(total_sparsity=0.5, **{word: 0.8}).cap == 0.8


@pytest.mark.parametrize("zero", [0, 0.0, np.float32(0), np.int64(0)])
def test_zero_is_a_sparsity_in_every_spelling(zero):
    assert one(sparsity=zero).per_layer == 0.0


def test_one_name_stands_for_a_list_of_one():
    assert one(op_types="Linear", sparsity=0.5).op_types == ("Linear",)


def test_a_spec_passes_as_it_is():
    spec = one(sparsity=0.5)

    assert parse_config_list([spec])[0] is spec


def test_a_config_list_survives_json():
    config = [{"op_types": ["Linear"], "sparse_ratio": 0.5}, {"op_names_re": "fc.*", "exclude": True}]

    assert parse_config_list(json.loads(json.dumps(config))) == parse_config_list(config)


def test_the_schema_is_json_and_knows_every_spelling():
    entry = json.loads(json.dumps(json_schema()))["$defs"]["PruneSpec"]

    assert {"sparsity", "sparsity_per_layer", "sparse_ratio", "op_partial_names"} <= entry["properties"].keys()
    assert entry["additionalProperties"] is False


REMOVE = "it is the fraction of channels to REMOVE"
WRONG = {
    "config_list[0].sparsity: 1.2 is outside [0, 1); " + REMOVE + ".": [{"sparsity": 1.2}],
    "config_list[1].sparsity: 1 is outside [0, 1); " + REMOVE + ".": [{"sparsity": 0.5}, {"sparsity": 1}],
    "config_list[0].sparsity_per_layer: -0.1 is outside [0, 1); ": [{"sparsity_per_layer": -0.1}],
    "config_list[0].sparsity: nan is outside [0, 1)": [{"sparsity": float("nan")}],
    "config_list[0].sparsity: True is not a number; ": [{"sparsity": True}],
    "config_list[0].sparsity: '0.5' is not a number; ": [{"sparsity": "0.5"}],
    "config_list[0].max_sparsity_per_layer: 0 is outside (0, 1]; ": [{"total_sparsity": 0.5, "max_sparsity_per_layer": 0}],
    "config_list[0].sparsty: unknown key; nearest: 'sparsity'": [{"sparsty": 0.5}],
    "config_list[0].op_type: unknown key; nearest: 'op_types'": [{"op_type": "Linear", "sparsity": 0.5}],
    "config_list[0].op_names: [1] is not a list of names.": [{"op_names": [1], "sparsity": 0.5}],
    "config_list[0].op_names: the list is empty": [{"op_names": [], "sparsity": 0.5}],
    "config_list[0].exclude: 'yes': ": [{"op_names": ["a"], "exclude": "yes"}],
    "config_list[0]: sparsity and sparsity_per_layer contradict each other": [{"sparsity": 0.5, "sparsity_per_layer": 0.5}],
    "config_list[0]: sparsity and total_sparsity contradict each other": [{"sparsity": 0.5, "total_sparsity": 0.5}],
    "config_list[0]: exclude contradicts sparsity": [{"op_names": ["a"], "exclude": True, "sparsity": 0.5}],
    "config_list[0]: exclude needs op_types": [{"exclude": True}],
    "config_list[0]: max_sparsity_per_layer needs total_sparsity": [{"sparsity": 0.5, "max_sparsity_per_layer": 0.8}],
    "config_list[0]: sparsity, total_sparsity or exclude is missing": [{"op_types": ["Linear"]}],
    "config_list[0]: 'Linear' is not a dict.": ["Linear"],
    "config_list: the list is empty": [],
    "config_list: {'sparsity': 0.5} is not a list of dicts, one for each entry. Write [entry]": {"sparsity": 0.5},
    "config_list: 'sparsity' is not a list": "sparsity",
    "config_list: None is not a list": None,
}


@pytest.mark.parametrize(("message", "config"), WRONG.items())
def test_a_wrong_config_list_is_told_where_and_why(message, config):
    with pytest.raises(SpecError) as caught:
        parse_config_list(config)

    assert str(caught.value).startswith(message)


def test_all_problems_are_told_at_once():
    with pytest.raises(SpecError) as caught:
        parse_config_list([{"sparsity": 2, "op_nams": "a"}, {}, 3])

    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "config_list[0].sparsity",
        "config_list[0].op_nams",
        "config_list[1]",
        "config_list[2]",
    ]


def test_a_recipe_is_a_list_an_entry_or_a_dict_of_both():
    entry = {"op_types": ["Linear"], "sparsity": 0.5}
    whole = parse_recipe({"algorithm": "fpgm", "config_list": [entry], "model": "net.py:build", "example_inputs": [[2, 1, 28, 28]]})

    assert parse_recipe([entry]).config_list == parse_recipe(entry).config_list == whole.config_list
    assert (whole.algorithm, whole.example_inputs) == ("fpgm", ((2, 1, 28, 28),))


def test_one_shape_stands_for_one_input():
    assert parse_recipe({"config_list": [{"sparsity": 0}], "example_inputs": [2, 16]}).example_inputs == ((2, 16),)


@pytest.mark.parametrize(
    ("message", "recipe"),
    [
        ("r.yaml: algoritm: unknown key; nearest: 'algorithm'", {"algoritm": "fpgm", "config_list": [{"sparsity": 0.5}]}),
        ("r.yaml: config_list: is missing.", {"output": "small"}),
        ("r.yaml: config_list[0].sparsity: 3 is outside", {"config_list": [{"sparsity": 3}]}),
        ("r.yaml: example_inputs: [[0]] is not a list of shapes", {"config_list": [{"sparsity": 0.5}], "example_inputs": [[0]]}),
        ("r.yaml: config_list: None is not a list", None),
    ],
)
def test_a_wrong_recipe_names_its_file(message, recipe):
    with pytest.raises(SpecError) as caught:
        parse_recipe(recipe, "r.yaml")

    assert str(caught.value).startswith(message)
