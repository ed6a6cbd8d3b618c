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


WEIGHT = {"sparse_ratio": 0.5, "granularity": "out_channel", "max_sparse_ratio": 0.8, "min_sparse_ratio": 0.1}
IDS = {"global_group_id": "g", "dependency_group_id": 3}
ALIGN = {"module_name": "conv1", "target_name": "weight", "dims": [0]}


def test_a_setting_of_the_weight_says_what_the_entry_could():
    spec = one(target_settings={"weight": {**WEIGHT, **IDS}, "bias": {"align": {"target_name": "weight", "dims": [0]}}})

    assert (spec.total, spec.cap, spec.floor) == (0.5, 0.8, 0.1)
    assert (spec.global_group, spec.dependency_group, spec.per_layer) == ("g", 3, None)


def test_a_setting_comes_before_the_entry_s_own_word():
    spec = one(sparse_ratio=0.2, dependency_group_id=1, target_settings={"weight": {"sparse_ratio": 0.5}})

    assert (spec.per_layer, spec.dependency_group) == (0.5, 1)


def test_a_global_group_makes_a_fraction_a_total():
    assert (one(sparsity=0.5, global_group_id=1).total, one(total_sparsity=0.5, global_group_id=1).total) == (0.5, 0.5)


def test_an_align_needs_no_amount():
    assert one(target_settings={"weight": {"align": ALIGN}}).align.module_name == "conv1"


def test_a_threshold_stands_in_place_of_a_fraction():
    spec = one(sparse_threshold=0.1, max_sparse_ratio=0.5)

    assert (spec.threshold, spec.per_layer, spec.total, spec.cap) == (0.1, None, None, 0.5)


@pytest.mark.parametrize(
    "entry",
    [
        {"sparsity": 0.5, **IDS, "group_score": "max", "target_names": ["weight", "bias"]},
        {"total_sparsity": 0.5, "ranking": "isomorphic", "min_sparse_ratio": 0.1},
        {"target_settings": {"weight": {**WEIGHT, **IDS}}},
        {"target_settings": {"weight": {"align": ALIGN}}},
        {"sparse_threshold": -1.5},
    ],
)
def test_an_entry_survives_json_as_it_was_written_and_as_it_was_read(entry):
    spec = one(**entry)

    assert parse_config_list(json.loads(json.dumps([entry])))[0] == spec
    assert parse_config_list([json.loads(spec.model_dump_json(exclude_none=True))])[0] == spec


def test_an_excluding_entry_keeps_nothing_of_what_it_asked():
    spec = one(op_names="a", sparsity=0.5, **IDS, group_score="max", ranking=None).excluding()

    assert spec.model_dump(exclude_none=True) == {"op_names": ("a",), "exclude": True}


def test_the_schema_describes_every_key_and_every_setting():
    kinds = json_schema()["$defs"]

    for kind in ("PruneSpec", "TargetSettings", "WeightSetting", "Align"):
        assert all("description" in key for key in kinds[kind]["properties"].values()), kind
    assert {"global_group_id", "dependency_group_id", "align"} <= kinds["WeightSetting"]["properties"].keys()
    assert {"ranking", "group_score", "target_names", "target_settings"} <= kinds["PruneSpec"]["properties"].keys()


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
    "config_list[0].dependency_group: unknown key; nearest: 'dependency_group_id'": [{"sparsity": 0.5, "dependency_group": 1}],
    "config_list[0].dependency_group_id: True is neither a whole number nor a name": [{"sparsity": 0.5, "dependency_group_id": True}],
    "config_list[0].global_group_id: '' is neither a whole number nor a name": [{"sparsity": 0.5, "global_group_id": ""}],
    "config_list[0].target_settings.weight.sparse_ration: unknown key; nearest: 'sparse_ratio'. Known are sparse_ratio, ": [
        {"target_settings": {"weight": {"sparse_ration": 0.5}}}
    ],
    "config_list[0].target_settings.weight.sparse_ratio: 1.2 is outside [0, 1)": [{"target_settings": {"weight": {"sparse_ratio": 1.2}}}],
    "config_list[0].target_settings.wieght: unknown key; nearest: 'weight'": [{"sparsity": 0.5, "target_settings": {"wieght": {}}}],
    "config_list[0].target_settings: '_input_' is what flows through a layer": [{"sparsity": 0.5, "target_settings": {"_input_": {}}}],
    "config_list[0].target_settings.weight.align.dims: [1] is not [0]": [
        {"target_settings": {"weight": {"align": {"module_name": "a", "dims": [1]}}}}
    ],
    "config_list[0].target_settings.weight: align.module_name is missing": [{"target_settings": {"weight": {"align": {}}}}],
    "config_list[0].target_settings.weight: sparse_ratio and align contradict": [
        {"target_settings": {"weight": {"sparse_ratio": 0.5, "align": ALIGN}}}
    ],
    "config_list[0].target_settings.bias: align.module_name: a bias goes with": [
        {"sparsity": 0.5, "target_settings": {"bias": {"align": ALIGN}}}
    ],
    "config_list[0].target_settings.bias.sparse_ratio: unknown key": [
        {"sparsity": 0.5, "target_settings": {"bias": {"sparse_ratio": 0.5}}}
    ],
    "config_list[0].target_names: ['bias'] lacks weight": [{"sparsity": 0.5, "target_names": ["bias"]}],
    "config_list[0].target_names: '_output_0' is what flows through": [{"sparsity": 0.5, "target_names": ["_output_0"]}],
    "config_list[0].granularity: 'in_channel' is not offered": [{"sparsity": 0.5, "granularity": "in_channel"}],
    "config_list[0].granularity: [4, 4] is not offered": [{"sparsity": 0.5, "granularity": [4, 4]}],
    "config_list[0].ranking: 'isomorf': ": [{"total_sparsity": 0.5, "ranking": "isomorf"}],
    "config_list[0]: ranking needs total_sparsity": [{"sparsity": 0.5, "ranking": "isomorphic"}],
    "config_list[0]: min_sparse_ratio needs total_sparsity": [{"sparsity": 0.5, "min_sparse_ratio": 0.1}],
    "config_list[0]: min_sparse_ratio 0.6 is above what leaves in total": [{"total_sparsity": 0.5, "min_sparse_ratio": 0.6}],
    "config_list[0]: min_sparse_ratio 0.4 is above the most": [{"total_sparsity": 0.5, "min_sparse_ratio": 0.4, "max_sparse_ratio": 0.3}],
    "config_list[0]: global_group_id contradicts sparse_threshold": [{"sparse_threshold": 0.5, "global_group_id": 1}],
    "config_list[0]: sparsity and sparse_threshold contradict each other": [{"sparsity": 0.5, "sparse_threshold": 0.5}],
    "config_list[0].sparse_threshold: inf is not finite": [{"sparse_threshold": float("inf")}],
    "config_list[0]: exclude contradicts dependency_group_id": [{"op_names": "a", "exclude": True, "dependency_group_id": 1}],
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
