"""What goes wrong in training and in measuring is told in one sentence, the same on both frameworks."""

import numpy as np
import pytest

from nnc.errors import ConfigError, TrainingError
from nnc_pruning import TaylorFOPruner, WandaPruner
from tests.algorithms.tiny_networks import ROWS, X, Y, mlp, trainer

HIDDEN = [{"op_names": ["hidden"], "sparsity": 0.5}]
INFINITE = [(np.where(X[0] > 1, np.inf, X[0]).astype("float32"), Y[0])]


def loss_times(framework, number):
    """Return the mean squared error times a number."""
    if framework.name == "torch":
        return lambda outputs, targets: ((outputs - targets) ** 2).mean() * number
    import tensorflow as tf

    return lambda outputs, targets: tf.reduce_mean((outputs - targets) ** 2) * number


def detached(framework):
    if framework.name == "torch":
        return lambda outputs, targets: outputs.mean().detach()
    import tensorflow as tf

    return lambda outputs, targets: tf.stop_gradient(tf.reduce_mean(outputs))


def frozen(framework):
    model = mlp(framework)
    if framework.name == "torch":
        model.requires_grad_(False)
    else:
        model.trainable = False
    return model


@pytest.mark.parametrize(("number", "what"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_measuring_on_a_loss_that_is_not_finite_tells_it_from_the_layers(framework, number, what):
    given = trainer(framework, ROWS, loss=loss_times(framework, number))

    words = f"Trainer.loss: is {what} on batch 1, on which 'taylor_fo' measures; every layer's output is finite, the loss that is taken"
    with pytest.raises(TrainingError, match=words):
        TaylorFOPruner(mlp(framework), HIDDEN, trainer=given).compress()


def test_measuring_on_infinite_data_names_the_layer_and_the_batch(framework):
    words = "on batch 1.*the output of .*hidden.* was the first that is not finite, and the batch itself has NaN or infinite numbers"

    with pytest.raises(TrainingError, match=words):
        TaylorFOPruner(mlp(framework), HIDDEN, trainer=trainer(framework, INFINITE)).compress()


def test_training_on_infinite_data_names_the_batch(framework):
    with pytest.raises(TrainingError, match=r"step 1: the loss is .*hidden.*, and the batch itself has NaN or infinite numbers"):
        trainer(framework, INFINITE).train(mlp(framework))


def test_scores_of_infinite_data_do_not_blame_the_weights_alone(framework):
    with np.errstate(invalid="ignore"), pytest.raises(ConfigError, match=r"scores are NaN.*, and the data that it was measured on, finite"):
        WandaPruner(zeroed(mlp(framework)), HIDDEN, trainer=trainer(framework, [(np.full_like(X[0], np.inf), Y[0])])).compress()


def zeroed(model):
    """Return a model whose layer hidden has a weight of zero: infinity times it is NaN."""
    from nnc.registry import adapter_for
    from nnc.views import Site

    weight = np.ones((3, 4), "float32")
    weight[0, 0] = 0
    adapter_for(model).write({Site("hidden", "weight"): weight})
    return model


def test_a_loss_without_a_gradient_is_refused_in_training(framework):
    with pytest.raises(TrainingError, match=r"Trainer\.loss: the loss depends on no trainable (parameter|weight) of the model"):
        trainer(framework, ROWS, loss=detached(framework)).train(mlp(framework))


def test_a_loss_without_a_gradient_is_refused_in_measuring(framework):
    with pytest.raises(TrainingError, match=r"Trainer\.loss: the loss depends on no trainable (parameter|weight) of the model"):
        TaylorFOPruner(mlp(framework), HIDDEN, trainer=trainer(framework, ROWS, loss=detached(framework))).compress()


def test_a_model_whose_parameters_are_all_frozen_is_not_trained(framework):
    with pytest.raises(ConfigError, match=r"all 4 (parameters|weights) of the model are frozen"):
        trainer(framework, ROWS).train(frozen(framework))


def test_a_frozen_model_is_measured_all_the_same(framework):
    masks = [TaylorFOPruner(model, HIDDEN, trainer=trainer(framework, ROWS)).compress()[1] for model in (mlp(framework), frozen(framework))]

    np.testing.assert_array_equal(*(each["hidden"]["weight"] for each in masks))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": 0}, "epochs: 0 is no whole number above 0"),
        ({"epochs": -1}, "epochs: -1 is no"),
        ({"epochs": "3"}, "epochs: '3' is no"),
        ({"steps": 0}, "steps: 0 is no"),
        ({"steps": 1.5}, r"steps: 1\.5 is no"),
        ({"steps": True}, "steps: True is no"),
        ({"seed": "a"}, "seed: 'a' is no whole number from 0"),
    ],
)
def test_how_long_to_train_is_a_whole_number(framework, given, words):
    with pytest.raises(ConfigError, match=words):
        trainer(framework, ROWS).train(mlp(framework), **given)


def test_numbers_of_numpy_say_how_long_to_train(framework):
    assert len(trainer(framework, ROWS).train(mlp(framework), epochs=np.int64(2), seed=np.int64(1)).losses) == 2 * len(ROWS)


def test_a_type_error_within_the_users_loss_is_the_users(framework):
    def broken(outputs, targets):
        return len(3)

    with pytest.raises(TypeError, match="has no len"):
        trainer(framework, ROWS, loss=broken).train(mlp(framework))


def test_batches_without_targets_are_told_of_the_data(framework):
    given = trainer(framework, ROWS)
    given.data = [X[0]]

    with pytest.raises(ConfigError, match=r"Trainer\.data: a batch has no targets, and the loss fails without: .*\(inputs, targets\)"):
        given.train(mlp(framework))


@pytest.mark.parametrize("loss", [lambda outputs, targets: None, lambda model, batch: None])
def test_a_loss_that_returns_nothing_is_told(framework, loss):
    with pytest.raises(TrainingError, match=r"Trainer\.loss: returned a NoneType; one number is needed"):
        trainer(framework, ROWS, loss=loss).train(mlp(framework))


def test_real_numbers_of_numpy_are_cast_to_the_models_type(framework):
    given = trainer(framework, ROWS)
    expected = given.train(mlp(framework)).losses
    given.data = [(x.astype("float64"), y.astype("float64")) for x, y in ROWS]

    assert given.train(mlp(framework)).losses == pytest.approx(expected)
    pruners = [WandaPruner(mlp(framework), HIDDEN, trainer=each) for each in (trainer(framework, ROWS), given)]
    np.testing.assert_array_equal(*(pruner.compress()[1]["hidden"]["weight"] for pruner in pruners))


@pytest.mark.parametrize("made", [None, {"lr": 0.1}])
def test_a_function_that_returns_no_optimizer_is_told(framework, made):
    given = trainer(framework, ROWS)
    given.optimizer = lambda parameters: made

    with pytest.raises(ConfigError, match=rf"Trainer\.optimizer: the function returned a {type(made).__name__}, no "):
        given.train(mlp(framework))
