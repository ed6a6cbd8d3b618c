"""Layers that the config_list ties, with NNI's keys: worked out by hand, without a graph."""

import numpy as np
import pytest

from nnc.allocation import Scored
from nnc.errors import ConfigError
from nnc.ties import alone_masks, check_ties, ties
from nnc_schemas import parse_config_list


class Layer:
    op_types = ("Linear",)

    def __init__(self, name, size):
        self.name, self.parameters = name, {"weight": (size, 2), "bias": (size,)}


def checked(governed, entries, sizes):
    specs = parse_config_list(entries)
    check_ties(governed, specs, {name: Layer(name, size) for name, size in sizes.items()})
    return specs


def gone(scores, governed, *entries):
    """Return the channels that leave each layer; `governed` is the entry of each."""
    layers = {name: Layer(name, len(row)) for name, row in scores.items()}
    scored = {name: Scored(np.array(row, float), 2) for name, row in scores.items()}
    masks = alone_masks(layers, scored, governed, parse_config_list(list(entries)))
    for mask in masks.values():
        assert (mask["weight"].any(axis=1) == mask["bias"]).all()
    return {name: np.flatnonzero(~mask["bias"]).tolist() for name, mask in masks.items()}


SCORES = {"a": [1, 2, 3, 40], "b": [30, 20, 10, 9], "c": [1, 2, 3, 4]}


@pytest.mark.parametrize("combine", [{}, {"group_score": "sum"}, {"group_score": "mean"}, {"group_score": "max"}])
def test_a_dependency_group_loses_the_same_channels_by_what_its_layers_score_together(combine):
    # a and b: sums 31, 22, 13, 49; means half of that; largest 30, 20, 10, 40. The second and the third leave.
    entry = {"sparsity": 0.5, "dependency_group_id": "g", **combine}

    assert gone(SCORES, {"a": 0, "b": 0, "c": 1}, entry, {"sparsity": 0.5}) == {"a": [1, 2], "b": [1, 2], "c": [0, 1]}


def test_the_largest_score_counts_where_the_sum_says_otherwise():
    scores = {"a": [5, 3, 9], "b": [0, 3, 9]}  # sums 5, 6, 18; largest 5, 3, 9
    entry = {"sparsity": 0.4, "dependency_group_id": 1}

    assert gone(scores, {"a": 0, "b": 0}, entry)["b"] == [0]
    assert gone(scores, {"a": 0, "b": 0}, {**entry, "group_score": "max"})["b"] == [1]


def test_a_dependency_group_over_two_entries_loses_the_lower_amount():
    entries = [{"sparsity": 0.5, "dependency_group_id": "g"}, {"sparsity": 0.25, "dependency_group_id": "g"}]

    # a, b and c: 32, 24, 16, 53
    assert gone(SCORES, {"a": 0, "b": 1, "c": 0}, *entries) == {"a": [2], "b": [2], "c": [2]}


def test_a_setting_of_the_weight_ties_as_the_entry_itself():
    setting = {"target_settings": {"weight": {"sparse_ratio": 0.5, "dependency_group_id": "d", "granularity": "out_channel"}}}

    assert gone(SCORES, {"a": 0, "b": 0, "c": 1}, setting, {"sparsity": 0}) == {"a": [1, 2], "b": [1, 2], "c": []}


def test_an_aligned_layer_takes_over_a_mask_and_has_no_say():
    align = {"target_settings": {"weight": {"align": {"module_name": "a", "target_name": "weight", "dims": [0]}}}}

    assert gone(SCORES, {"a": 0, "b": 1, "c": 0}, {"sparsity": 0.5}, align) == {"a": [0, 1], "b": [0, 1], "c": [0, 1]}


def test_ties_join_where_they_share_a_layer():
    align = {"target_settings": {"weight": {"align": {"module_name": "a"}}}}
    specs = parse_config_list([{"sparsity": 0.5, "dependency_group_id": 1}, align])

    assert ties({"a": 0, "b": 1, "c": 0}, specs) == (("a", "b", "c"),)


def test_biases_stay_alive_where_the_targets_lack_them():
    layer = {"a": Layer("a", 4)}
    specs = parse_config_list([{"sparsity": 0.5, "target_names": ["weight"]}])

    masks = alone_masks(layer, {"a": Scored(np.arange(4.0), 2)}, {"a": 0}, specs)

    assert masks["a"]["weight"].any(axis=1).tolist() == [False, False, True, True]
    assert masks["a"]["bias"].all()


def test_a_global_group_ranks_layers_of_several_entries_together():
    entries = [{"sparse_ratio": 0.5, "global_group_id": "g"}, {"total_sparsity": 0.5, "global_group_id": "g"}]

    # of 12 channels of 2 weights 6 leave: 1, 1, 2, 2, 3, 3 (a and c)
    assert gone(SCORES, {"a": 0, "b": 1, "c": 0}, *entries) == {"a": [0, 1, 2], "b": [], "c": [0, 1, 2]}


ALIGNED = {"target_settings": {"weight": {"align": {"module_name": "z"}}}}
TIED = {"sparsity": 0.5, "dependency_group_id": "d"}


@pytest.mark.parametrize(
    ("governed", "entries", "message"),
    [
        (
            {"a": 0, "b": 0},
            [TIED],
            r"config_list\[0\]\.dependency_group_id: 'd': these layers shall lose the same output channels and have different numbers "
            r"of them: a \(4\), b \(8\)\.",
        ),
        (
            {"a": 0, "b": 1},
            [
                {"sparse_ratio": 0.5, "global_group_id": 1},
                {"target_settings": {"weight": {"sparse_ratio": 0.3, "global_group_id": 1}}},
            ],
            r"config_list\[1\]\.global_group_id: 1 asks 0\.3, config_list\[0\] 0\.5: layers that are ranked together have one total",
        ),
        ({"a": 0, "b": 1}, [{"sparsity": 0.5}, ALIGNED], r"align\.module_name: 'z' is no layer that the config_list prunes"),
        ({"z": 0}, [ALIGNED], r"z would take over the mask of itself"),
        ({"a": 0, "z": 1}, [ALIGNED, {"sparsity": 0.5}], r"config_list\[0\]\.target_settings\.weight\.align: .* a \(4\), z \(6\)"),
        (
            {"a": 0, "b": 1},
            [{"total_sparsity": 0.5, "global_group_id": 1, "algorithm": name} for name in ("l1_norm", "fpgm")],
            r"config_list\[1\]\.global_group_id: 1 is shared with config_list\[0\] of another algorithm",
        ),
    ],
)
def test_layers_that_cannot_be_tied_are_named(governed, entries, message):
    with pytest.raises(ConfigError, match=message):
        checked(governed, entries, {"a": 4, "b": 8, "z": 6})


def test_layers_of_one_size_can_be_tied():
    checked({"a": 0, "b": 0}, [TIED], {"a": 4, "b": 4})
