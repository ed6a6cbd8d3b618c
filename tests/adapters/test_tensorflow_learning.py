"""What a Keras model trains beside the user's variables, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from nnc.errors import ConfigError, TrainingError
from nnc.objective import Objective
from nnc.views import Learning, Site, Variable
from nnc_tensorflow.adapter import TensorFlowAdapter
from tests.adapters.tensorflow_nets import channel_masks, images
from tests.adapters.tensorflow_views import OUTPUT, Match, Scaled, Small, alike, numpy_forward, small

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


def test_a_trained_variable_moves_as_sgd_says(model, adapter):
    x, y = images(4, 6), images(4, 3, seed=1)
    adapter.set_views({OUTPUT: (Scaled(1.0, "scores"),)})
    adapter.learn({"scores": Learning(0.1, "sgd")})
    _, outputs = numpy_forward(model.get_weights(), x)
    model.compile(keras.optimizers.SGD(0.0), "mse")

    model.fit(x, y, batch_size=4, verbose=0)

    slope = np.mean(2 * (outputs - y) * outputs)
    np.testing.assert_allclose(adapter.numbers()[("output", "scaled")]["s"], 1 - 0.1 * slope, rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda o: o, keras.optimizers.LossScaleOptimizer], ids=["plain", "scaled loss"])
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2}, {"clipnorm": 1e-3}, {"loss_scale_factor": 8.0}], ids=str)
def test_trained_variables_learn_beside_the_users_optimizer_and_outside_of_it(model, adapter, wrap, options):
    if "loss_scale_factor" in options and wrap is keras.optimizers.LossScaleOptimizer:
        pytest.skip("Keras drops one of the two")
    x, y = images(8, 6), images(8, 3, seed=1)
    adapter.set_views({OUTPUT: (Scaled(1.0, "scores"),)})
    adapter.learn({"scores": Learning(0.1, "sgd")})
    twin = small()
    users = keras.optimizers.Adam(0.01, **options)
    slopes, scale = [], 1.0
    for number in range(4):
        part = slice(number * 2, number * 2 + 2)
        with tf.GradientTape() as tape:
            s = tf.constant(scale)
            tape.watch(s)
            loss = tf.reduce_mean((twin(x[part], training=True) * s - y[part]) ** 2)
        *gradients, slope = tape.gradient(loss, [*twin.trainable_variables, s])
        factor = options.get("loss_scale_factor", 1.0)
        users.apply([gradient * factor for gradient in gradients], twin.trainable_variables)
        slopes.append(float(slope))
        steps = options.get("gradient_accumulation_steps", 1)
        if len(slopes) == steps:
            scale -= 0.1 * sum(slopes) / steps
            slopes = []
    model.compile(wrap(keras.optimizers.Adam(0.01, **options)), "mse")

    model.fit(x, y, batch_size=2, shuffle=False, verbose=0)

    np.testing.assert_allclose(adapter.numbers()[("output", "scaled")]["s"], scale, rtol=1e-4)
    alike(model, twin.get_weights(), 1e-4)
    assert len(getattr(model.optimizer, "inner_optimizer", model.optimizer).variables) == len(users.variables)
    assert type(model.optimizer) is type(wrap(keras.optimizers.Adam()))
    assert len(model.trainable_variables) == 4


def test_a_frozen_model_still_trains_the_variables_of_its_views(model, adapter):
    before = model.get_weights()
    model.trainable = False
    adapter.set_views({OUTPUT: (Scaled(1.0, "scores"),)})
    adapter.learn({"scores": Learning(0.1)})
    model.compile("adam", "mse")

    model.fit(images(4, 6), images(4, 3), verbose=0)

    assert float(adapter.numbers()[("output", "scaled")]["s"]) != 1
    alike(model, before, 0)


def test_nothing_learns_where_nothing_says_how(model, adapter):
    adapter.set_views({OUTPUT: (Scaled(1.0, "scores"),)})
    model.compile("adam", "mse")

    model.fit(images(4, 6), images(4, 3), verbose=0)

    assert float(adapter.numbers()[("output", "scaled")]["s"]) == 1


def test_a_group_that_nothing_says_how_to_train_is_named(adapter):
    adapter.set_views({OUTPUT: (Scaled(1.0, "scores"),)})

    with pytest.raises(ConfigError, match=r"group 'scores'.*nearest: 'score'"):
        adapter.learn({"score": Learning(0.1)})


def test_an_objectives_own_variables_learn_with_it(model, adapter, teacher):
    class Projected(Objective):
        name = "projected"
        student = teacher = (OUTPUT,)

        def variables(self):
            return {"p": Variable(np.eye(3, dtype="float32"), trainable=True, group="p")}

        def terms(self, seen, ops):
            return {"mse": ops.mean(ops.square(ops.matmul(seen.student[OUTPUT], seen.state["p"]) - seen.teacher[OUTPUT]))}

    x = images(64, 6)
    adapter.set_objectives([Projected()], teacher)
    adapter.learn({"p": Learning(0.1)})
    model.trainable = False
    model.compile("sgd")

    model.fit(x, epochs=150, batch_size=64, verbose=0)

    best, *_ = np.linalg.lstsq(np.asarray(model(x)), np.asarray(teacher(x)), rcond=None)
    np.testing.assert_allclose(adapter.numbers()[("projected", "")]["p"], best, atol=0.05)


def test_views_of_one_shared_variable_add_their_gradients(model, adapter):
    x, y = images(4, 6), images(4, 3, seed=1)
    adapter.set_views({OUTPUT: (Scaled(1.0, "g", shared="one"), Scaled(1.0, "g", "again", shared="one"))})
    adapter.learn({"g": Learning(0.1, "sgd")})
    _, outputs = numpy_forward(model.get_weights(), x)
    model.compile(keras.optimizers.SGD(0.0), "mse")

    model.fit(x, y, batch_size=4, verbose=0)

    np.testing.assert_allclose(adapter.numbers()[("output", "again")]["s"], 1 - 0.2 * np.mean(2 * (outputs - y) * outputs), rtol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
def test_in_a_loop_of_ones_own_the_optimizer_that_was_named_steps_them_too(model, adapter, compiled):
    x, y = images(4, 6), images(4, 3, seed=1)
    optimizer = keras.optimizers.Adam(0.01)
    adapter.set_views({OUTPUT: (Scaled(1.0, "scores"),)})
    adapter.learn({"scores": Learning(0.1, "sgd")}, optimizer)
    _, outputs = numpy_forward(model.get_weights(), x)

    def step():
        with tf.GradientTape() as tape:
            loss = adapter.total(tf.reduce_mean((model(x, training=True) - y) ** 2))
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True))

    (tf.function(step) if compiled else step)()

    np.testing.assert_allclose(adapter.numbers()[("output", "scaled")]["s"], 1 - 0.1 * np.mean(2 * (outputs - y) * outputs), rtol=1e-5)
    adapter.set_views({})
    assert type(optimizer) is keras.optimizers.Adam
    assert len(model.trainable_variables) == 4
    assert len(optimizer.variables) == 2 + 2 * 4


def test_masks_views_and_objectives_hold_together_in_fit(model, adapter, teacher):
    adapter.set_masks(channel_masks(adapter, {"a": (1, 4)}))
    adapter.set_views({A: (Scaled(2.0, "scores"),)})
    adapter.set_objectives([Match()], teacher)
    adapter.learn({"scores": Learning(0.01)})
    model.compile("adamw", "mse")

    model.fit(images(16, 6), images(16, 3), epochs=5, verbose=0)

    kernel = np.asarray(model.layers[0].kernel)
    assert (kernel[:, [1, 4]] == 0).all()
    assert (kernel[:, [0, 2]] != 0).all()


def test_taking_objectives_away_gives_class_and_attributes_back(model, adapter, teacher):
    before = [(type(layer), set(layer.__dict__)) for part in (model, teacher) for layer in part._flatten_layers()]
    adapter.set_objectives([Match(HIDDEN)], teacher)

    adapter.set_objectives(())

    assert [(type(layer), set(layer.__dict__)) for part in (model, teacher) for layer in part._flatten_layers()] == before


def test_an_error_while_setting_objectives_leaves_the_model_as_it_was(model, adapter, teacher):
    adapter.set_objectives([Match(HIDDEN)], teacher)

    with pytest.raises(ConfigError, match="'c' is no layer"):
        adapter.set_objectives([Match(HIDDEN), Match(Site("c"), name="second")], teacher)

    model(images(2, 6), training=True)
    assert float(adapter.total(None)) > 0
    adapter.set_objectives(())
    assert type(teacher.layers[0]) is layers.Dense


@pytest.mark.parametrize(
    ("objectives", "teacher", "message"),
    [
        ([Match()], None, "'match'.*reads a teacher, but none is given"),
        ([Small(A, 1.0), Small(A, 1.0)], None, "'small' is the name of two"),
        ([Match()], "no model", "a str was given"),
        ([Match()], "self", "the model itself was given"),
    ],
)
def test_what_does_not_fit_is_refused(adapter, model, objectives, teacher, message):
    with pytest.raises(ConfigError, match=message):
        adapter.set_objectives(objectives, model if teacher == "self" else teacher)


def test_a_term_that_is_no_scalar_is_named(model, adapter):
    class Vector(Small):
        def terms(self, seen, ops):
            return {"l1": ops.abs(seen.student[A])}

    adapter.set_objectives([Vector(A, 1.0)])
    model(images(2, 6), training=True)

    with pytest.raises(TrainingError, match=r"small\.l1: .*shape \(8, 6\)"):
        adapter.total(None)


def test_a_teacher_of_other_inputs_is_named(model, adapter):
    adapter.set_objectives([Match()], keras.Sequential([keras.Input((5,)), layers.Dense(3)]))
    model.compile("sgd")

    with pytest.raises(ConfigError, match="teacher: it does not run on what the model is given"):
        model.fit(images(2, 6), verbose=0)


def test_saving_while_objectives_are_on_stores_the_users_model(model, adapter, teacher, tmp_path):
    stored = model.get_weights()
    adapter.set_objectives([Match(HIDDEN)], teacher)

    model.save(tmp_path / "model.keras")

    alike(keras.models.load_model(tmp_path / "model.keras"), stored, 0)
