"""What the adapter reads of a Keras model's forward pass: run in NumPy, the graph must give the model's outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from nnc.errors import ConfigError, TraceError
from nnc_tensorflow.adapter import TensorFlowAdapter
from tests.adapters.tensorflow_nets import Block, HardCoded, Residual, built, channel_masks, images, lenet, residual_network
from tests.core.interpreter import OPERATIONS


def _take(node, shape, x):
    return np.take(x, node.attrs["index"], node.attrs["axis"])


def _pool(node, shape, x):
    (rows, columns), size = node.attrs["axes"], x.shape[node.attrs["axes"][0]] // shape[node.attrs["axes"][0]]
    windows = np.lib.stride_tricks.sliding_window_view(x, (min(size, x.shape[rows]), size), axis=(rows, columns))
    windows = windows[(slice(None),) * rows + (slice(None, None, size), slice(None, None, size))]
    return windows.max(axis=(-1, -2)) if node.attrs["function"] == "max" else windows.mean(axis=(-1, -2))


def _pad(node, shape, x):
    found = np.full(shape, node.attrs["value"], x.dtype)
    found[
        tuple(
            slice(n - m, n) if axis in node.attrs["axes"] else slice(None) for axis, (m, n) in enumerate(zip(x.shape, shape, strict=True))
        )
    ] = x
    return found


def _reduce(node, shape, x):
    function = {"sum": np.sum, "mean": np.mean, "extreme": np.max}[node.attrs["function"]]
    return function(x, axis=tuple(node.attrs["axes"]), keepdims=node.attrs["keepdims"])


def _along(node, shape, x):
    softmax = OPERATIONS["along"](node, shape, x)
    return np.log(softmax) if node.op == "LogSoftmax" else softmax


MORE = {
    "slice": _take,
    "select": _take,
    "reduce": _reduce,
    "along": _along,
    "stack": lambda node, shape, *xs: np.stack(xs, node.attrs["axis"]),
    "repeat": lambda node, shape, x: np.tile(x, node.attrs["counts"]),
    "embedding": lambda node, shape, indices, table: table[indices],
    "pool": _pool,
    "pad": _pad,
}


def run(graph, inputs):
    """Return the graph's outputs, computed in NumPy, and compare every node's shape on the way."""
    known = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes:
        given = [None if t is None else known[t] if t in known else t.data() for t in node.inputs]
        made = (MORE.get(node.kind) or OPERATIONS[node.kind])(node, node.outputs[0].shape, *given)
        assert made.shape == node.outputs[0].shape, node.place
        known[node.outputs[0]] = made
    return [known[tensor] for tensor in graph.outputs]


def functional(shape, build, dtype="float32"):
    given = keras.Input(shape, dtype=dtype)
    return keras.Model(given, build(given))


def check(model, x):
    """Trace the model; compare every node's shape and the graph's outputs with the model's."""
    adapter = TensorFlowAdapter(built(model, x))
    trace = adapter.trace(x, {})
    graph = trace.graph
    assert not [node.place for node in graph.nodes if node.kind == "unknown"]
    found = run(graph, [np.asarray(x)])
    for mine, theirs in zip(found, trace.outputs, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
    return graph


class Sliced(layers.Layer):
    def __init__(self):
        super().__init__()
        self.table = self.add_weight(shape=(1, 12), name="table")

    def call(self, x):
        left, right = tf.split(x, [4, 8], axis=-1)
        y = tf.concat([right[..., ::2], left, x[:, :, 1:5]], axis=-1) + self.table
        y = tf.tile(y, [1, 1, 2]) * tf.repeat(tf.constant([1.0, 2.0]), 12)
        return tf.stack([y, tf.pad(y[:, 1:], [[0, 0], [1, 0], [0, 0]])], axis=1)


class Attention(layers.Layer):
    def __init__(self):
        super().__init__()
        self.qkv = layers.Dense(24)

    def call(self, x):
        q, k, v = ops.split(ops.reshape(self.qkv(x), (-1, 5, 6, 4)), 3, axis=2)
        scores = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, k) * 0.5)
        return ops.reshape(ops.einsum("bhqk,bkhd->bqhd", scores, v), (-1, 5, 8))


MODELS = {
    "lenet": (lenet, (2, 28, 28, 1)),
    "hard_coded": (HardCoded, (2, 28, 28, 1)),
    "residual": (lambda: residual_network()[0], (2, 12, 12, 3)),
    "subclassed_residual": (Residual, (2, 12, 12, 3)),
    "block": (lambda: Block(4), (2, 8, 8, 4)),
    "separable": (lambda: functional((9, 9, 3), layers.SeparableConv2D(6, 3, depth_multiplier=2)), (2, 9, 9, 3)),
    "depth_multiplier": (lambda: functional((9, 9, 3), layers.DepthwiseConv2D(3, depth_multiplier=2)), (2, 9, 9, 3)),
    "grouped": (lambda: functional((9, 9, 4), layers.Conv2D(6, 3, groups=2)), (2, 9, 9, 4)),
    "dense_on_sequence": (lambda: functional((5, 6), layers.Dense(4, activation="gelu")), (2, 5, 6)),
    "einsum_dense": (lambda: functional((5, 6), layers.EinsumDense("abc,cd->abd", (None, 7), bias_axes="d")), (2, 5, 6)),
    "layer_norm": (lambda: functional((5, 6), layers.LayerNormalization()), (2, 5, 6)),
    "group_norm": (lambda: functional((5, 5, 6), layers.GroupNormalization(3)), (2, 5, 5, 6)),
    "activations": (
        lambda: functional((6,), lambda x: layers.PReLU()(ops.silu(x)) + ops.elu(x) * ops.softplus(x) - ops.leaky_relu(x)),
        (2, 6),
    ),
    "pooling": (
        lambda: functional((8, 8, 3), lambda x: layers.GlobalMaxPooling2D()(layers.AveragePooling2D(2)(layers.ZeroPadding2D(2)(x)))),
        (2, 8, 8, 3),
    ),
    "slices": (lambda: functional((5, 12), Sliced()), (2, 5, 12)),
    "attention": (lambda: functional((5, 6), Attention()), (2, 5, 6)),
    "keras_attention": (lambda: functional((5, 6), lambda x: layers.MultiHeadAttention(2, 3)(x, x)), (2, 5, 6)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_computes_what_the_model_computes(name):
    build, shape = MODELS[name]

    check(build(), images(*shape))


def test_an_embedding_reads_its_table():
    model = functional((4,), lambda x: layers.Dense(3)(layers.Embedding(10, 6)(x)), "int32")

    graph = TensorFlowAdapter(model).trace(np.array([[1, 2, 3, 9], [0, 0, 5, 1]], "int32"), {}).graph

    assert next(node for node in graph.nodes if node.kind == "embedding").inputs[1].shape == (10, 6)


def test_parameters_stand_in_the_graph_in_the_canonical_orientation():
    model = functional(
        (9, 9, 4),
        lambda x: layers.Dense(5, name="c")(layers.DepthwiseConv2D(3, depth_multiplier=2, name="b")(layers.Conv2D(6, 3, name="a")(x))),
    )
    graph = TensorFlowAdapter(model).trace(images(2, 9, 9, 4), {}).graph

    shapes = {name: tensor.shape for name, tensor in graph.parameters().items() if name.endswith("weight")}

    assert shapes == {"a.weight": (6, 4, 3, 3), "b.weight": (12, 1, 3, 3), "c.weight": (5, 12)}


def test_transposed_and_one_dimensional_convolutions_are_read_as_convolutions():
    def build(x):
        return layers.Conv1DTranspose(3, 2, name="up")(layers.MaxPooling1D(2)(layers.Conv1D(4, 3, padding="causal", name="down")(x)))

    graph = TensorFlowAdapter(functional((16, 6), build)).trace(images(2, 16, 6), {}).graph

    found = {node.layer: (node.inputs[1].shape, node.attrs["transposed"]) for node in graph.nodes if node.kind == "conv"}
    assert found == {"down": ((4, 6, 3), False), "up": ((3, 4, 2), True)}
    assert not [node for node in graph.nodes if node.kind == "unknown"]


@pytest.mark.parametrize(("padding", "size", "padded"), [("same", 3, True), ("valid", 3, False), ("same", 1, False)])
def test_padding_counts_only_where_it_adds_something(padding, size, padded):
    graph = TensorFlowAdapter(functional((9, 9, 3), layers.Conv2D(4, size, padding=padding))).trace(images(2, 9, 9, 3), {}).graph

    assert next(node for node in graph.nodes if node.kind == "conv").attrs["padded"] is padded


def test_a_node_names_its_layer_and_the_users_line():
    model = built(Residual(), images(2, 12, 12, 3))
    graph = TensorFlowAdapter(model).trace(images(2, 12, 12, 3), {}).graph

    concat = next(node for node in graph.nodes if node.kind == "concat")

    assert concat.layer == "block"
    assert (concat.source.file, concat.source.function) == (__file__.replace("test_tensorflow_trace", "tensorflow_nets"), "Block.call")
    assert next(node for node in graph.nodes if node.kind == "conv").layer == "stem"


def test_a_functional_model_has_no_lines_of_the_users():
    graph = TensorFlowAdapter(lenet()).trace(images(2, 28, 28, 1), {}).graph

    assert {node.source for node in graph.nodes} == {None}


def test_sizes_are_noted_as_the_users_code_gave_them():
    graph = TensorFlowAdapter(built(HardCoded(), images(2, 28, 28, 1))).trace(images(2, 28, 28, 1), {}).graph

    assert [node.attrs["sizes"] for node in graph.nodes if "sizes" in node.attrs] == [(-1, 800)]


def test_an_lstm_is_one_node_whatever_keras_runs_for_it():
    model = functional((5, 6), lambda x: layers.Dense(2)(layers.LSTM(4, name="memory")(x)))

    graph = TensorFlowAdapter(model).trace(images(2, 5, 6), {}).graph

    (node,) = [node for node in graph.nodes if node.layer.startswith("memory")]
    assert (node.kind, node.op, node.layer) == ("recurrent", "LSTM", "memory")
    assert [t and t.shape for t in node.inputs] == [(2, 5, 6), (16, 6), (16,), None, None, (16, 4), None]
    assert [t.name for t in node.inputs if t and t.name] == ["memory.weight", "memory.bias", "memory.recurrent_weight"]


def test_masked_parameters_are_parameters_in_the_graph():
    adapter = TensorFlowAdapter(lenet())
    masks = channel_masks(adapter, {"conv1": (0, 1)})

    plain, seen = (adapter.trace(images(2, 28, 28, 1), given).graph for given in ({}, masks))

    assert [(node.kind, node.layer) for node in seen.nodes] == [(node.kind, node.layer) for node in plain.nodes]
    assert list(seen.parameters()) == list(plain.parameters())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (images(2, 28, 28), r"the shape is \(2, 28, 28\), but the model's input .* has \(None, 28, 28, 1\)"),
        (images(2, 27, 28, 1), r"the shape is \(2, 27, 28, 1\)"),
        ([images(2, 28, 28, 1)] * 2, "2 given, but the model has 1 inputs"),
        ({"imagee": images(2, 28, 28, 1)}, "no input 'imagee'; nearest: 'image'"),
        ("a string", "Give an array"),
        (object(), "Give an array"),
    ],
)
def test_inputs_that_the_model_does_not_declare_are_refused(inputs, message):
    model = lenet_with_named_input()

    with pytest.raises(ConfigError, match=message):
        TensorFlowAdapter(model).trace(inputs, {})


def lenet_with_named_input():
    given = keras.Input((28, 28, 1), name="image")
    return keras.Model(given, lenet()(given))


def test_a_failing_line_of_the_users_is_named():
    adapter = TensorFlowAdapter(built(HardCoded(), images(2, 28, 28, 1)))

    with pytest.raises(TraceError, match=r"tensorflow_nets.py:\d+, in HardCoded.call") as caught:
        adapter.trace(images(2, 20, 20, 1), {})

    assert caught.value.source.function == "HardCoded.call"
    assert [node.kind for node in caught.value.graph.nodes] == ["conv", "pointwise", "pool"] * 2
    assert "800" in str(caught.value)


def test_after_a_failed_trace_the_model_is_as_before():
    model = built(HardCoded(), images(2, 28, 28, 1))
    adapter = TensorFlowAdapter(model)
    masks = channel_masks(adapter, {"conv1": (0,)})

    with pytest.raises(TraceError):
        adapter.trace(images(2, 20, 20, 1), masks)

    assert adapter.masks() == {}
    assert not tf.config.functions_run_eagerly()
    assert "noted" not in keras.Layer.__call__.__qualname__


def test_several_inputs_come_as_a_list_or_by_name():
    a, b = keras.Input((3,), name="a"), keras.Input((4,), name="b")
    model = keras.Model([a, b], layers.Dense(2)(layers.Concatenate()([a, b])))
    adapter, x, y = TensorFlowAdapter(model), images(2, 3), images(2, 4)
    expected = np.asarray(model([x, y]))

    for given in ([x, y], (x, y), {"a": x, "b": y}, {"b": y, "a": x}):
        np.testing.assert_allclose(adapter.trace(given, {}).outputs[0], expected, atol=1e-6)
        np.testing.assert_allclose(adapter.run(given)[0], expected, atol=1e-6)


class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x, scale, training=False):
        return {"b": self.dense(x) * scale, "a": x}


@pytest.mark.parametrize("given", [lambda x, y: (x, y), lambda x, y: {"x": x, "scale": y}])
def test_a_subclassed_models_inputs_come_by_position_or_by_name(given):
    x, scale = images(2, 3), np.float32(2)
    model = Two()
    expected = model(x, scale)

    trace = TensorFlowAdapter(model).trace(given(x, scale), {})

    np.testing.assert_allclose(trace.outputs[0], expected["a"], atol=1e-6)  # outputs are in the order of their keys
    np.testing.assert_allclose(trace.outputs[1], expected["b"], atol=1e-6)
    assert len(trace.graph.outputs) == 2
