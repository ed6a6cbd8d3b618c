"""Small Keras models: exact, independent of the user's, and saved like any other."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from nnc.errors import SpeedupError
from nnc.graph.plan import Group, Member, Plan, Reshape
from nnc.speedup import ModelSpeedup
from nnc_tensorflow.adapter import TensorFlowAdapter
from nnc_tensorflow.examples import randomise
from tests.adapters.tensorflow_nets import Block, HardCoded, Residual, built, channel_masks, images, lenet, residual_network


def functional_lenet():
    given = keras.Input((28, 28, 1))
    x = given
    for layer in lenet().layers:
        x = layer.__class__.from_config(layer.get_config())(x)
    return keras.Model(given, x)


def symbolic_reshape():
    """A Functional model with operators and a literal reshape, a model inside, and a loss that cannot be cloned."""
    inner = keras.Sequential([keras.Input((2880,)), layers.Dense(30, name="hidden"), layers.ReLU()], name="inner")
    given = keras.Input((28, 28, 1))
    x = layers.MaxPooling2D(2)(layers.Conv2D(20, 5, name="conv1")(given))
    x = ops.reshape(ops.relu(x + 0.5), (-1, 12 * 12 * 20))
    model = keras.Model(given, layers.Dense(4, name="head")(inner(x)))
    model.compile("adam", loss=lambda y, p: ops.mean((y - p) ** 2))
    return model


def reshape_layer():
    conv = layers.Conv2D(20, 5, activation="relu", name="conv1")
    stack = [
        keras.Input((28, 28, 1)),
        conv,
        layers.MaxPooling2D(4),
        layers.Reshape((36, 20)),
        layers.Dense(8, name="fc1"),
        layers.Flatten(),
    ]
    return keras.Sequential([*stack, layers.Dense(3, name="head")])


def custom_layer_within():
    given = keras.Input((12, 12, 3))
    x = Block(8)(layers.Conv2D(8, 3, name="stem")(given))
    x = layers.Conv2D(6, 3, activation="relu", name="conv1")(x)
    return keras.Model(given, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x)))


HALF, DIGITS, COLOURS = tuple(range(0, 20, 2)), (3, 28, 28, 1), (3, 12, 12, 3)
MODELS = {
    "sequential": (lenet, DIGITS, {"conv1": HALF, "conv2": range(25), "fc1": range(0, 500, 2)}),
    "functional": (functional_lenet, DIGITS, {"conv1": HALF, "conv2": range(25), "fc1": range(0, 500, 2)}),
    "subclassed": (HardCoded, DIGITS, {"conv1": HALF, "conv2": range(25), "fc1": range(0, 500, 2)}),
    "symbolic_reshape": (symbolic_reshape, DIGITS, {"conv1": HALF, "inner.hidden": range(0, 30, 3)}),
    "reshape_layer": (reshape_layer, DIGITS, {"conv1": HALF, "fc1": (1, 2)}),
    "residual": (
        lambda: residual_network()[0],
        COLOURS,
        {"stem": (0, 3), "depthwise": (0, 3), "project": (0, 3), "mix": (1, 2, 11), "hidden": range(8)},
    ),
    "subclassed_residual": (
        Residual,
        COLOURS,
        {"stem": (0, 3), "block.convs.0": (1, 2), "block.convs.1": (0, 3), "block.depthwise": (1, 2)},
    ),
    "custom_layer_within": (custom_layer_within, COLOURS, {"conv1": (0, 5), "block.convs.0": (1, 2), "block.depthwise": (1, 2)}),
}
PLAIN = ("sequential", "functional", "symbolic_reshape", "reshape_layer", "residual")


@pytest.fixture(name="case", params=MODELS)
def give_case(request):
    return speedup(request.param)


def speedup(name):
    build, shape, rows = MODELS[name]
    x = images(*shape)
    model = built(build(), x)
    adapter = TensorFlowAdapter(model)
    masks = channel_masks(adapter, rows)
    return model, x, ModelSpeedup(model, x, masks), rows


def test_the_small_model_is_exact_and_the_users_is_as_it_was(case):
    model, x, speed, _ = case
    weights, classes, expected = model.get_weights(), [type(layer) for layer in model._flatten_layers()], np.asarray(model(x))

    small = speed.speedup_model()

    assert speed.difference <= 1e-5
    assert small.count_params() < model.count_params()
    assert all((a == b).all() for a, b in zip(model.get_weights(), weights, strict=True))
    assert [type(layer) for layer in model._flatten_layers()] == classes
    assert (np.asarray(model(x)) == expected).all()


def test_what_was_masked_is_gone(case):
    _, _, speed, rows = case

    small = speed.speedup_model()

    for layer in TensorFlowAdapter(small).layers():
        if layer.name in rows and layer.name not in ("stem", "project"):
            assert layer.parameters["weight"][0] == speed.masks[layer.name]["weight"].shape[0] - len(rows[layer.name])


def test_the_small_model_trains_without_touching_the_users(case):
    model, x, speed, _ = case
    expected, small = np.asarray(model(x)), speed.speedup_model()
    before = np.asarray(small(x))

    small.compile("adam", "mse")
    small.fit(x, np.ones_like(before), epochs=2, verbose=0)

    assert (np.asarray(model(x)) == expected).all()
    assert np.abs(np.asarray(small(x)) - before).max() > 1e-4


def test_names_paths_and_trainable_flags_stay(case):
    model, _, speed, _ = case
    model.layers[-1].trainable = False
    names = [layer.name for layer in model._flatten_layers()]

    small = speed.speedup_model()

    assert [layer.name for layer in small._flatten_layers()] == names
    assert small.name == model.name
    assert type(small) is type(model)
    assert [v.trainable for v in small.variables] == [v.trainable for v in model.variables]


def test_layers_hold_the_sizes_of_their_weights(case):
    _, _, speed, _ = case

    for layer in speed.speedup_model()._flatten_layers():
        if isinstance(layer, layers.Dense):
            assert layer.units == layer.kernel.shape[-1]
            assert layer.input_spec.axes == {-1: layer.kernel.shape[0]}
        if isinstance(layer, layers.Conv2D):
            assert layer.filters == layer.kernel.shape[-1]


def test_weights_of_the_small_model_save_and_load(case, tmp_path):
    _, x, speed, _ = case
    small = speed.speedup_model()
    expected = np.asarray(small(x))
    small.save_weights(tmp_path / "model.weights.h5")
    for variable in small.variables:
        variable.assign(variable * 0)

    small.load_weights(tmp_path / "model.weights.h5")

    assert (np.asarray(small(x)) == expected).all()


@pytest.mark.parametrize("name", PLAIN)
def test_a_small_functional_model_loads_where_nnc_is_not(name, tmp_path):
    _, x, speed, _ = speedup(name)
    small = speed.speedup_model()
    small.save(tmp_path / "small.keras")
    np.savez(tmp_path / "case.npz", x=x, y=np.asarray(small(x)))
    code = f"""
import sys, keras, numpy as np
case = np.load(r"{tmp_path / "case.npz"}")
model = keras.models.load_model(r"{tmp_path / "small.keras"}")
print(np.abs(np.asarray(model(case["x"])) - case["y"]).max() <= 1e-6, any(name.startswith("nnc") for name in sys.modules))
"""

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.split()[-2:] == ["True", "False"]


@pytest.mark.parametrize("name", ["sequential", "symbolic_reshape", "custom_layer_within"])
def test_the_summary_tells_the_new_sizes(name):
    small = speedup(name)[2].speedup_model()
    lines = []

    small.summary(print_fn=lines.append)

    sizes = {"sequential": "(None, 400)", "symbolic_reshape": "(None, 1440)", "custom_layer_within": "(None, 8, 8, 4)"}
    assert sizes[name] in "\n".join(lines)


def test_a_hard_coded_size_is_rewritten_on_the_small_model_only():
    model, x, speed, _ = speedup("subclassed")

    small = speed.speedup_model()

    assert [(r.old, r.new, r.rewrite) for r in speed.plan.reshapes] == [((-1, 800), (-1, 400), True)]
    assert "call" in vars(small)
    assert "call" not in vars(model)
    assert HardCoded.call is type(small).call
    np.testing.assert_allclose(small.predict(x, verbose=0), TensorFlowAdapter(small).run(x)[0], atol=1e-6)


def test_a_literal_that_fits_by_chance_is_found_by_its_shape():
    model = built(HardCoded(), images(*DIGITS))
    adapter = TensorFlowAdapter(model)
    masks = channel_masks(adapter, {"conv2": range(25)})  # 2 images of 400 reshape to 1 of 800 without an error

    speed = ModelSpeedup(model, images(2, 28, 28, 1), masks)
    speed.speedup_model()

    assert [(r.new, r.rewrite) for r in speed.plan.reshapes] == [((-1, 400), True)]
    assert speed.difference <= 1e-5


def test_a_reshape_that_cannot_be_rewritten_is_named():
    adapter = TensorFlowAdapter(built(HardCoded(), images(*DIGITS)))

    with pytest.raises(SpeedupError, match=r"HardCoded.features, line 7.*no method of that name"):
        adapter.rewrite(Reshape("", "Reshape", "HardCoded.features", 7, (-1, 800), (-1, 400)))


def test_a_fold_without_a_bias_makes_one():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(6, name="a"), layers.Dense(5, use_bias=False, name="b"), layers.Dense(2, name="c")]
    )
    plan = Plan(groups=(Group((Member("b.weight", 0, 0, 1, 5, 1, (2,)), Member("c.weight", 1, 0, 1, 5, 1, (2,)))),), biases=("b",))

    small = TensorFlowAdapter(model).shrink(plan, {}, {"b.bias": np.arange(5.0)})

    assert np.asarray(small.layers[1].bias).tolist() == [0, 1, 3, 4]
    assert small.layers[1].get_config()["use_bias"]


def test_a_fold_makes_a_bias_in_a_subclassed_model():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(5, use_bias=False), layers.Dense(2)

        def call(self, x):
            return self.b(self.a(x))

    x = images(3, 4)
    model = built(Net(), x)
    small = TensorFlowAdapter(model).shrink(Plan(biases=("a",)), {}, {"a.bias": np.arange(5.0)})

    expected = np.asarray(model.b(model.a(x) + np.arange(5.0, dtype="float32")))
    np.testing.assert_allclose(np.asarray(small(x)), expected, atol=1e-5)
    assert model.a.bias is None


def test_a_plan_is_remembered_through_further_shrinks():
    model, x, speed, _ = speedup("subclassed_residual")
    small = speed.speedup_model()

    again = ModelSpeedup(
        small, x, channel_masks(TensorFlowAdapter(small), {"block.convs.0": (0,), "block.depthwise": (0,)})
    ).speedup_model()

    assert TensorFlowAdapter(model).plans() == ()
    assert len(TensorFlowAdapter(small).plans()) == 1
    assert len(TensorFlowAdapter(again).plans()) == 2


def test_tied_layers_stay_tied():
    class Tied(keras.Model):
        def __init__(self):
            super().__init__()
            self.shared = layers.Dense(6, activation="relu")
            self.alias = [self.shared, layers.Dense(4)]
            self.head = layers.Dense(2)

        def call(self, x):
            return self.head(self.alias[1](self.shared(x)))

    x = images(3, 6)
    model = built(Tied(), x)
    small = ModelSpeedup(model, x, channel_masks(TensorFlowAdapter(model), {"alias.1": (0,), "shared": (2,)})).speedup_model()

    assert small.alias[0] is small.shared
    assert small.shared is not model.shared


def test_masks_of_a_masked_model_are_not_carried_into_the_small_one():
    model, x, speed, _ = speedup("subclassed_residual")
    TensorFlowAdapter(model).set_masks(speed.masks)

    small = ModelSpeedup(model, x).speedup_model()

    assert TensorFlowAdapter(small).masks() == {}
    assert all(type(layer) is layer.__class__ for layer in small._flatten_layers())
    assert set(TensorFlowAdapter(model).masks()) == set(speed.masks)


def test_the_copy_of_a_compiled_and_trained_model_is_not_compiled():
    x = images(*COLOURS)
    model = built(Residual(), x)
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(x, np.zeros((3, 5)), verbose=0)
    randomise(model)

    small = ModelSpeedup(
        model, x, channel_masks(TensorFlowAdapter(model), {"block.convs.0": (1,), "block.depthwise": (1,)})
    ).speedup_model()

    assert not small.compiled
    assert model.compiled
    model.fit(x, np.zeros((3, 5)), verbose=0)
    small.compile("sgd", "mse")
    small.fit(x, np.zeros((3, 5)), verbose=0)


class Literals(keras.Model):
    """Splits and reshapes by literals and by an attribute."""

    def __init__(self):
        super().__init__()
        self.width = 12
        self.a, self.b, self.c = layers.Dense(24), layers.Dense(6), layers.Dense(3)

    def call(self, x):
        gate, value = tf.split(self.a(x), [12, 12], axis=-1)
        x = ops.reshape(ops.sigmoid(gate) * value, (-1, self.width))
        return self.c(self.b(x))


def test_sizes_of_splits_and_in_attributes_follow():
    x = images(4, 5)
    model = built(Literals(), x)
    adapter = TensorFlowAdapter(model)
    masks = channel_masks(adapter, {"a": (12, 15)})  # the values; 0.5 and up times zero is zero
    masks["b"] = {"weight": np.ones((6, 12), bool), "bias": np.ones(6, bool)}
    masks["b"]["weight"][:, [0, 3]] = False
    masks["a"]["weight"][[0, 3]] = masks["a"]["bias"][[0, 3]] = False

    speed = ModelSpeedup(model, x, masks)
    small = speed.speedup_model()

    assert speed.difference <= 1e-5
    assert (small.a.units, small.width, model.width) == (20, 10, 12)
    assert [(r.old, r.new) for r in speed.plan.reshapes] == [((12, 12), (10, 10)), ((-1, 12), (-1, 10))]


def test_a_second_shrink_starts_from_the_rewritten_call():
    _, x, speed, _ = speedup("subclassed")
    small = speed.speedup_model()

    again = ModelSpeedup(small, x, channel_masks(TensorFlowAdapter(small), {"conv2": (0, 1, 2, 3, 4)}))
    smaller = again.speedup_model()

    assert again.plan.reshapes[0].new == (-1, 320)
    assert smaller.fc1.kernel.shape == (320, 250)
    assert small.fc1.kernel.shape == (400, 250)
    np.testing.assert_allclose(np.asarray(small(x)), TensorFlowAdapter(small).run(x)[0], atol=1e-6)
