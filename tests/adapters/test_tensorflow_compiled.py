"""A compiled training step on Keras is kept for as long as the model is seen alike, and made anew where it is not."""

import keras
import numpy as np
import pytest

import nnc
from nnc.registry import algorithm
from nnc.views import Learning
from nnc_tensorflow.adapter import TensorFlowAdapter
from nnc_tensorflow.names import COMPILED
from tests.adapters.tensorflow_nets import channel_masks
from tests.adapters.tensorflow_training import BATCHES, X, Y, alike, by_hand, mse, trainer
from tests.adapters.tensorflow_views import OUTPUT, Match, Scaled, small


class Traced:
    """mse that counts how often Python runs it: once for each compilation of a step."""

    def __init__(self):
        self.count = 0

    def __call__(self, outputs, targets):
        self.count += 1
        return mse(outputs, targets)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("make", [lambda variables: keras.optimizers.Adam(0.01), "adam"], ids=["function", "name"])
def test_trainings_that_are_alike_compile_one_step_and_begin_with_a_fresh_optimizer(make, precision):
    model, twin, loss = small(), small(), Traced()
    again = trainer(loss=loss, optimizer=make, precision=precision)

    found = [again.train(model).losses for _ in range(3)]

    expected = [trainer(optimizer=make, precision=precision).train(twin).losses for _ in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    alike(model, twin)
    assert loss.count == 1


def test_an_optimizer_that_a_function_made_shows_its_own_training():
    made = []
    again = trainer(optimizer=lambda variables: made.append(keras.optimizers.Adam(0.01)) or made[-1])
    model = small()

    again.train(model)
    again.train(model, epochs=3)

    assert int(made[-1].iterations) == 6


def test_other_settings_of_the_optimizer_compile_another_step():
    model, twin, loss, rates = small(), small(), Traced(), iter([0.1, 0.5])
    again = trainer(loss=loss, optimizer=lambda variables: keras.optimizers.SGD(next(rates)))

    again.train(model)
    again.train(model)

    by_hand(twin, BATCHES, keras.optimizers.SGD(0.1))
    by_hand(twin, BATCHES, keras.optimizers.SGD(0.5))
    alike(model, twin, 1e-5)
    assert loss.count == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda model, adapter: adapter.set_views({OUTPUT: (Scaled(3.0),)}),
        lambda model, adapter: adapter.set_objectives([Match(OUTPUT, 2.0)], small(seed=4)),
        lambda model, adapter: adapter.set_masks(channel_masks(adapter, {"a": (1, 4)})),
        lambda model, adapter: setattr(model.layers[0], "trainable", False),
        lambda model, adapter: model.compile("sgd", loss="mae"),
    ],
    ids=["views", "objectives", "masks", "frozen", "recompiled"],
)
def test_a_step_of_a_model_that_is_seen_differently_is_compiled_anew(change):
    model, fresh = small(), small()
    model.compile("sgd", loss="mse")
    fresh.compile("sgd", loss="mse")
    again = trainer(loss=None, optimizer="sgd", data=[(X, Y)])
    again.train(model)
    again.train(fresh)
    change(model, TensorFlowAdapter(model))
    change(fresh, TensorFlowAdapter(fresh))
    fresh.__dict__.pop(COMPILED, None)

    assert again.train(model).losses == again.train(fresh).losses
    alike(model, fresh)


def test_all_rounds_of_a_schedule_share_a_compiled_step():
    model, loss = small(), Traced()
    config = [{"op_names": ["a"], "sparsity": 0.5}]

    nnc.ScheduledPruner(model, config, X, schedule="linear", rounds=4, trainer=trainer(loss=loss, optimizer="adam")).compress()

    assert loss.count == 1


def test_all_iterations_of_admm_share_a_compiled_step():
    model, loss = small(), Traced()
    config = [{"op_names": ["a"], "sparsity": 0.5, "iterations": 4}]

    algorithm("admm")(model, config, trainer=trainer(loss=loss)).compress()

    assert loss.count == 1


def test_fit_traces_terms_and_trained_variables_once():
    model, loss = small(), Traced()
    adapter = TensorFlowAdapter(model)
    adapter.set_views({OUTPUT: (Scaled(1.0, "scores"),)})
    adapter.set_objectives([Match()], small(seed=4))
    adapter.learn({"scores": Learning(0.1, "adam")})
    model.compile("adam", lambda targets, outputs: loss(outputs, targets))

    model.fit(X, Y, batch_size=4, verbose=0)

    assert loss.count <= 2  # Keras builds what it compiles by a symbolic pass first
