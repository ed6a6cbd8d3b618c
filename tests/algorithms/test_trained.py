"""What nnc.Trainer is given wrongly is one clear error, on both frameworks alike."""

import numpy as np
import pytest

import nnc
from nnc.errors import ConfigError, TrainingError
from nnc.registry import adapter_for
from tests.algorithms.tiny_networks import ROWS, X, Y, mlp, seen, tensor, trainer

NAN = (X[0] * np.float32("nan"), Y[0])


def test_a_generator_is_refused_for_it_can_be_run_through_once_only(framework):
    batches = ((tensor(framework, x), tensor(framework, y)) for x, y in ROWS)

    with pytest.raises(ConfigError, match=r"Trainer\.data: a generator can be run through once only, and training needs it again; pass a"):
        nnc.Trainer(batches, lambda outputs, targets: 0.0)


def test_a_function_that_returns_a_generator_is_data(framework):
    trained = trainer(framework, ROWS)
    batches = trained.data
    trained.data = lambda: (batch for batch in batches)

    assert len(trained.train(mlp(framework), epochs=2).losses) == 2 * len(ROWS)


def test_a_loss_that_is_no_scalar_is_an_error_that_gives_its_shape(framework):
    model = mlp(framework)
    before = seen(model, "hidden")

    with pytest.raises(TrainingError, match=r"loss: .*shape.* \(6, 2\); (one number|a scalar) is needed"):
        trainer(framework, ROWS, loss=lambda outputs, targets: (outputs - targets) ** 2).train(model)

    np.testing.assert_array_equal(seen(model, "hidden"), before)


def test_a_loss_that_is_nan_names_the_step_and_the_first_layer_that_was_not_finite(framework):
    model = mlp(framework)

    with pytest.raises(TrainingError, match=r"step 2: the loss is nan; the output of .*'?hidden'? was the first that is not finite"):
        trainer(framework, [ROWS[0], NAN]).train(model)

    assert np.isfinite(seen(model, "hidden")).all()


def test_a_gradient_that_is_not_finite_names_the_step_and_the_layer(framework):
    """The square root of 0 has the value 0 and no finite gradient."""

    def loss(outputs, targets):
        return ((outputs * 0.0) ** 2).mean() ** 0.5 if framework.name == "torch" else root(outputs)

    def root(outputs):
        import tensorflow as tf

        return tf.sqrt(tf.reduce_mean((outputs * 0.0) ** 2))

    with pytest.raises(TrainingError, match=r"step 1: .*the gradient .*(classes|the model)"):
        trainer(framework, ROWS, loss=loss).train(mlp(framework))


def test_data_that_runs_dry_is_an_error_that_says_when(framework):
    trained = trainer(framework, ROWS)
    left = iter(trained.data)
    trained.data = lambda: left

    with pytest.raises(
        TrainingError, match=r"Trainer\.data: gave batches in the first 1 runs through it, and none in the next; pass a list"
    ):
        trained.train(mlp(framework), steps=10)


def test_data_without_batches_is_an_error(framework):
    with pytest.raises(TrainingError, match=r"Trainer\.data: has no batches; pass a list"):
        trainer(framework, []).train(mlp(framework))


def test_a_batch_that_is_no_pair_is_an_error_that_says_what_it_is(framework):
    trained = trainer(framework, ROWS)
    trained.data = [(*batch, 1) for batch in trained.data]

    with pytest.raises(ConfigError, match=r"Trainer\.data: a batch is a tuple of 3; \(inputs, targets\) or a dict is needed"):
        trained.train(mlp(framework))


def test_a_metric_that_is_no_number_is_an_error(framework):
    with pytest.raises(ConfigError, match=r"Trainer\.evaluate: returned 'good'; a number is needed, the higher the better"):
        trainer(framework, ROWS, evaluate=lambda model: "good").train(mlp(framework))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": 3}, r"Trainer\.data: a int has no batches"),
        ({"loss": "mse"}, r"Trainer\.loss: 'mse' is no function"),
        ({"evaluate": 0.5}, r"Trainer\.evaluate: 0\.5 is no function"),
        ({"epochs": 0}, r"Trainer\.epochs: 0 is no whole number above 0"),
        ({"steps": 1.5}, r"Trainer\.steps: 1\.5 is no whole number above 0"),
        ({"accumulate": -1}, r"Trainer\.accumulate: -1 is no whole number above 0"),
        ({"precision": "half"}, r"Trainer\.precision: 'half' is none of float32, bfloat16, float16"),
    ],
)
def test_what_cannot_be_trained_with_is_refused_at_once(given, message):
    with pytest.raises(ConfigError, match=message):
        nnc.Trainer(**{"data": ROWS, "loss": lambda outputs, targets: 0.0, **given})


def test_after_an_error_in_training_no_view_is_left_on_the_model(framework):
    from nnc_pruning import MovementPruner

    model = mlp(framework)
    with pytest.raises(TrainingError):
        MovementPruner(model, [{"sparsity": 0.3}], trainer=trainer(framework, [ROWS[0], NAN])).compress()

    assert dict(adapter_for(model).views()) == {}
    assert dict(adapter_for(model).masks()) == {}
    assert trainer(framework, ROWS).train(model).losses[0] > 0
