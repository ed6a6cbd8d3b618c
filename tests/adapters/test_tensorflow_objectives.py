"""Objectives in Keras' own training: what `fit` and loops of the user's own do with them, and how trained variables learn."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from nnc.errors import ConfigError
from nnc.objective import Objective
from nnc.views import Site
from nnc_tensorflow.adapter import TensorFlowAdapter
from nnc_tensorflow.examples import randomise
from tests.adapters.tensorflow_nets import Residual, built, images
from tests.adapters.tensorflow_views import OUTPUT, Match, Small, Untold, alike, numpy_forward, small

A = Site("a", "weight")
HIDDEN = Site("a", "output")


@pytest.fixture(name="model")
def give_model():
    return small()


@pytest.fixture(name="adapter")
def give_adapter(model):
    return TensorFlowAdapter(model)


@pytest.fixture(name="teacher")
def give_teacher():
    return small(seed=5)


def test_the_terms_of_fit_are_those_worked_out_by_hand(model, adapter, teacher):
    x, y = images(8, 6), images(8, 3, seed=1)
    hidden, outputs = numpy_forward(model.get_weights(), x)
    taught, target = numpy_forward(teacher.get_weights(), x)
    kernel = model.get_weights()[0]
    adapter.set_objectives([Match(OUTPUT, 3.0, 0.5), Match(HIDDEN, 1.0, 0.5, "hidden"), Small(A, 0.1)], teacher)
    model.compile(keras.optimizers.SGD(0.0), "mse")

    logs = model.fit(x, y, batch_size=8, verbose=0).history

    expected = {
        "task": np.mean((outputs - y) ** 2),
        "match.mse": 3 * np.mean((outputs - target) ** 2),
        "hidden.mse": np.mean((hidden - taught) ** 2),
        "small.l1": 0.1 * np.abs(kernel).sum(),
    }
    total = 0.25 * expected["task"] + expected["match.mse"] + expected["hidden.mse"] + expected["small.l1"]
    assert set(logs) == {*expected, "loss"}
    np.testing.assert_allclose([logs[name][0] for name in expected], list(expected.values()), rtol=1e-5)
    np.testing.assert_allclose(logs["loss"][0], total, rtol=1e-5)
    np.testing.assert_allclose([adapter.terms()[name] for name in expected], list(expected.values()), rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"run_eagerly": True}, {"steps_per_execution": 2}], ids=str)
def test_fit_with_an_objective_is_the_loop_written_by_hand(adapter, model, teacher, options):
    x, y = images(16, 6), images(16, 3, seed=1)
    twin, optimizer = small(), keras.optimizers.Adam(0.01)
    for _ in range(2):
        for start in (0, 8):
            part = slice(start, start + 8)
            with tf.GradientTape() as tape:
                outputs = twin(x[part], training=True)
                loss = 0.5 * tf.reduce_mean((outputs - y[part]) ** 2) + 2.0 * tf.reduce_mean((outputs - teacher(x[part])) ** 2)
            optimizer.apply(tape.gradient(loss, twin.trainable_variables), twin.trainable_variables)
    adapter.set_objectives([Match(OUTPUT, 2.0, 0.5)], teacher)
    model.compile(keras.optimizers.Adam(0.01), "mse", **options)

    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)

    alike(model, twin.get_weights())


def test_a_loop_of_ones_own_adds_the_terms_by_total(model, adapter, teacher):
    x, y = images(8, 6), images(8, 3, seed=1)
    adapter.set_objectives([Match(OUTPUT, 2.0, 0.5)], teacher)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            return tape.gradient(adapter.total(tf.reduce_mean((model(x, training=True) - y) ** 2)), model.trainable_variables)

    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = 0.5 * tf.reduce_mean((outputs - y) ** 2) + 2.0 * tf.reduce_mean((outputs - teacher(x)) ** 2)
    expected = tape.gradient(loss, model.trainable_variables)

    for mine, theirs in zip(step(), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)


def test_total_of_none_is_the_terms_alone(model, adapter, teacher):
    x = images(8, 6)
    adapter.set_objectives([Match(OUTPUT, 1.0)], teacher)

    outputs = model(x, training=True)

    np.testing.assert_allclose(float(adapter.total(None)), np.mean((np.asarray(outputs) - np.asarray(teacher(x))) ** 2), rtol=1e-5)


def test_total_without_a_forward_pass_says_so(adapter, teacher):
    adapter.set_objectives([Match()], teacher)

    with pytest.raises(ConfigError, match="the model has not run since the last one"):
        adapter.total(tf.constant(1.0))


def test_total_of_a_pass_that_does_not_train_is_the_loss_alone(model, adapter, teacher):
    adapter.set_objectives([Match()], teacher)

    model(images(2, 6), training=False)

    assert float(adapter.total(tf.constant(3.0))) == 3


def test_total_of_none_without_objectives_is_refused(adapter):
    with pytest.raises(ConfigError, match="no objective adds a term"):
        adapter.total(None)


def test_a_model_that_trains_inside_another_one_warns(model, adapter, teacher):
    adapter.set_objectives([Match()], teacher)
    outer = keras.Sequential([keras.Input((6,)), model])

    with pytest.warns(UserWarning, match="runs inside another one"):
        outer(images(2, 6), training=True)


def test_fit_learns_from_the_teacher_without_labels_and_without_a_loss(model, adapter, teacher):
    x = images(64, 6)
    adapter.set_objectives([Match()], teacher)
    model.compile(keras.optimizers.Adam(0.05))

    losses = model.fit(x, epochs=40, batch_size=32, verbose=0).history["loss"]

    assert losses[-1] < 0.2 * losses[0]


def test_the_teacher_stays_frozen_and_in_inference_mode():
    x = images(8, 12, 12, 3)
    model, teacher = built(Residual(), x), built(Residual(), x, seed=3)
    before = teacher.get_weights()
    TensorFlowAdapter(model).set_objectives([Match()], teacher)
    model.compile("adam")

    model.fit(x, epochs=2, verbose=0)

    assert all((a == b).all() for a, b in zip(teacher.get_weights(), before, strict=True))


def test_batch_norm_learns_its_statistics_while_an_objective_is_on():
    x = images(8, 12, 12, 3)
    model, teacher = built(Residual(), x), built(Residual(), x, seed=3)
    before = np.asarray(model.block.norms["inner"].moving_mean)
    TensorFlowAdapter(model).set_objectives([Match()], teacher)
    model.compile("adam")

    model.fit(x, verbose=0)

    assert (np.asarray(model.block.norms["inner"].moving_mean) != before).all()


def test_an_evaluation_is_of_the_users_loss_alone(model, adapter, teacher):
    x, y = images(8, 6), images(8, 3, seed=1)
    adapter.set_objectives([Match(task_weight=0.5)], teacher)
    model.compile("sgd", "mse", metrics=["mae"])

    logs = model.fit(x, y, validation_data=(x, y), verbose=0).history
    results = model.evaluate(x, y, verbose=0, return_dict=True)

    assert {name for name in logs if name.startswith("val_")} == {"val_loss", "val_mae"}
    _, outputs = numpy_forward(model.get_weights(), x)
    np.testing.assert_allclose(results["loss"], np.mean((outputs - y) ** 2), rtol=1e-5)
    assert set(results) == {"loss", "mae"}


def test_sample_weights_weigh_the_users_loss(model, adapter, teacher):
    x, y, weights = images(4, 6), images(4, 3, seed=1), np.array([1.0, 0.0, 2.0, 0.0], "float32")
    adapter.set_objectives([Match()], teacher)
    model.compile(keras.optimizers.SGD(0.0), "mse")

    logs = model.fit(x, y, sample_weight=weights, verbose=0).history

    _, outputs = numpy_forward(small().get_weights(), x)
    np.testing.assert_allclose(logs["task"][0], np.sum(np.mean((outputs - y) ** 2, axis=1) * weights) / 4, rtol=1e-5)


def test_a_train_step_and_a_compute_loss_of_the_users_own_are_honoured(teacher):
    class Own(Untold):
        def compute_loss(self, x, y, y_pred, sample_weight):
            return 7.0 * keras.ops.mean((y_pred - y) ** 2)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x), None)
            self.optimizer.apply_gradients(zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables, strict=True))
            return {"mine": loss, **{metric.name: metric.result() for metric in self.metrics}}

    x, y = images(4, 6), images(4, 3, seed=1)
    model = built(Own(), x)
    outputs = np.asarray(model(x))
    TensorFlowAdapter(model).set_objectives([Match()], teacher)
    model.compile(keras.optimizers.SGD(0.0))

    logs = model.fit(x, y, verbose=0).history

    task, term = 7 * np.mean((outputs - y) ** 2), np.mean((outputs - np.asarray(teacher(x))) ** 2)
    np.testing.assert_allclose([logs["mine"][0], logs["task"][0], logs["match.mse"][0]], [task + term, task, term], rtol=1e-5)


def test_a_train_step_that_asks_for_no_terms_is_refused(teacher):
    class Own(Untold):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = keras.ops.mean((self(x) - y) ** 2)
            self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
            return {"mine": loss}

    x, y = images(4, 6), images(4, 3, seed=1)
    model = built(Own(), x)
    before = model.get_weights()
    TensorFlowAdapter(model).set_objectives([Match()], teacher)
    model.compile(keras.optimizers.SGD(0.1))

    with pytest.raises(ConfigError, match=r"Own\.train_step: what match adds to the loss is missing; take loss = self\.compute_loss"):
        model.fit(x, y, verbose=0)

    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))


class Masked(Objective):
    name = "masked"
    student = (OUTPUT,)

    def terms(self, seen, ops):
        mask = ops.astype(seen.mask, ops.float32)
        return {"mean": ops.sum(ops.max(seen.student[OUTPUT], axis=-1) * mask) / ops.sum(mask)}


def test_the_padding_mask_among_the_inputs_reaches_the_objective():
    given = {name: keras.Input((3,), dtype="int32", name=name) for name in ("token_ids", "padding_mask")}
    model = keras.Model(given, layers.Embedding(5, 2)(given["token_ids"]))
    randomise(model)
    batch = {"token_ids": np.array([[1, 2, 3], [4, 0, 0]]), "padding_mask": np.array([[1, 1, 1], [1, 0, 0]])}
    best = np.asarray(model(batch)).max(axis=-1)
    TensorFlowAdapter(model).set_objectives([Masked()])
    model.compile(keras.optimizers.SGD(0.0))

    logs = model.fit(batch, verbose=0).history

    np.testing.assert_allclose(logs["masked.mean"][0], (best[0].sum() + best[1, 0]) / 4, rtol=1e-5)


def test_a_mask_given_with_the_loss_reaches_the_objective(adapter, model):
    adapter.set_objectives([Masked()])
    outputs = np.asarray(model(images(2, 6), training=True))

    total = adapter.total(tf.constant(1.0), mask=tf.constant([1, 0]))

    np.testing.assert_allclose(float(total), 1 + outputs[0].max(), rtol=1e-5)
