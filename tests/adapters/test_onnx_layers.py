"""What an .onnx file's layers are called, what they are, and what is refused."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import nnc
import nnc_pruning
from nnc_onnx.examples import residual_network
from nnc_onnx.layers import swapped

HALF = [{"sparsity": 0.5}]


def net(nodes, shapes, inputs=(("x", [2, 4]),), out="y", opset=17):
    """Return a ModelProto of nodes (op, inputs, outputs, attributes) and stored float arrays."""
    draw = np.random.default_rng(0)
    stored = [numpy_helper.from_array(draw.standard_normal(shape).astype("f"), name) for name, shape in shapes.items()]
    made = [helper.make_node(op, given, [result], name=f"/block/{op}_{n}", **attrs) for n, (op, given, result, attrs) in enumerate(nodes)]
    given = [helper.make_tensor_value_info(name, 1, shape) for name, shape in inputs]
    graph = helper.make_graph(made, "net", given, [helper.make_empty_tensor_value_info(out)], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_a_layer_is_named_as_its_weight_and_has_neutral_types_first():
    model, _ = residual_network()
    kinds = {layer.name: layer.op_types for layer in nnc.layers(model)}

    assert kinds["depthwise"] == ("DepthwiseConv2d", "Conv2d", "Conv")
    assert kinds["hidden"] == ("Linear", "MatMul")
    assert kinds["stem_bn"] == ("BatchNorm2d", "BatchNormalization")


def test_where_no_parameter_has_a_name_the_node_gives_it():
    model = net([("MatMul", ["x", "onnx::MatMul_12"], "y", {})], {"onnx::MatMul_12": (4, 6)})

    (layer,) = nnc.layers(model)

    assert (layer.name, layer.parameters) == ("block", {"weight": (6, 4)})


def test_a_bias_that_a_separate_add_brings_names_the_layer_and_belongs_to_it():
    nodes = [("MatMul", ["x", "w"], "a", {}), ("Add", ["fc.bias", "a"], "y", {})]

    (layer,) = nnc.layers(net(nodes, {"w": (4, 6), "fc.bias": (6,)}))

    assert (layer.name, layer.parameters) == ("fc", {"weight": (6, 4), "bias": (6,)})


def test_a_weight_that_two_products_share_is_one_layer():
    nodes = [("MatMul", ["x", "fc.weight"], "a", {}), ("MatMul", ["a", "fc.weight"], "y", {})]

    assert [layer.name for layer in nnc.layers(net(nodes, {"fc.weight": (4, 4)}))] == ["fc"]


def test_swapping_a_grouped_kernel_twice_gives_it_back():
    kernel = np.arange(6 * 4 * 3).reshape(6, 4, 3)

    assert np.array_equal(swapped(swapped(kernel, 2), 2), kernel)
    assert swapped(kernel, 2).shape == (8, 3, 3)


def test_a_path_that_is_no_file_is_named():
    with pytest.raises(nnc.ModelError, match=r"'nowhere.onnx' is no file"):
        nnc_pruning.L1NormPruner("nowhere.onnx", HALF)


@pytest.mark.parametrize("size", [0, 10, 2000])
def test_a_truncated_file_is_refused(tmp_path, size):
    model, _ = residual_network()
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString()[:size])

    with pytest.raises(nnc.ModelError, match=r"net.onnx' is truncated, or no ONNX model"):
        nnc_pruning.L1NormPruner(path, HALF)


def test_an_old_opset_is_refused_with_the_remedy():
    with pytest.raises(nnc.ModelError, match=r"opset 9; nnc reads 13 and newer. Call onnx.version_converter.convert_version"):
        nnc.layers(net([("MatMul", ["x", "w"], "y", {})], {"w": (4, 6)}, opset=9))


def test_an_empty_model_is_refused():
    with pytest.raises(nnc.ModelError, match="has no nodes"):
        nnc.layers(onnx.ModelProto())


def test_a_layer_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(nnc.ConfigError, match="'hiden' matches no layer; nearest: 'hidden'"):
        nnc_pruning.L1NormPruner(residual_network()[0], [{"sparsity": 0.5, "op_names": ["hiden"]}])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((1, 3, 9, 9), "float32"), r"'image' has the shape \(1, 3, 9, 9\); the model takes \(any, 3, 12, 12\)"),
        (np.zeros((1, 3, 12, 12), complex), "'image' holds complex128; the model takes float32"),
        ({"picture": 1}, "no input 'picture'.*It has image"),
        ([1, 2], "takes 1 inputs: image"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, message):
    model, _ = residual_network()
    _, masks = nnc_pruning.L1NormPruner(model, HALF).compress()

    with pytest.raises(nnc.ConfigError, match=message):
        nnc.ModelSpeedup(model, inputs, masks).speedup_model()
