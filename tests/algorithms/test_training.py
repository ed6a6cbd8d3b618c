"""Masks hold while the user trains: nothing that left is revived, and what stayed learns."""

import numpy as np
import pytest

import nnc
from nnc.arrays import to_numpy
from nnc_pruning import L1NormPruner, LevelPruner
from tests.frameworks import images

CONFIG = [{"sparsity": 0.5}]
BATCH = images(8, 3, 12)


@pytest.mark.parametrize("pruner", [L1NormPruner, LevelPruner])
def test_no_masked_weight_is_revived_by_a_hundred_adam_steps(framework, pruner):
    model = framework.build("residual")
    _, masks = pruner(model, CONFIG).compress()
    before = {layer.name: to_numpy(layer.weight).copy() for layer in nnc.layers(model) if layer.name in masks}

    framework.train(model, BATCH, steps=100)

    for layer in nnc.layers(model):
        if layer.name in masks:
            weight, stays = to_numpy(layer.weight), masks[layer.name]["weight"]
            assert not weight[~stays].any(), layer.name
            assert (weight[stays] != before[layer.name][stays]).any(), layer.name


def test_a_model_that_trained_under_masks_shrinks_to_what_it_became(framework):
    compressed = nnc.compress(framework.build("residual"), CONFIG, framework.inputs(BATCH))
    framework.train(compressed.model, BATCH, steps=5)
    masked = framework.run(compressed.model, BATCH)

    small = compressed.speedup()

    assert framework.count(small) < framework.count(compressed.original)
    np.testing.assert_allclose(framework.run(small, BATCH), masked, rtol=1e-4, atol=1e-5 * np.abs(masked).max())


def test_pruning_while_training_never_revives_what_left(framework):
    model = framework.build("residual")
    gone = []
    for sparsity in (0.25, 0.5):
        _, masks = L1NormPruner(model, [{"op_names": ["mix"], "sparsity": sparsity}]).compress()
        gone.append(set(np.flatnonzero(~masks["mix"]["bias"]).tolist()))
        framework.train(model, BATCH, steps=1)

    assert [len(each) for each in gone] == [3, 6]
    assert gone[0] < gone[1]
