"""A forward pass becomes the graph that the model computes."""

import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nnc.errors import ConfigError, TraceError
from nnc_torch.adapter import TorchAdapter


class Model(nn.Module):
    """Runs a function of its input and of itself, with some layers at hand."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, x)


def nodes(function, x, masks=None, **layers):
    return TorchAdapter(Model(function, **layers)).trace(x, masks or {}).graph.nodes


def kinds(function, x, **layers):
    return [node.kind for node in nodes(function, x, **layers)]


def names(node):
    return [tensor.name if tensor is not None else None for tensor in node.inputs]


def test_a_linear_layer_is_one_node_with_its_parameters():
    (node,) = nodes(lambda self, x: self.fc(x), torch.randn(2, 3), fc=nn.Linear(3, 4))

    assert node.kind == "linear"
    assert names(node)[1:] == ["fc.weight", "fc.bias"]
    assert node.inputs[1].shape == (4, 3)


def test_a_linear_layer_on_three_axes_is_seen_through_two_reshapes():
    assert kinds(lambda self, x: self.fc(x), torch.randn(2, 5, 3), fc=nn.Linear(3, 4)) == ["reshape", "linear", "reshape"]


def test_a_parameter_multiplied_from_the_right_is_a_matrix_product():
    assert kinds(lambda self, x: x @ self.fc.weight, torch.randn(2, 4), fc=nn.Linear(3, 4)) == ["matmul"]


def test_a_transposed_convolution_reads_the_canonical_weight():
    (node,) = nodes(lambda self, x: self.up(x), torch.randn(1, 3, 4, 4), up=nn.ConvTranspose2d(3, 5, 2))

    assert node.attrs["transposed"]
    assert node.inputs[1].shape == (5, 3, 2, 2)


def test_another_use_of_a_transposed_weight_goes_through_a_transpose():
    found = nodes(lambda self, x: x + self.up.weight, torch.randn(3, 5, 2, 2), up=nn.ConvTranspose2d(3, 5, 2))

    assert [node.kind for node in found] == ["transpose", "binary"]
    assert found[0].outputs[0].shape == (3, 5, 2, 2)


def test_a_reshape_keeps_the_sizes_that_the_code_gives():
    (node,) = nodes(lambda self, x: x.view(-1, 12), torch.randn(2, 3, 4))
    turned = nodes(lambda self, x: x.transpose(1, 2).reshape(-1, 12), torch.randn(2, 3, 4))

    assert node.attrs["sizes"] == (-1, 12)
    assert turned[-1].attrs["sizes"] == (-1, 12)  # torch itself resolves the -1 there


def test_split_is_one_slice_an_output():
    found = nodes(lambda self, x: torch.cat(x.split([2, 3], 1)[::-1], 1), torch.randn(2, 5))

    assert [node.kind for node in found] == ["slice", "slice", "concat"]
    assert found[1].attrs["index"].tolist() == [2, 3, 4]


def test_an_unknown_operation_says_where_it_stands():
    (node,) = nodes(lambda self, x: torch.trace(x), torch.randn(3, 3))

    assert node.kind == "unknown"
    assert node.op == "aten.trace"
    assert node.source.file == __file__


def test_the_source_is_the_users_line_and_the_layer_the_innermost():
    node = nodes(lambda self, x: self.block(x), torch.randn(2, 3), block=nn.Sequential(nn.Linear(3, 4)))[0]

    assert node.layer == "block.0"
    assert node.source.file == __file__


def test_pointwise_nodes_can_be_evaluated():
    def function(self, x):
        return functional.hardtanh(x, -0.5, 0.25)

    (node,) = nodes(function, torch.randn(2, 3))

    assert node.evaluate(np.array([-1.0, 0.0, 1.0], "float32")).tolist() == [-0.5, 0.0, 0.25]


def test_a_number_minus_a_tensor_is_evaluated_in_that_order():
    (node,) = nodes(lambda self, x: 1 - x, torch.randn(2, 3))

    a = node.inputs[0]
    assert a.role == "constant"
    assert node.evaluate(a.data(), np.float32(0.25)) == 0.75


def test_a_write_in_place_gives_the_tensor_a_new_value():
    found = nodes(lambda self, x: self.fc(x).relu_() + 1, torch.randn(2, 3), fc=nn.Linear(3, 4))

    assert [node.kind for node in found] == ["linear", "pointwise", "binary"]
    assert found[2].inputs[0] is found[1].outputs[0]


def test_a_write_through_a_view_makes_the_viewed_tensor_unknown():
    def function(self, x):
        h = self.fc(x)
        h[:, :2].mul_(2)
        return h + 1

    found = nodes(function, torch.randn(2, 3), fc=nn.Linear(3, 4))

    assert [node.kind for node in found] == ["linear", "slice", "binary", "unknown", "binary"]
    assert found[4].inputs[0] is found[3].outputs[0]


def test_a_viewed_tensor_that_nobody_reads_again_stays_out_of_it():
    found = kinds(lambda self, x: functional.relu_(self.fc(x)), torch.randn(2, 5, 3), fc=nn.Linear(3, 4))

    assert "unknown" not in found


def test_tied_parameters_are_one_tensor():
    def function(self, x):
        return self.b(self.a(x))

    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.weight = a.weight
    first, second = nodes(function, torch.randn(2, 3), a=a, b=b)

    assert first.inputs[1] is second.inputs[1]


def test_masks_show_in_the_outputs_but_not_in_the_model():
    model = Model(lambda self, x: self.fc(x), fc=nn.Linear(3, 2))
    mask = {"fc": {"weight": np.array([[0, 0, 0], [1, 1, 1]], bool), "bias": np.array([False, True])}}

    trace = TorchAdapter(model).trace(torch.randn(4, 3), mask)

    assert not trace.outputs[0][:, 0].any()
    assert torch.count_nonzero(model.fc.weight) == 6


def test_tracing_leaves_training_flags_as_they_were():
    model = Model(lambda self, x: self.drop(self.bn(x)), bn=nn.BatchNorm1d(3).eval(), drop=nn.Dropout())

    TorchAdapter(model).trace(torch.randn(4, 3), {})

    assert (model.training, model.bn.training, model.drop.training) == (True, False, True)


def test_a_failing_model_names_its_line_and_keeps_the_nodes_so_far():
    model = Model(lambda self, x: self.fc(x.relu()), fc=nn.Linear(5, 2))

    with pytest.raises(TraceError, match=r"fc \(.*test_torch_trace\.py:\d+\)") as caught:
        TorchAdapter(model).trace(torch.randn(4, 3), {})

    assert caught.value.graph.nodes[0].op == "aten.relu"
    assert caught.value.source.file == __file__


def test_inputs_that_forward_does_not_take_are_a_config_error():
    adapter = TorchAdapter(nn.Linear(3, 2))

    with pytest.raises(ConfigError, match="too many positional"):
        adapter.trace((torch.randn(1, 3), 1), {})
    with pytest.raises(ConfigError, match=r"torch\.from_numpy"):
        adapter.trace(np.zeros((1, 3)), {})


def test_batch_norm_hands_over_its_statistics():
    (node,) = nodes(lambda self, x: self.bn(x), torch.randn(2, 3, 4, 4), bn=nn.BatchNorm2d(3))

    assert names(node)[1:] == ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    assert [tensor.trainable for tensor in node.inputs[1:]] == [True, True, False, False]


def test_a_one_dimensional_max_pool_does_not_pin_through_indices_that_nobody_reads():
    assert "unknown" not in kinds(lambda self, x: functional.max_pool1d(x, 2), torch.randn(2, 3, 8))


def test_no_activation_outlives_its_use():
    seen = []

    def function(self, x):
        h = self.fc(x).relu()
        seen.append(weakref.ref(h))
        h = functional.max_pool1d(h[:, None], 2)
        h = h.sum()
        return h + sum(reference() is not None for reference in seen)

    trace = TorchAdapter(Model(function, fc=nn.Linear(3, 4))).trace(torch.zeros(2, 3), {})

    assert trace.graph.nodes[-1].inputs[1].data() == 0
