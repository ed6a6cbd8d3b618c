"""A BatchNorm without a scale: what it takes away from a masked channel is masked too, and training still counts the others."""

import keras
import numpy as np
from keras import layers

import nnc
from nnc_pruning import L1NormPruner


def network():
    keras.utils.set_random_seed(0)
    given = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(scale=False, name="norm")(layers.Conv2D(8, 3, name="conv")(given))
    model = keras.Model(given, layers.Conv2D(4, 3, padding="same", name="last")(layers.ReLU()(x)))
    random = np.random.default_rng(0)
    norm = model.get_layer("norm")
    norm.beta.assign(random.uniform(-1, 1, 8))
    norm.moving_mean.assign(random.uniform(-1, 1, 8))
    return model, random.standard_normal((2, 8, 8, 3)).astype("float32")


def pruned():
    model, x = network()
    pruner = L1NormPruner(model, [{"op_names": ["conv"], "sparsity": 0.5}], x)
    _, masks = pruner.compress()
    return model, x, pruner, masks


def test_a_masked_channel_leaves_although_a_padded_convolution_reads_it():
    model, x, _, masks = pruned()
    assert (~masks["norm"]["running_mean"]).sum() == 4

    speedup = nnc.ModelSpeedup(model, x)
    small = speedup.speedup_model()

    assert speedup.difference <= 1e-5
    assert [tuple(small.get_layer(name).kernel.shape) for name in ("conv", "last")] == [(3, 3, 3, 4), (3, 3, 4, 4)]
    assert np.abs(np.asarray(small(x)) - np.asarray(model(x))).max() <= 1e-5


def test_training_counts_the_means_of_what_is_not_masked_and_taking_masks_off_gives_the_others_back():
    model, x, pruner, masks = pruned()
    stays = masks["norm"]["running_mean"]
    before = np.asarray(model.get_layer("norm").__dict__["moving_mean"])

    model.compile("sgd", "mse")
    model.fit(x, np.zeros((2, 6, 6, 4)), verbose=0)

    assert not np.asarray(model.get_layer("norm")(np.zeros((1, 2, 2, 8))))[..., ~stays].any()
    after = np.asarray(pruner.unwrap_model().get_layer("norm").moving_mean)
    assert (after[~stays] == before[~stays]).all()
    assert (after[stays] != before[stays]).all()
