"""NNI's group ids and bad input, on both frameworks."""

import numpy as np
import pytest

import nnc
from nnc.errors import LeftAlone
from nnc_pruning import L1NormPruner, LevelPruner
from tests.frameworks import images

TIED = {"op_names": ["stem", "project"], "sparsity": 0.5, "dependency_group_id": "width"}


def gone(masks, name):
    return np.flatnonzero(~masks[name]["bias"]).tolist()


def test_layers_with_one_id_lose_the_channels_that_score_least_together(framework):
    model = framework.build("residual")
    _, alone = L1NormPruner(model, [{**TIED, "dependency_group_id": None}]).compress()
    L1NormPruner(model, [TIED]).unwrap_model()

    _, masks = L1NormPruner(model, [TIED]).compress()

    weights = {layer.name: np.abs(np.asarray(nnc.arrays.to_float64(layer.weight))) for layer in nnc.layers(framework.build("residual"))}
    scores = sum(weights[name].reshape(8, -1).sum(1) for name in ("stem", "project"))
    assert gone(masks, "stem") == gone(masks, "project") == sorted(np.argsort(scores)[:4].tolist())
    assert gone(alone, "stem") != gone(alone, "project")


def test_all_of_a_dependency_group_leaves(framework):
    model, x = framework.build("residual"), framework.inputs(images(2, 3, 12))
    entries = [{"sparsity": 0.5}, {"op_names": ["mix"], "sparsity": 0.25}]

    masks = L1NormPruner(model, entries, example_inputs=x).propose()
    speedup = nnc.ModelSpeedup(model, x, masks)
    small = speedup.speedup_model()

    assert speedup.plan.kept == ()
    sizes = {layer.name: layer.parameters["weight"][0] for layer in nnc.layers(small)}
    assert (sizes["stem"], sizes["project"], sizes["mix"], sizes["hidden"]) == (4, 4, 9, 8)


def test_sizes_that_disagree_are_told_before_the_model_is_touched(framework):
    model = framework.build("residual")

    with pytest.raises(nnc.ConfigError, match=r"dependency_group_id: 1: .* different numbers of them: mix \(12\), hidden \(16\)\."):
        L1NormPruner(model, [{"op_names": ["mix", "hidden"], "sparsity": 0.5, "dependency_group_id": 1}])

    assert L1NormPruner(model, [{"sparsity": 0.5}]).masks == {}


def test_elements_are_tied_only_where_shapes_agree(framework):
    model = framework.build("residual")
    entry = {"op_names": ["stem", "project"], "sparsity": 0.5, "dependency_group_id": 1}

    with pytest.raises(nnc.ConfigError, match=r"stem .* project .* lose the same elements only where their shapes agree"):
        LevelPruner(model, [entry]).propose()


def test_one_branch_of_a_residual_add_is_left_alone_with_both_named(framework):
    model, x = framework.build("residual"), framework.inputs(images(2, 3, 12))

    with pytest.warns(LeftAlone, match="stem can lose channels only together with .*project"):
        masks = L1NormPruner(model, [{"op_names": ["stem", "hidden"], "sparsity": 0.5}], example_inputs=x).propose()

    assert "stem" not in masks
    assert len(gone(masks, "hidden")) == 8


def test_two_algorithms_share_no_group_of_ranks(framework):
    entries = [
        {"op_names": [name], "algorithm": algorithm, "total_sparsity": 0.5, "global_group_id": "g"}
        for name, algorithm in (("mix", "l1_norm"), ("hidden", "fpgm"))
    ]

    with pytest.raises(nnc.ConfigError, match=r"config_list\[1\]\.global_group_id: 'g' is shared with config_list\[0\] of another"):
        nnc.compress(framework.build("residual"), entries)


def test_an_isomorphic_ranking_needs_example_inputs(framework):
    with pytest.raises(nnc.ConfigError, match=r"config_list\[0\]\.ranking: isomorphic .* pass example_inputs=\."):
        L1NormPruner(framework.build("residual"), [{"total_sparsity": 0.5, "ranking": "isomorphic"}])


def test_masks_of_all_channels_leave_one_and_say_so(framework):
    model, x = framework.build("residual"), framework.inputs(images(2, 3, 12))
    masks = {"hidden": {"weight": np.zeros((16, 12)), "bias": np.zeros(16)}}

    with pytest.warns(UserWarning, match=r"everything along hidden\.weight axis 0 was masked; one index is kept"):
        small = nnc.ModelSpeedup(model, x, masks).speedup_model()

    assert {layer.name: layer.parameters["weight"][0] for layer in nnc.layers(small)}["hidden"] == 1
