"""nnc.Trainer on Keras models: the forms of losses, optimizers and batches, precision, accumulation, and what goes wrong."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from nnc.errors import ConfigError, TrainingError
from nnc.views import Learning
from nnc_tensorflow.adapter import TensorFlowAdapter
from nnc_tensorflow.names import COMPILED
from tests.adapters.tensorflow_nets import built, channel_masks
from tests.adapters.tensorflow_training import BATCHES, X, Y, alike, by_hand, mse, trainer
from tests.adapters.tensorflow_views import OUTPUT, Counted, Match, Scaled, Untold, small


def test_training_is_the_loop_written_by_hand():
    model, twin = small(), small()

    history = trainer(epochs=2, optimizer=keras.optimizers.Adam(0.01)).train(model)

    expected = by_hand(twin, BATCHES * 2, keras.optimizers.Adam(0.01))
    np.testing.assert_allclose(history.losses, expected, rtol=1e-5)
    alike(model, twin, 1e-5)


@pytest.mark.parametrize(
    ("loss", "data"),
    [
        (keras.losses.MeanSquaredError(), BATCHES),
        (lambda model, batch: mse(model(batch[0], training=True), batch[1]), BATCHES),
        (mse, [(tf.constant(x), tf.constant(y)) for x, y in BATCHES]),
        (mse, [(x.astype("float64"), y.astype("float64")) for x, y in BATCHES]),
        (mse, tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)),
        (mse, lambda: iter(BATCHES)),
        (None, BATCHES),
    ],
    ids=["keras loss", "of model and batch", "tensors", "float64", "dataset", "function", "compiled"],
)
def test_losses_and_data_come_in_many_forms(loss, data):
    model, twin = small(), small()
    model.compile(loss="mse")

    trainer(loss=loss, data=data).train(model)

    by_hand(twin, BATCHES, keras.optimizers.SGD(0.01))
    alike(model, twin, 1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", keras.optimizers.SGD, lambda variables: keras.optimizers.SGD(0.01), None])
def test_optimizers_come_in_many_forms(optimizer):
    model, twin = small(), small()
    model.compile(keras.optimizers.SGD(0.01), "mse")

    trainer(optimizer=optimizer).train(model)

    by_hand(twin, BATCHES, keras.optimizers.SGD(0.01))
    alike(model, twin, 1e-5)


def test_a_loss_of_y_true_and_y_pred_is_given_them_in_that_order():
    # The mean of targets * outputs^2 is another number when they are swapped.
    def loss(y_true, y_pred):
        return tf.reduce_mean(y_true * y_pred**2)

    model = small()
    expected = np.mean(Y * np.asarray(model(X)) ** 2)

    np.testing.assert_allclose(trainer(data=[(X, Y)], loss=loss).train(model).losses, [expected], rtol=1e-5)


def test_a_dict_is_given_to_the_model_by_name_without_its_labels():
    given = {name: keras.Input((6,), name=name) for name in ("left", "right")}
    keras.utils.set_random_seed(0)
    model = keras.Model(given, layers.Dense(3)(given["left"] + given["right"]))
    batch = {"left": X, "right": X, "labels": Y}
    outputs = np.asarray(model({"left": X, "right": X}))

    history = trainer(data=[batch]).train(model)

    np.testing.assert_allclose(history.losses, [np.mean((outputs - Y) ** 2)], rtol=1e-5)


def test_outputs_that_carry_their_loss_need_no_other():
    class Carrying(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, batch):
            logits = self.dense(batch["x"])
            return {"loss": keras.ops.mean((logits - batch["labels"]) ** 2), "logits": logits}

    model = built(Carrying(), {"x": X, "labels": Y})
    expected = float(model({"x": X, "labels": Y})["loss"])

    assert trainer(data=[{"x": X, "labels": Y}], loss=None).train(model).losses == pytest.approx([expected])


def test_regularisers_count_as_in_fit():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.5))])
    outputs, penalty = np.asarray(model(X)), 0.5 * np.sum(model.get_weights()[0] ** 2)

    losses = trainer(data=[(X, Y)]).train(model).losses

    np.testing.assert_allclose(losses, [np.mean((outputs - Y) ** 2) + penalty], rtol=1e-5)


def test_accumulated_batches_make_one_step():
    model, twin = small(), small()

    trainer(data=BATCHES * 2, accumulate=2).train(model, steps=2)

    by_hand(twin, [(X, Y)] * 2, keras.optimizers.SGD(0.01))
    alike(model, twin, 1e-5)


@pytest.mark.parametrize("make", [lambda: keras.optimizers.SGD(0.1), lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1)])
@pytest.mark.parametrize(
    ("epochs", "accumulate", "large"), [(1, 3, [(X, Y)]), (3, 4, [(np.concatenate([X, X]), np.concatenate([Y, Y])), (X, Y)])]
)
def test_batches_that_are_left_over_make_a_step_of_their_own_mean(make, epochs, accumulate, large):
    model, twin, told = small(), small(), []
    for each in (model, twin):
        TensorFlowAdapter(each).set_views({OUTPUT: (Scaled(1.0, "scores"),)})
        TensorFlowAdapter(each).learn({"scores": Learning(0.1)})

    history = trainer(epochs=epochs, accumulate=accumulate, optimizer=make()).train(model, after_step=told.append)
    trainer(data=large, optimizer=make()).train(twin)

    assert (len(history.losses), told) == (2 * epochs, list(range(1, len(large) + 1)))
    alike(model, twin, 1e-5)
    scales = [TensorFlowAdapter(each).numbers()[("output", "scaled")]["s"] for each in (model, twin)]
    np.testing.assert_allclose(*scales, rtol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_an_optimizer_goes_on_after_batches_that_were_left_over(precision):
    model, twin = small(), small()
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=8.0)
    again = trainer(optimizer=scaled if precision == "float16" else keras.optimizers.SGD(0.1), accumulate=3, precision=precision)

    again.train(model)
    again.train(model)

    by_hand(twin, [(X, Y)] * 2, keras.optimizers.SGD(0.1))
    alike(model, twin, 0.02 if precision == "float16" else 1e-5)


@pytest.mark.parametrize(("precision", "narrow"), [("bfloat16", tf.bfloat16), ("float16", tf.float16)])
def test_mixed_precision_computes_narrow_and_keeps_weights_wide(precision, narrow):
    model, twin, seen = small(), small(), []

    class Spy(Counted):
        def __call__(self, x, state, ops, training):
            seen.append(model.layers[0].compute_dtype)
            return x

    TensorFlowAdapter(model).set_views({OUTPUT: (Spy(),)})

    trainer(precision=precision, epochs=2).train(model)

    by_hand(twin, BATCHES * 2, keras.optimizers.SGD(0.01))
    assert set(seen) == {narrow.name}
    assert {variable.dtype for variable in model.variables} == {"float32"}
    assert {layer.compute_dtype for layer in model._flatten_layers()} == {"float32"}
    alike(model, twin, 0.02)


def test_dropout_is_on_and_the_same_seed_gives_the_same_numbers():
    def make():
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input((6,)), layers.Dropout(0.5, seed=1), layers.Dense(3)])

    model, twin, plain = make(), make(), make()

    first = trainer(seed=3, epochs=2).train(model).losses
    second = trainer(seed=3, epochs=2).train(twin).losses

    assert first == second
    alike(model, twin, 0)
    assert first[0] != pytest.approx(float(mse(plain(BATCHES[0][0]), BATCHES[0][1])), rel=1e-3)


def test_a_loss_of_model_and_batch_need_not_say_that_it_trains():
    model = keras.Sequential([keras.Input((6,)), layers.BatchNormalization(momentum=0.5), layers.Dense(3)])

    trainer(loss=lambda model, batch: mse(model(batch[0]), batch[1]), data=[(X, Y)]).train(model)

    np.testing.assert_allclose(np.asarray(model.layers[0].moving_mean), 0.5 * X.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_a_loss_of_model_and_batch_may_say_that_it_does_not_train():
    model = keras.Sequential([keras.Input((6,)), layers.BatchNormalization(), layers.Dense(3)])

    trainer(loss=lambda model, batch: mse(model(batch[0], training=False), batch[1]), data=[(X, Y)]).train(model)

    assert (np.asarray(model.layers[0].moving_mean) == 0).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_leaves_class_and_attributes_as_they_were(precision):
    model = small()
    before = [(type(layer), set(layer.__dict__)) for layer in model._flatten_layers()]

    trainer(precision=precision).train(model)

    assert [(type(layer), set(layer.__dict__) - {COMPILED}) for layer in model._flatten_layers()] == before


def test_batch_norm_learns_its_statistics():
    model = keras.Sequential([keras.Input((6,)), layers.BatchNormalization(momentum=0.5), layers.Dense(3)])

    trainer(data=[(X, Y)]).train(model)

    np.testing.assert_allclose(np.asarray(model.layers[0].moving_mean), 0.5 * X.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_a_layer_that_the_user_froze_stays_frozen():
    model = keras.Sequential([keras.Input((6,)), layers.BatchNormalization(), layers.Dense(3)])
    model.layers[0].trainable = False

    trainer(data=[(X, Y)], epochs=2, evaluate=lambda model: 0.5).train(model)

    assert (np.asarray(model.layers[0].moving_mean) == 0).all()
    assert [layer.trainable for layer in model.layers] == [False, True]


def test_a_model_whose_call_takes_no_training_trains():
    model = built(Untold(), X)
    adapter = TensorFlowAdapter(model)
    adapter.set_views({OUTPUT: (Counted(),)})

    losses = trainer(epochs=3, optimizer=keras.optimizers.Adam(0.05)).train(model).losses

    assert losses[-1] < losses[0]
    assert float(adapter.numbers()[("output", "counted")]["passes"]) == 6


def test_objectives_and_trained_variables_take_part():
    model, teacher = small(), small(seed=4)
    adapter = TensorFlowAdapter(model)
    adapter.set_views({OUTPUT: (Scaled(1.0, "scores"),)})
    adapter.set_objectives([Match(OUTPUT, 2.0, 0.5)], teacher)
    adapter.learn({"scores": Learning(0.1, "sgd")})
    outputs, target = np.asarray(model(X)), np.asarray(teacher(X))

    losses = trainer(data=[(X, Y)]).train(model).losses

    np.testing.assert_allclose(losses, [0.5 * np.mean((outputs - Y) ** 2) + 2 * np.mean((outputs - target) ** 2)], rtol=1e-5)
    slope = np.mean((outputs - Y) * outputs) + 2 * np.mean(2 * (outputs - target) * outputs)
    np.testing.assert_allclose(adapter.numbers()[("output", "scaled")]["s"], 1 - 0.1 * slope, rtol=1e-4)


def test_a_label_free_run_learns_from_the_teacher():
    model, teacher = small(), small(seed=4)
    TensorFlowAdapter(model).set_objectives([Match()], teacher)

    losses = trainer(data=[X], loss=None, epochs=30, optimizer=keras.optimizers.Adam(0.05)).train(model).losses

    assert losses[-1] < 0.3 * losses[0]


def test_masks_and_views_that_come_in_the_middle_are_seen_by_the_next_step():
    model, seen = small(), []
    adapter = TensorFlowAdapter(model)

    def change(number):
        adapter.set_masks(channel_masks(adapter, {"a": (1, 4)}) if number == 1 else {})
        adapter.set_views({OUTPUT: (Scaled(3.0),)} if number == 2 else {})
        seen.append(float(mse(model(X), Y)))

    losses = trainer(data=[(X, Y)], optimizer=keras.optimizers.SGD(0.0)).train(model, steps=4, after_step=change).losses

    np.testing.assert_allclose(losses[1:], seen[:3], rtol=1e-5)
    assert len({round(loss, 4) for loss in seen[:3]}) == 3


def test_one_optimizer_serves_several_runs():
    model, twin = small(), small()
    again = trainer(optimizer=keras.optimizers.Adam(0.01), accumulate=2)

    again.train(model)
    again.train(model)

    by_hand(twin, [(X, Y)] * 2, keras.optimizers.Adam(0.01))
    alike(model, twin, 1e-5)


def test_an_optimizer_of_another_model_is_told_apart():
    optimizer = keras.optimizers.Adam()
    trainer(optimizer=optimizer).train(small())

    with pytest.raises(ConfigError, match=r"built for other variables.*Give its name, or a function"):
        trainer(optimizer=optimizer).train(small())


def test_the_state_of_a_step_continues_a_run():
    whole, part, rest = small(), small(), small()
    adapter = TensorFlowAdapter(part)
    for one in (whole, part, rest):
        TensorFlowAdapter(one).set_views({OUTPUT: (Scaled(1.0, "scores"),)})
        TensorFlowAdapter(one).learn({"scores": Learning(0.1)})
    all_steps = TensorFlowAdapter(whole).trainer(mse, keras.optimizers.Adam(0.01), "float32", 1)
    first = adapter.trainer(mse, keras.optimizers.Adam(0.01), "float32", 1)
    for batch in BATCHES:
        all_steps(batch)
    first(BATCHES[0])

    rest.set_weights(part.get_weights())
    TensorFlowAdapter(rest).set_numbers(adapter.numbers())
    second = TensorFlowAdapter(rest).trainer(mse, keras.optimizers.Adam(0.01), "float32", 1)
    second.load_state(first.state())
    second(BATCHES[1])

    alike(rest, whole)
    assert TensorFlowAdapter(rest).numbers() == TensorFlowAdapter(whole).numbers()


def test_a_state_of_another_optimizer_is_refused():
    step = TensorFlowAdapter(small()).trainer(mse, "sgd", "float32", 1)

    with pytest.raises(ConfigError, match="2 arrays that are not those of this optimizer"):
        step.load_state({"0": np.zeros(3), "1": np.zeros(())})


def test_a_loss_that_is_no_scalar_is_named_with_its_shape():
    with pytest.raises(TrainingError, match=r"step 1: loss: its shape is \(4, 3\)"):
        trainer(loss=lambda outputs, targets: (outputs - targets) ** 2).train(small())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loss_that_is_not_finite_names_step_and_layer_and_changes_no_weight(precision):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="fine"), layers.Lambda(keras.ops.log, name="log"), layers.Dense(3)])
    good = (np.zeros((2, 6), "float32"), np.zeros((2, 3), "float32"))
    model.layers[0].bias.assign(np.ones(4))
    weights = []

    def remember(number):
        weights.append(model.get_weights())

    with pytest.raises(TrainingError, match="step 2: the loss is nan; the output of layer 'log' was the first"):
        trainer(data=[good, (X - 100 * np.sign(X), np.zeros((8, 3)))], optimizer=keras.optimizers.SGD(1e-6), precision=precision).train(
            model, after_step=remember
        )

    assert all((a == b).all() for a, b in zip(model.get_weights(), weights[0], strict=True))
    assert {type(layer) for layer in model.layers} == {layers.Dense, layers.Lambda}


def test_a_gradient_that_is_not_finite_names_the_layer():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, name="a"), layers.Lambda(lambda x: tf.sqrt(x * 0), name="root"), layers.Dense(3, name="b")]
    )
    before = model.get_weights()

    with pytest.raises(TrainingError, match=r"its gradient is not finite; the gradient at the output of layer 'a'"):
        trainer().train(model)

    assert all((a == b).all() for a, b in zip(model.get_weights(), before, strict=True))


def test_weights_that_were_not_finite_before_are_named():
    model = small()
    model.layers[1].kernel.assign(np.full((8, 3), np.nan))

    with pytest.raises(TrainingError, match="b/kernel was not finite before the step"):
        trainer().train(model)


def test_without_a_loss_anywhere_one_is_asked_for():
    with pytest.raises(TrainingError, match=r"give one: nnc\.Trainer"):
        trainer(loss=None).train(small())


def test_without_an_optimizer_anywhere_one_is_asked_for():
    with pytest.raises(ConfigError, match="the model is not compiled with one"):
        trainer(optimizer=None).train(small())


def test_the_loss_of_a_batch_takes_no_step():
    model = small()
    before = model.get_weights()

    loss = TensorFlowAdapter(model).batch_loss(mse, (X, Y))

    np.testing.assert_allclose(float(loss), float(mse(model(X), Y)), rtol=1e-6)
    assert all((a == b).all() for a, b in zip(model.get_weights(), before, strict=True))
