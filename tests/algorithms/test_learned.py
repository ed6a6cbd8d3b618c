"""Pruners that learn what leaves, step by step beside the same arithmetic in NumPy."""

import warnings

import numpy as np
import pytest

import nnc
from nnc.arrays import to_numpy
from nnc.errors import ConfigError
from nnc.registry import adapter_for
from nnc_pruning import ADMMPruner, MovementPruner, SlimPruner
from tests.algorithms.test_measured import leave_one_out, rank_correlation, wide
from tests.algorithms.tiny_networks import PICTURES, ROWS, convnet, linear, seen, tensor, trainer, zero_loss

WEIGHT = [[0.5, -1.0, 2.0, 0.3], [-0.7, 0.2, 0.1, -1.5]]
BIAS = [0.4, -0.2]
RATE, SCORE_RATE = 0.1, 2.0


def moved(framework, steps=2, example_inputs=None, **entry):
    """Return a movement pruner after so many steps of plain gradient descent on one linear layer, and the layer's scores."""
    pruner = MovementPruner(linear(framework, WEIGHT, BIAS), [{"sparsity": 0.5, "score_rate": SCORE_RATE, **entry}], example_inputs)
    pruner.compress()
    trainer(framework, ROWS, rate=RATE).train(pruner.model, steps=steps)
    return pruner, np.asarray(pruner.score(pruner.layers["fc"]))


def by_hand(steps, mask_of, gain, pull=lambda scores: 0.0):
    """Return scores after S <- S - score_rate * (gain(W * dL/dW) + pull), beside W <- W - rate * mask * dL/dW."""
    weight, bias, scores = np.array(WEIGHT), np.array(BIAS), np.zeros_like(gain(np.array(WEIGHT), np.array(BIAS)))
    for step, (x, y) in enumerate(ROWS[:steps]):
        mask = mask_of(scores, step)
        weights, biases = (mask, np.ones(2)) if mask.ndim == 2 else (mask[:, None], mask)
        error = 2 * (x @ (weight * weights).T + bias * biases - y) / y.size
        by_weight, by_bias = error.T @ x, error.sum(axis=0)
        scores = scores - SCORE_RATE * (gain(weight * by_weight, bias * by_bias) + pull(scores))
        weight, bias = weight - RATE * weights * by_weight, bias - RATE * biases * by_bias
    return scores


def all_stay(scores, step):
    return np.ones(scores.shape)


def test_hard_movement_of_elements_adds_up_weight_times_gradient(framework):
    _, found = moved(framework, element=True, warm_up=100, cool_down=200)

    np.testing.assert_allclose(found, by_hand(2, all_stay, lambda weight, bias: weight), rtol=1e-4)


def test_hard_movement_of_channels_adds_up_that_of_all_their_weights(framework):
    _, found = moved(framework, warm_up=100, cool_down=200)

    np.testing.assert_allclose(found, by_hand(2, all_stay, lambda weight, bias: weight.sum(axis=-1) + bias), rtol=1e-4)


def test_hard_movement_masks_the_lowest_while_it_trains_and_they_go_on_learning(framework):
    def mask_of(scores, step):
        # The first step has masked nothing, for all scores are 0; from the second on half of the eight are masked.
        return all_stay(scores, step) if step == 0 else (scores >= np.sort(scores, axis=None)[4]) * 1.0

    pruner, found = moved(framework, steps=3, element=True, cool_down=1)
    expected = by_hand(3, mask_of, lambda weight, bias: weight)

    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(pruner.settle()["fc"]["weight"], expected >= np.sort(expected, axis=None)[4])


@pytest.mark.parametrize("entry", [{"granularity": [1, 3]}, {"block": [1, 3]}], ids=str)
def test_hard_movement_of_blocks_adds_up_that_of_their_weights_and_masks_them_whole(framework, entry):
    """Blocks of one row and three columns in a weight of 2 x 4: those at the edge have one column."""
    places = [0, 0, 0, 1]

    def mask_of(scores, step):
        stays = all_stay(scores, step) if step == 0 else scores >= np.sort(scores, axis=None)[2]
        return stays[:, places] * 1.0

    pruner, found = moved(framework, steps=3, cool_down=1, **entry)
    expected = by_hand(3, mask_of, lambda weight, bias: np.stack([weight[:, :3].sum(axis=1), weight[:, 3]], axis=1))

    np.testing.assert_allclose(found, expected[:, places], rtol=1e-4)
    masks = pruner.settle()["fc"]["weight"]
    np.testing.assert_array_equal(masks, (expected >= np.sort(expected, axis=None)[2])[:, places])
    np.testing.assert_array_equal(pruner.masks["fc"]["weight"], masks)


def test_blocks_of_a_convolution_hold_its_kernels_whole(framework):
    entry = {"op_names": ["conv"], "sparsity": 0.75, "granularity": [2, 1], "cool_down": 1}
    pruner = MovementPruner(convnet(framework), [entry], trainer=trainer(framework, PICTURES))

    mask = pruner.compress()[1]["conv"]["weight"].reshape(2, 2, 2, -1)

    assert mask.shape == (2, 2, 2, 9)  # blocks of rows, rows of a block, columns, kernel
    assert sorted(mask.any(axis=(1, 3)).ravel()) == sorted(mask.all(axis=(1, 3)).ravel()) == [False, False, False, True]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"granularity": [4, 4]}, r"\[0\]\.granularity: blocks of 4 x 4 are larger than the weight of 'fc', 2 x 4"),
        ({"granularity": [1, 0]}, r"\[0\]\.block"),
        ({"granularity": [1, 2], "element": True}, "element and block contradict each other"),
        ({"granularity": "haed"}, r"'haed' is none of default, out_channel, head; nearest: 'head'"),
        ({"warm_up": 20, "cool_down": 10}, "warm_up 20 is after cool_down 10"),
    ],
    ids=str,
)
def test_scores_of_what_is_not_there_are_refused(framework, entry, message):
    with pytest.raises(ConfigError, match=message):
        MovementPruner(linear(framework, WEIGHT), [{"sparsity": 0.5, **entry}])


def test_blocks_have_no_total(framework):
    with pytest.raises(ConfigError, match="blocks are chosen in each layer by itself: give sparsity"):
        MovementPruner(linear(framework, WEIGHT), [{"total_sparsity": 0.5, "block": [1, 2]}])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"granularity": "head"}, r"config_list\[0\]\.granularity: no attention head is among the output channels of fc"),
        ({}, r"config_list\[0\]: nothing of fc can leave: .*\nconfig_list: so nothing that it selects can leave"),
    ],
)
def test_movement_of_what_cannot_leave_is_refused_before_it_trains(framework, entry, message):
    with pytest.raises(ConfigError, match=message):
        MovementPruner(linear(framework, WEIGHT), [{"sparsity": 0.5, **entry}], framework.inputs(ROWS[0][0]))


def test_soft_movement_pulls_the_scores_down_beside(framework):
    def sigmoid(scores):
        return 1 / (1 + np.exp(-scores))

    def pull(scores):
        return 0.3 * sigmoid(scores) * (1 - sigmoid(scores)) / scores.size

    entry = {"mode": "soft", "sparse_threshold": 0.2, "regular_scale": 0.3, "element": True, "sparsity": None}
    pruner = MovementPruner(
        linear(framework, WEIGHT, BIAS), [{"score_rate": SCORE_RATE, **{k: v for k, v in entry.items() if v is not None}}]
    )
    pruner.compress()
    trainer(framework, ROWS, rate=RATE).train(pruner.model, steps=2)

    expected = sigmoid(by_hand(2, lambda scores, step: (sigmoid(scores) > 0.2) * 1.0, lambda weight, bias: weight, pull))
    np.testing.assert_allclose(pruner.score(pruner.layers["fc"]), expected, rtol=1e-4)
    np.testing.assert_array_equal(pruner.settle()["fc"]["weight"], expected >= 0.2)


def test_movement_without_a_step_of_training_is_an_error(framework):
    pruner = MovementPruner(linear(framework, WEIGHT), [{"sparsity": 0.5}])
    pruner.compress()

    with pytest.raises(ConfigError, match="movement: no training step has been made, so nothing has moved"):
        pruner.settle()


def test_elements_of_equal_score_leave_in_the_order_of_their_index(framework):
    """Where nothing has moved, exactly as many are masked as are due, and the same that settle() then removes."""
    pruner = MovementPruner(linear(framework, WEIGHT), [{"sparsity": 0.5, "element": True, "cool_down": 1}])
    pruner.compress()
    trainer(framework, ROWS, rate=0.0, loss=zero_loss).train(pruner.model, steps=1)

    np.testing.assert_allclose(seen(pruner.model, "fc"), [[0, 0, 0, 0], WEIGHT[1]], rtol=1e-6)
    assert pruner.settle()["fc"]["weight"].tolist() == [[False] * 4, [True] * 4]


def test_movement_before_a_batch_norm_warns_where_it_cannot_know_the_group(framework):
    config = [{"op_names": ["conv"], "sparsity": 0.5}]

    with pytest.warns(UserWarning, match=r"movement: conv: a BatchNorm undoes the scale of a channel.* pass example_inputs="):
        MovementPruner(convnet(framework), config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MovementPruner(convnet(framework), config, framework.inputs(PICTURES[0][0]))
        MovementPruner(convnet(framework), [{"op_names": ["conv"], "sparsity": 0.5, "element": True}])


def test_slims_score_is_the_magnitude_of_the_batch_norms_scale(framework):
    by_norm = SlimPruner(convnet(framework), [{"op_names": ["norm"], "sparsity": 0.5}])
    pictures = framework.inputs(PICTURES[0][0])
    by_conv = SlimPruner(convnet(framework), [{"op_names": ["conv"], "sparsity": 0.5}], pictures)

    expected = np.abs(seen(convnet(framework), "norm"))
    np.testing.assert_allclose(seen_scores(by_norm, "norm"), expected, rtol=1e-7)
    np.testing.assert_allclose(seen_scores(by_conv, "conv"), expected, rtol=1e-7)


def seen_scores(pruner, layer):
    found = pruner.score(pruner.layers[layer])
    return np.asarray(found.detach() if hasattr(found, "detach") else found)


def test_slims_penalty_moves_each_scale_towards_zero_by_rate_times_its_factor(framework):
    model = convnet(framework)
    before = seen(model, "norm")
    SlimPruner(model, [{"op_names": ["norm"], "sparsity": 0.5, "scale": 0.05}]).compress()

    trainer(framework, PICTURES, rate=0.1, loss=zero_loss).train(model, steps=1)

    np.testing.assert_allclose(seen(model, "norm"), before - 0.1 * 0.05 * np.sign(before), rtol=1e-5)


def test_slim_masks_the_convolution_whose_scales_are_smallest_and_it_can_leave(framework):
    model, pictures = convnet(framework), framework.inputs(PICTURES[0][0])
    gamma = np.abs(seen(model, "norm"))

    _, masks = SlimPruner(model, [{"op_names": ["conv"], "sparsity": 0.5}], pictures, trainer=trainer(framework, PICTURES, 1e-6)).compress()
    small = nnc.ModelSpeedup(model, pictures, masks).speedup_model()

    np.testing.assert_array_equal(masks["conv"]["weight"].any(axis=(1, 2, 3)), gamma >= np.sort(gamma)[2])
    assert {layer.name: layer.parameters["weight"] for layer in nnc.layers(small)}["conv"] == (2, 2, 3, 3)


def test_slim_names_the_layer_that_no_batch_norm_follows(framework):
    with pytest.raises(ConfigError, match=r"config_list\[0\]: no BatchNorm with a scale follows 'classes'"):
        SlimPruner(convnet(framework), [{"op_names": ["classes"], "sparsity": 0.5}], framework.inputs(PICTURES[0][0]))


def test_admm_alternates_between_training_and_projection(framework):
    """The second row is the smaller one: Z is W + U without it, so that it shrinks by rate * rho * (W - Z + U) at each step."""
    weight = np.array([[2.0, -3.0, 4.0, 1.0], WEIGHT[1]])
    model = linear(framework, weight)
    pruner = ADMMPruner(model, [{"sparsity": 0.5, "rho": 0.5}])
    pruner.compress()
    training = trainer(framework, ROWS, rate=0.1, loss=zero_loss)
    target, row = np.zeros(4), np.array(WEIGHT[1])
    multiplier = np.zeros(4)

    for _ in range(2):
        training.train(model, steps=1)
        pruner.update()
        row = row - 0.1 * 0.5 * (row - target + multiplier)
        multiplier = multiplier + row - target

    np.testing.assert_allclose(seen(model, "fc"), [weight[0], row], rtol=1e-5)
    np.testing.assert_allclose(pruner.score(pruner.layers["fc"]), [10, np.abs(row + multiplier).sum()], rtol=1e-5)
    assert pruner.settle()["fc"]["weight"].any(axis=1).tolist() == [True, False]


def test_admm_draws_the_row_that_leaves_near_zero_before_it_is_cut(framework):
    model = linear(framework, WEIGHT)

    _, masks = ADMMPruner(
        model, [{"sparsity": 0.5, "rho": 1.0}], trainer=trainer(framework, ROWS, rate=0.2, loss=zero_loss, epochs=3)
    ).compress()

    stored = np.abs(stored_weight(model))
    assert masks["fc"]["weight"].any(axis=1).tolist() == [True, False]
    assert stored[1].sum() < 0.1 * np.abs(WEIGHT[1]).sum()
    np.testing.assert_allclose(stored[0], np.abs(WEIGHT[0]), rtol=1e-5)


def stored_weight(model):
    """Return the stored weight of fc, under its mask."""
    from nnc.registry import adapter_for

    found = next(array for path, array in adapter_for(model).tensors().items() if path.startswith("fc.") and array.ndim == 2)
    return found if found.shape == (2, 4) else found.T


def test_movement_keeps_what_the_loss_would_miss(framework):
    """The target depends on the first two of four inputs only: the columns that matter move away from zero, the others do not."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((8, 16, 4)).astype("float32")
    y = (x[..., :2] * [3.0, -3.0]).sum(axis=-1, keepdims=True).astype("float32")
    model = linear(framework, [[0.5, -0.5, 0.6, -0.6]])
    entry = {"sparsity": 0.5, "element": True, "warm_up": 4, "cool_down": 16}

    _, masks = MovementPruner(model, [entry], trainer=trainer(framework, list(zip(x, y, strict=True)), rate=0.1, epochs=3)).compress()

    assert masks["fc"]["weight"].tolist() == [[True, True, False, False]]


def test_movements_ranks_agree_with_leaving_one_channel_out(framework):
    """Movement while the net learns, against the loss that leaving each channel out of the trained net costs."""
    pruner = MovementPruner(wide(framework), [{"op_names": ["hidden"], "sparsity": 0.5, "warm_up": 1000, "cool_down": 2000}])
    pruner.compress()
    trainer(framework, ROWS, rate=0.1).train(pruner.model, epochs=15)
    found = np.asarray(pruner.score(pruner.layers["hidden"]))
    pruner.unwrap_model()

    assert rank_correlation(found, leave_one_out(pruner.model)) > 0.5


@pytest.mark.parametrize(("before", "seen"), [((8, 4), 4), ((6, 4), 3), ((4, 4), 2)])
def test_a_total_masks_while_it_trains_what_of_the_larger_model_is_still_to_leave(framework, before, seen):
    config = [{"op_names": ["fc"], "total_sparsity": 0.5, "warm_up": 0, "cool_down": 1}]
    weight = np.arange(1, 17, dtype="float32").reshape(4, 4)
    model = linear(framework, weight.tolist(), [0.0] * 4)
    pruner = MovementPruner(model, config, whole={"fc.weight": before, "fc.bias": before[:1]})
    pruner.compress()
    data = [(np.ones((2, 4), "float32"), np.zeros((2, 4), "float32"))]
    trainer(framework, data, rate=0.0).train(model, steps=2)

    outputs = np.asarray(to_numpy(adapter_for(model).forward(tensor(framework, data[0][0]))[0]))
    assert (outputs[0] != 0).sum() == seen  # of half of what there was, what is left of it
