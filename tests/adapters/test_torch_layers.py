"""What torch modules are called, how their weights lie, and which models are refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, weight_norm

from nnc.errors import ModelError
from nnc_torch.adapter import TorchAdapter


def only_layer(module):
    return TorchAdapter(module).layers()[0]


def test_a_depthwise_convolution_answers_to_both_names():
    layer = only_layer(nn.Conv2d(8, 16, 3, groups=8))

    assert layer.op_types == ("DepthwiseConv2d", "Conv2d")
    assert layer.parameters["weight"] == (16, 1, 3, 3)


def test_a_subclass_answers_to_the_torch_type_and_to_its_own():
    class Scaled(nn.Linear):
        pass

    assert only_layer(Scaled(3, 2)).op_types == ("Linear", "Scaled")


def test_a_batch_norm_is_no_layer_to_prune():
    assert not only_layer(nn.BatchNorm2d(4)).prunable


def test_a_transposed_convolution_shows_its_outputs_first():
    module = nn.ConvTranspose2d(3, 5, 2)
    layer = only_layer(module)

    assert layer.parameters["weight"] == (5, 3, 2, 2)
    assert torch.equal(layer.weight[4, 1], module.weight[1, 4])


def test_a_grouped_transposed_convolution_shows_outputs_of_each_group_in_order():
    module = nn.ConvTranspose2d(4, 6, 1, groups=2)  # stored (4, 3, 1, 1): group 1 has inputs 2, 3 and outputs 3, 4, 5
    layer = only_layer(module)

    assert layer.parameters["weight"] == (6, 2, 1, 1)
    assert layer.weight[5, 0] == module.weight[2, 2]
    assert np.array_equal(layer.canonical("weight", module.weight.detach().numpy()), layer.weight.numpy())


def test_transformers_conv1d_is_a_linear_layer():
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    layer = only_layer(conv1d(6, 4))

    assert layer.op_types == ("Linear", "Conv1D")
    assert layer.parameters["weight"] == (6, 4)


def test_a_model_pruned_by_torch_itself_is_refused_with_the_call_that_helps():
    model = nn.Sequential(nn.Linear(3, 2))
    prune.l1_unstructured(model[0], "weight", 0.5)

    with pytest.raises(ModelError, match=r"prune\.remove\(0, 'weight'\)"):
        TorchAdapter(model)


def test_weight_norm_is_refused_in_both_of_its_forms():
    with pytest.raises(ModelError, match="remove_parametrizations"):
        TorchAdapter(parametrizations.weight_norm(nn.Linear(3, 2)))
    with pytest.warns(FutureWarning), pytest.raises(ModelError, match="remove_weight_norm"):
        TorchAdapter(weight_norm(nn.Linear(3, 2)))


def test_a_lazy_module_must_be_run_first():
    with pytest.raises(ModelError, match="run the model once"):
        TorchAdapter(nn.LazyLinear(3))


def test_a_wrapper_is_refused_and_its_inside_named():
    with pytest.raises(ModelError, match=r"model\.module"):
        TorchAdapter(nn.DataParallel(nn.Linear(2, 2)))
