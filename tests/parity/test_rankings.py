"""Per layer, global, isomorphic: what each ranking takes from a transformer of two blocks, the second ten times as strong.

Both networks have, in each block, an attention of four heads of 8 or 16 channels and one hidden layer; L1 sums over a granule, so a
head, of three times as many rows, scores more than a neuron.
"""

import json
from functools import cache

import numpy as np
import pytest

import nnc
from nnc.registry import adapter_for
from nnc_pruning import L1NormPruner

#: Queries, keys and values under the names of either framework.
HEADS = {"op_names_re": [r".*(q_proj|k_proj|v_proj|query_dense|key_dense|value_dense)"], "granularity": "head", "sparsity": 0.5}


def vit():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.zoo.test_torch_zoo import made

    model, x = made("vit")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("vit.layers.1."):
                parameter.mul_(10)
    return model, x, [("vit.layers.0.attention.q_proj", "vit.layers.0.mlp.fc1"), ("vit.layers.1.attention.q_proj", "vit.layers.1.mlp.fc1")]


def transformer():
    keras = pytest.importorskip("keras")
    from tests.zoo_keras import networks

    keras.utils.set_random_seed(0)
    model, x = networks.attention()
    for variable in model.blocks[1].trainable_variables:
        variable.assign(variable * 10)
    return model, x, [("blocks.0.attention.query_dense", "blocks.0.up"), ("blocks.1.attention.query_dense", "blocks.1.up")]


@cache
def pruned(build, config):
    """Return masks, the rows of layers before and after, and the blocks, under a config_list in JSON; all that is masked is removed."""
    model, x, blocks = build()
    masks = L1NormPruner(model, json.loads(config), example_inputs=x).propose()
    speedup = nnc.ModelSpeedup(model, x, masks)
    small = speedup.speedup_model()

    assert speedup.plan.kept == ()
    assert speedup.difference <= 1e-5
    return masks, rows(model), rows(small), blocks


def lost(build, **keys):
    """Return the part of the heads, and of the neurons, that leaves each block."""
    masks, before, after, blocks = pruned(build, json.dumps([keys]))
    found = {name: float(np.mean(~masks[name]["bias"])) if name in masks else 0.0 for pair in blocks for name in pair}
    assert all(after[name] == round(before[name] * (1 - part)) for name, part in found.items())
    return [(found[heads], found[neurons]) for heads, neurons in blocks]


def rows(model):
    """Return how many output channels each layer has."""
    return {layer.name: layer.parameters["weight"][0] for layer in adapter_for(model).layers() if "weight" in layer.parameters}


@pytest.mark.parametrize("build", [vit, transformer])
def test_a_sparsity_takes_half_of_every_layer(build):
    assert lost(build, sparsity=0.5) == [(0.5, 0.5), (0.5, 0.5)]


@pytest.mark.parametrize("build", [vit, transformer])
def test_an_isomorphic_ranking_takes_half_of_the_heads_and_half_of_the_neurons_from_the_weak_block(build):
    (heads, neurons), (other_heads, other_neurons) = lost(build, total_sparsity=0.5, ranking="isomorphic")

    # Of eight heads four leave: three of the weak block, which keeps one, and one of the strong.
    assert (heads, other_heads) == (0.75, 0.25)
    assert neurons + other_neurons == 1
    assert neurons > 0.95


@pytest.mark.parametrize("build", [vit, transformer])
def test_a_global_ranking_takes_neurons_before_heads(build):
    (heads, neurons), (other_heads, other_neurons) = lost(build, total_sparsity=0.5)

    assert neurons > 0.95
    assert neurons + other_neurons > heads + other_heads
    assert (heads, other_heads) != (0.75, 0.25)


@pytest.mark.parametrize("build", [vit, transformer])
def test_a_mean_over_rows_compares_a_head_with_a_neuron_row_by_row(build):
    by_sum, by_mean = lost(build, total_sparsity=0.5), lost(build, total_sparsity=0.5, group_score="mean")

    # By the mean a head is no better than a neuron for having more rows: heads of the weak block leave before strong neurons.
    assert by_mean[0][0] == 0.75
    assert by_mean[1][1] <= by_sum[1][1]


def proposed(build, *entries):
    """Return the masks of biases under a config_list."""
    masks, *_ = pruned(build, json.dumps(entries))
    return {name: given["bias"] for name, given in masks.items() if "bias" in given}


NEURONS = {vit: ("vit.layers.0.mlp.fc1", "vit.layers.1.mlp.fc1"), transformer: ("blocks.0.up", "blocks.1.up")}
QUERIES = {vit: "vit.layers.{}.attention.q_proj", transformer: "blocks.{}.attention.query_dense"}


@pytest.mark.parametrize("build", [vit, transformer])
def test_neurons_of_two_blocks_leave_alike_under_one_dependency_id(build):
    first, second = NEURONS[build]
    alone = proposed(build, {"sparsity": 0.5})

    tied = proposed(build, {"op_names": [first, second], "sparsity": 0.5, "dependency_group_id": "hidden"})

    assert (alone[first] != alone[second]).any()
    assert (tied[first] == tied[second]).all()
    # The second block is ten times as strong, so that it decides.
    assert np.mean(tied[second] == alone[second]) > np.mean(tied[second] == alone[first])


@pytest.mark.parametrize("build", [vit, transformer])
def test_heads_of_two_blocks_leave_alike_under_one_dependency_id(build):
    masks = proposed(build, {"sparsity": 0.5}, {**HEADS, "dependency_group_id": 1})

    first, second = (masks[QUERIES[build].format(block)] for block in (0, 1))
    assert int((~first).sum()) == len(first) // 2
    assert (first == second).all()


@pytest.mark.parametrize("build", [vit, transformer])
def test_an_aligned_layer_takes_over_the_mask_that_the_other_chose_alone(build):
    first, second = NEURONS[build]
    alone = proposed(build, {"sparsity": 0.5})
    align = {"op_names": [second], "target_settings": {"weight": {"align": {"module_name": first}}}}

    aligned = proposed(build, {"sparsity": 0.5}, align)

    assert (aligned[first] == alone[first]).all()
    assert (aligned[second] == alone[first]).all()
