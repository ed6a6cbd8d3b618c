"""Masks stand in front of torch's parameters and go away without a trace."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from nnc_torch.adapter import TorchAdapter


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def row_masks(layer="0"):
    """Mask the first of three output channels."""
    weight, bias = np.ones((3, 4), bool), np.ones(3, bool)
    weight[0] = bias[0] = False
    return {layer: {"weight": weight, "bias": bias}}


def test_masked_weights_stay_zero_under_adam_with_weight_decay():
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.1)
    model(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()  # momentum for every weight
    TorchAdapter(model).set_masks(row_masks())

    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()

    assert torch.count_nonzero(model[0].weight[0]) == 0
    assert torch.count_nonzero(model[0].weight[1:]) == 8


def test_a_masked_weight_gets_no_gradient():
    model = network()
    TorchAdapter(model).set_masks(row_masks())

    model(torch.randn(8, 4)).sum().backward()

    assert torch.count_nonzero(model[0].parametrizations.weight.original.grad[0]) == 0


def test_taking_masks_off_gives_the_same_parameters_in_the_same_order():
    model = network().eval()
    hook = model[0].register_forward_hook(lambda *_: None)
    before = [(name, id(parameter)) for name, parameter in model.named_parameters()]
    adapter = TorchAdapter(model)

    adapter.set_masks(row_masks())
    adapter.set_masks({})

    assert [(name, id(parameter)) for name, parameter in model.named_parameters()] == before
    assert type(model[0]) is nn.Linear
    assert hook.id in model[0]._forward_hooks
    assert not any(module.training for module in model.modules())


def test_new_masks_replace_the_old_ones():
    adapter = TorchAdapter(network())
    other = {"0": {"weight": np.eye(3, 4, dtype=bool), "bias": np.ones(3, bool)}}

    adapter.set_masks(row_masks())
    adapter.set_masks(other)

    assert np.array_equal(adapter.masks()["0"]["weight"], np.eye(3, 4))


def test_masks_that_fail_leave_the_old_ones_on():
    adapter = TorchAdapter(network())
    adapter.set_masks(row_masks())

    with pytest.raises(ValueError):
        adapter.set_masks({"0": {"weight": np.ones((5, 4), bool)}})

    assert np.array_equal(adapter.masks()["0"]["weight"], row_masks()["0"]["weight"])


def test_a_tied_parameter_is_masked_under_all_its_names():
    model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3, bias=False))
    model[1].weight = model[0].weight
    mask = row_masks("1")["1"]["weight"]

    TorchAdapter(model).set_masks({"1": {"weight": mask}})

    assert torch.count_nonzero(model[0].weight[0]) == 0


def test_masks_do_not_change_the_names_of_stored_tensors():
    model = network()
    names = set(model.state_dict())
    adapter = TorchAdapter(model)

    adapter.set_masks(row_masks())

    assert set(adapter.tensors()) == names


def test_a_masked_model_can_be_copied():
    model = network()
    TorchAdapter(model).set_masks(row_masks())

    assert torch.count_nonzero(copy.deepcopy(model)[0].weight[0]) == 0


def test_unmasking_a_copy_leaves_the_original_masked():
    model = network()
    adapter = TorchAdapter(model)
    adapter.set_masks(row_masks())

    twin = copy.deepcopy(model)
    TorchAdapter(twin).set_masks({})

    assert type(twin[0]) is nn.Linear
    assert torch.count_nonzero(model[0].weight[0]) == 0
    assert np.array_equal(adapter.masks()["0"]["weight"], row_masks()["0"]["weight"])
