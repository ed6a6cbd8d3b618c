"""ONNX's operations beyond convolutions and products: each lets channels through, and what the file fixes about them follows."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import nnc
from nnc.registry import adapter_for
from nnc_pruning import L1NormPruner
from tests.adapters.onnx_nets import relative

IMAGE = (2, 3, 6, 6)


def net(nodes, shapes, x=IMAGE, constants=None, opset=21):
    """Return a ModelProto of nodes (op, inputs, outputs, attributes) from "x" to "y"; every stored array is random."""
    draw = np.random.default_rng(0)
    stored = [numpy_helper.from_array(draw.standard_normal(shape).astype("f"), name) for name, shape in shapes.items()]
    stored += [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    made = [helper.make_node(op, given, made, f"/{op}_{n}", **attrs) for n, (op, given, made, attrs) in enumerate(nodes)]
    given = helper.make_tensor_value_info("x", 1, ["n", *x[1:]])
    graph = helper.make_graph(made, "net", [given], [helper.make_tensor_value_info("y", 1, [None] * len(x))], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), draw.standard_normal(x).astype("f")


def between(nodes, first=8, second=8, constants=None, shapes=None):
    """Return a network that does something between two convolutions, from "a" to "b"."""
    around = [("Conv", ["x", "first.weight", "first.bias"], ["a"], {}), *nodes, ("Conv", ["b", "last.weight"], ["y"], {})]
    weights = {"first.weight": (first, 3, 1, 1), "first.bias": (first,), "last.weight": (4, second, 1, 1)}
    return net(around, weights | (shapes or {}), constants=constants)


def halved(model, x):
    """Prune and shrink; return the small model, the speedup, and how far the small model is from the masked one."""
    masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x).propose()
    speedup = nnc.ModelSpeedup(model, x, masks)
    small = speedup.speedup_model()
    onnx.checker.check_model(small, full_check=True)
    adapter = adapter_for(model)
    adapter.set_masks(speedup.masks)
    return small, speedup, relative(adapter_for(small).run(x)[0], adapter.run(x)[0])


def shape(model, layer):
    return next(each.parameters["weight"] for each in nnc.layers(model) if each.name == layer)


def written(model, place):
    """Return the numbers that the only node of an operation reads at a place."""
    op, number = place
    (name,) = [node.input[number] for node in model.graph.node if node.op_type == op]
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name).tolist()


BLOCKS = {
    "resize-by-scales": ([("Resize", ["a", "", "scales"], ["b"], {"mode": "linear"})], {"scales": np.float32([1, 1, 2, 2])}, 8, 4),
    "resize-to-sizes": ([("Resize", ["a", "", "", "sizes"], ["b"], {"mode": "cubic"})], {"sizes": [2, 8, 9, 5]}, 8, 4),
    "pixel-shuffle-blocks-first": ([("DepthToSpace", ["a"], ["b"], {"blocksize": 2})], {}, 2, 1),
    "pixel-shuffle-channels-first": ([("DepthToSpace", ["a"], ["b"], {"blocksize": 2, "mode": "CRD"})], {}, 2, 1),
    "space-to-depth": ([("SpaceToDepth", ["a"], ["b"], {"blocksize": 2})], {}, 32, 16),
    "reflected-pad": ([("Pad", ["a", "pads"], ["b"], {"mode": "reflect"})], {"pads": [0, 0, 1, 1, 0, 0, 1, 1]}, 8, 4),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_half_of_the_channels_leave_around_it(name):
    nodes, constants, second, left = BLOCKS[name]

    small, speedup, difference = halved(*between(nodes, second=second, constants=constants))

    assert difference <= 1e-5
    assert shape(small, "last")[1] == left
    assert speedup.plan.kept == ()


def test_sizes_that_a_resize_is_given_follow():
    nodes, constants, _, _ = BLOCKS["resize-to-sizes"]

    small, _, _ = halved(*between(nodes, constants=constants))

    assert written(small, ("Resize", 3)) == [2, 4, 9, 5]


def test_indices_that_a_gather_is_given_follow():
    model, x = between([("Gather", ["a", "index"], ["b"], {"axis": 1})], second=4, constants={"index": [7, 1, 1, -3]})
    rows = np.ones((8, 3, 1, 1), bool)
    rows[[0, 5, 6]] = False

    speedup = nnc.ModelSpeedup(model, x, {"first": {"weight": rows, "bias": rows[:, 0, 0, 0]}})
    small = speedup.speedup_model()

    # 5 leaves, so 7 becomes 6. Nobody reads 0 and 6: what no sum proves harmless stays.
    assert written(small, ("Gather", 1)) == [6, 1, 1]
    assert shape(small, "last") == (4, 3, 1, 1)
    assert speedup.difference <= 1e-5


@pytest.mark.parametrize(("equation", "other"), [("nchw,kc->nkhw", (4, 8)), ("nchw,kc->nhwk", (4, 8)), ("...hw,hv->...vw", (6, 5))])
def test_an_einsum_is_a_product(equation, other):
    nodes = [
        ("Conv", ["x", "first.weight", "first.bias"], ["a"], {}),
        ("Relu", ["a"], ["r"], {}),
        ("Conv", ["r", "second.weight"], ["b"], {}),
        ("Einsum", ["b", "other"], ["y"], {"equation": equation}),
    ]
    shapes = {"first.weight": (8, 3, 1, 1), "first.bias": (8,), "second.weight": (8, 8, 1, 1), "other": other}

    small, _, difference = halved(*net(nodes, shapes))

    assert difference <= 1e-5
    assert shape(small, "second") == (8 if "..." in equation else 4, 4, 1, 1)


def test_an_einsum_of_three_is_not_read_and_says_so():
    nodes = [("Einsum", ["a", "u", "v"], ["b"], {"equation": "nchw,c,c->nchw"})]
    model, x = between(nodes, shapes={"u": (8,), "v": (8,)})

    with pytest.raises(nnc.ConfigError, match="Einsum"):
        L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x).propose()


def test_a_group_normalisation_loses_whole_groups():
    nodes = [("GroupNormalization", ["a", "norm.weight", "norm.bias"], ["b"], {"num_groups": 4})]

    small, _, difference = halved(*between(nodes, shapes={"norm.weight": (8,), "norm.bias": (8,)}))

    (norm,) = [node for node in small.graph.node if node.op_type == "GroupNormalization"]
    assert difference <= 1e-5
    assert [given.i for given in norm.attribute if given.name == "num_groups"] == [2]
    assert shape(small, "last")[1] == 4


def test_a_scale_and_a_shift_are_masked_with_the_channels_that_they_belong_to():
    """Keras' BatchNorm in a file: without this, a shift left alive is a constant that a padded convolution cannot take."""
    scale = [("Mul", ["a", "norm.weight"], ["m"], {}), ("Add", ["m", "norm.bias"], ["n"], {}), ("Relu", ["n"], ["b"], {})]
    nodes = [("Conv", ["x", "first.weight"], ["a"], {}), *scale, ("Conv", ["b", "last.weight"], ["y"], {"pads": [1, 1, 1, 1]})]
    shapes = {"first.weight": (8, 3, 1, 1), "norm.weight": (1, 8, 1, 1), "norm.bias": (8, 1, 1), "last.weight": (4, 8, 3, 3)}
    model, x = net(nodes, shapes)

    small, speedup, difference = halved(model, x)

    assert [(layer.name, layer.op_type, layer.parameters["weight"]) for layer in nnc.layers(model)][1] == ("norm", "Affine", (8,))
    assert difference <= 1e-5
    assert shape(small, "last") == (4, 4, 3, 3)
    assert speedup.plan.kept == ()


def test_a_bias_behind_the_split_into_heads_belongs_to_the_product():
    """As Keras' attention adds it."""
    nodes = [
        ("MatMul", ["x", "query.weight"], ["q"], {}),
        ("Reshape", ["q", "heads"], ["h"], {}),
        ("Add", ["h", "query.bias"], ["b"], {}),
        ("Relu", ["b"], ["r"], {}),
        ("Reshape", ["r", "flat"], ["f"], {}),
        ("MatMul", ["f", "out.weight"], ["y"], {}),
    ]
    constants = {"heads": [0, 0, 4, 6], "flat": [0, 0, 24]}
    model, x = net(nodes, {"query.weight": (5, 24), "query.bias": (4, 6), "out.weight": (24, 3)}, (2, 7, 5), constants)

    small, speedup, difference = halved(model, x)

    assert nnc.layers(model)[0].parameters == {"weight": (24, 5), "bias": (24,)}
    assert difference <= 1e-5
    assert shape(small, "query") == (12, 5)
    assert speedup.plan.groups[0].members[0].size == 4


def test_unequal_parts_of_a_sequence_become_a_split():
    nodes = [
        ("SplitToSequence", ["a", "sizes"], ["s"], {"axis": 1}),
        ("SequenceAt", ["s", "zero"], ["p"], {}),
        ("SequenceAt", ["s", "one"], ["q"], {}),
        ("Relu", ["p"], ["r"], {}),
        ("Concat", ["q", "r"], ["b"], {"axis": 1}),
    ]
    model, x = between(nodes, constants={"sizes": [4, 4], "zero": np.int64(0), "one": np.int64(1)})
    rows = np.ones((8, 3, 1, 1), bool)
    rows[[0, 1, 6]] = False

    speedup = nnc.ModelSpeedup(model, x, {"first": {"weight": rows, "bias": rows[:, 0, 0, 0]}})
    small = speedup.speedup_model()

    assert written(small, ("Split", 1)) == [2, 3]
    assert shape(small, "last") == (4, 5, 1, 1)
    assert speedup.difference <= 1e-5


def test_what_a_slice_takes_in_steps_becomes_a_gather():
    constants = {"start": [1], "stop": [8], "axis": [1], "step": [3]}
    model, x = between([("Slice", ["a", "start", "stop", "axis", "step"], ["b"], {})], second=3, constants=constants)
    rows = np.ones((8, 3, 1, 1), bool)
    rows[[2, 4]] = False

    speedup = nnc.ModelSpeedup(model, x, {"first": {"weight": rows, "bias": rows[:, 0, 0, 0]}})
    small = speedup.speedup_model()

    # 1, 4 and 7 are taken; 4 leaves, 2 is read by nobody and stays: 1 and 7 of [0, 1, 2, 3, 5, 6, 7].
    assert written(small, ("Gather", 1)) == [1, 6]
    assert shape(small, "last") == (4, 2, 1, 1)
    assert speedup.difference <= 1e-5


def test_what_a_slice_takes_of_several_axes_follows_where_one_is_in_steps():
    constants = {"start": [0, -7, 1], "stop": [2**31, 7, 3], "axis": [0, -3, 2], "step": [1, 2, 1]}
    model, x = between([("Slice", ["a", "start", "stop", "axis", "step"], ["b"], {})], second=3, constants=constants)
    rows = np.ones((8, 3, 1, 1), bool)
    rows[[2, 3]] = False

    speedup = nnc.ModelSpeedup(model, x, {"first": {"weight": rows, "bias": rows[:, 0, 0, 0]}})
    small = speedup.speedup_model()

    # 1, 3 and 5 are taken; 3 leaves, 2 is read by nobody and stays: 1 and 5 of [0, 1, 2, 4, 5, 6, 7].
    assert written(small, ("Gather", 1)) == [1, 4]
    assert [node.op_type for node in small.graph.node] == ["Conv", "Slice", "Gather", "Slice", "Conv"]
    assert shape(small, "last") == (4, 2, 1, 1)
    assert speedup.difference <= 1e-5


@pytest.mark.parametrize("op", ["Gelu", "FastGelu", "QuickGelu"])
def test_half_of_the_neurons_leave_around_a_gelu_of_onnx_runtime(op):
    nodes = [("MatMul", ["x", "up"], ["a"], {}), (op, ["a"], ["b"], {"domain": "com.microsoft"}), ("MatMul", ["b", "down"], ["y"], {})]
    model, x = net(nodes, {"up": (4, 8), "down": (8, 4)}, x=(2, 3, 4))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))

    small, _, difference = halved(model, x)

    assert {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer} == {"up": (4, 4), "down": (4, 4)}
    assert difference <= 1e-6


SPREAD = {
    "expand": [("Expand", ["half", "size"], ["filled"], {})],
    "cast-of-a-joined-shape": [
        ("Concat", ["two", "eight", "six", "six"], ["joined"], {"axis": 0}),
        ("Expand", ["half", "joined"], ["double"], {}),
        ("Cast", ["double"], ["filled"], {"to": 1}),
    ],
    "constant-of-shape": [("ConstantOfShape", ["size"], ["filled"], {"value": numpy_helper.from_array(np.float32([0.5]))})],
    "product": [("Expand", ["half", "size"], ["wide"], {}), ("Mul", ["wide", "half"], ["filled"], {})],
}


@pytest.mark.parametrize("name", SPREAD)
def test_one_number_that_is_spread_over_the_channels_follows_them(name):
    sizes = {"size": [2, 8, 6, 6], "two": [2], "eight": [8], "six": [6]}
    model, x = between([*SPREAD[name], ("Add", ["a", "filled"], ["b"], {})], constants={"half": np.float32(0.5), **sizes})

    small, speedup, difference = halved(model, x)

    assert shape(small, "first") == (4, 3, 1, 1)
    assert speedup.plan.kept == ()
    assert difference <= 1e-6


def test_different_numbers_that_the_file_fixes_still_keep_their_channels():
    nodes = [("Expand", ["numbers", "size"], ["filled"], {}), ("Equal", ["filled", "one"], ["same"], {})]
    nodes += [("Cast", ["same"], ["fixed"], {"to": 1}), ("Add", ["a", "fixed"], ["b"], {})]
    constants = {"numbers": np.arange(8).reshape(8, 1, 1), "size": [2, 8, 6, 6], "one": np.int64(1)}
    model, x = between(nodes, constants=constants)

    assert nnc.prunability(model, x).groups == ()
