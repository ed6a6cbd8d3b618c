"""Widths that a mean is taken over, on Keras: they stay until allow_inexact=True asks for them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import nnc
from nnc_pruning import L1NormPruner
from tests.zoo_keras import networks
from tests.zoo_keras.architectures import noise, randomise, tokens
from tests.zoo_keras.checks import difference, run

HALF = [{"sparsity": 0.5}]


class Small(keras.Model):
    """A language model, normalised first; its head is its embedding."""

    def __init__(self, width=32):
        super().__init__()
        self.embedding, self.positions = layers.Embedding(40, width), layers.Embedding(6, width)
        self.first, self.second, self.last = layers.LayerNormalization(), layers.RMSNormalization(), layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(4, 8, output_shape=width)
        self.up, self.down = layers.Dense(48, activation="gelu"), layers.Dense(width)

    def call(self, ids):
        x = self.embedding(ids) + self.positions(ops.arange(6))
        y = self.first(x)
        x = x + self.attention(y, y)
        x = x + self.down(self.up(self.second(x)))
        return ops.matmul(self.last(x), ops.transpose(self.embedding.embeddings))


def trained(width=32):
    model, ids = Small(width), tokens(2, 6) % 40
    model(ids)
    return randomise(model), ids


def width_only(model, ids, sparsity=0.25):
    """Mask the width of the residual stream and nothing else."""
    config = [{"sparsity": sparsity}, {"op_partial_names": ["query", "key", "value", "up"], "exclude": True}]
    return L1NormPruner(model, config, example_inputs=ids, allow_inexact=True).propose()


def test_the_width_under_a_norm_leaves_and_what_is_left_is_the_network_of_that_width(tmp_path):
    model, ids = trained()
    masks = width_only(model, ids)

    speedup = nnc.ModelSpeedup(model, ids, masks, allow_inexact=True)
    small = speedup.speedup_model()

    keep = np.flatnonzero(masks["embedding"]["weight"][0])
    assert len(keep) == 24
    twin, _ = trained(24)
    for mine, whole in zip(twin.variables, model.variables, strict=True):
        taken = np.asarray(whole)
        for axis, (old, new) in enumerate(zip(whole.shape, mine.shape, strict=True)):
            taken = taken if old == new else np.take(taken, keep, axis)
        mine.assign(taken)
    assert difference(run(twin, ids), run(small, ids)) <= 1e-5
    assert [(moved.old, moved.new, len(moved.places)) for moved in speedup.plan.inexact] == [(32, 24, 3)]
    nnc.save(small, tmp_path / "small")
    assert difference(run(small, ids), run(nnc.load(tmp_path / "small", model=lambda: trained()[0]), ids)) == 0


def test_masks_on_the_width_stay_with_a_reason_that_names_the_option():
    model, ids = trained()

    speedup = nnc.ModelSpeedup(model, ids, width_only(model, ids))
    with pytest.warns(nnc.NothingRemoved):
        speedup.speedup_model()

    assert all("allow_inexact=True" in kept.reason for kept in speedup.plan.kept)


def test_the_pruner_leaves_the_width_alone_by_default():
    model, ids = trained()

    masks = L1NormPruner(model, HALF, example_inputs=ids).propose()

    assert not any(name.endswith(("embedding", "down", "output_dense", "first", "second", "last")) for name in masks)


def test_a_functional_transformer_loses_width_and_saves_as_any_keras_model(tmp_path):
    model, x = networks.functional_attention()

    compressed = nnc.compress(model, HALF, x, allow_inexact=True)
    small = compressed.speedup()

    assert small.count_params() < 0.4 * model.count_params()
    assert "inexact, as was asked" in " ".join(str(compressed.report()).split())
    expected = run(small, x)
    small.save(tmp_path / "small.keras")
    assert difference(expected, run(keras.models.load_model(tmp_path / "small.keras"), x)) == 0


def group_normed(groups):
    given = keras.Input((8, 8, 3))
    x = layers.Activation("relu")(layers.GroupNormalization(groups, name="norm")(layers.Conv2D(24, 3, name="conv")(given)))
    return randomise(keras.Model(given, layers.GlobalAveragePooling2D()(layers.Conv2D(5, 3)(x)))), noise(2, 8, 8, 3)


def test_whole_groups_of_a_group_norm_leave_exactly():
    model, x = group_normed(6)

    speedup = nnc.ModelSpeedup(model, x, L1NormPruner(model, HALF, example_inputs=x).propose())
    small = speedup.speedup_model()

    assert (small.get_layer("norm").groups, small.get_layer("conv").filters) == (3, 12)
    assert speedup.difference <= 1e-6


def test_part_of_a_group_leaves_only_on_request():
    model, x = group_normed(1)
    masks = L1NormPruner(model, HALF, example_inputs=x, allow_inexact=True).propose()

    with pytest.warns(nnc.NothingRemoved, match="allow_inexact=True"):
        nnc.ModelSpeedup(model, x, masks).speedup_model()
    speedup = nnc.ModelSpeedup(model, x, masks, allow_inexact=True)
    small = speedup.speedup_model()

    assert (small.get_layer("norm").groups, small.get_layer("conv").filters) == (1, 12)
    assert [(moved.old, moved.new) for moved in speedup.plan.inexact] == [(24, 12)]
