"""The small torch model: plans applied by hand, whole flows, and forwards without source."""

import copy
import types

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.errors import SpeedupError
from nnc.graph.plan import Group, Member, Plan, Reshape, Size
from nnc_torch import forward
from nnc_torch.adapter import TorchAdapter
from nnc_torch.demo import Net


def member(tensor, axis, size, removed, inner=1):
    return Member(tensor, axis, 0, 1, size, inner, removed)


def plan_of(*members, **rest):
    return Plan((Group(members),), **rest)


PAIR = plan_of(member("0.weight", 0, 4, (1, 3)), member("0.bias", 0, 4, (1, 3)), member("2.weight", 1, 4, (1, 3)))


def pair():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_rows_and_columns_leave_and_the_sizes_follow():
    model = pair()

    small = TorchAdapter(model).shrink(PAIR, {}, {})

    assert torch.equal(small[0].weight, model[0].weight[[0, 2]])
    assert torch.equal(small[2].weight, model[2].weight[:, [0, 2]])
    assert (small[0].out_features, small[2].in_features) == (2, 2)


def test_the_users_model_keeps_everything():
    model = pair()
    before = copy.deepcopy(model.state_dict())

    TorchAdapter(model).shrink(PAIR, {}, {})

    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model[0].out_features == 4


def test_flags_hooks_and_classes_come_along_but_gradients_do_not():
    model = pair().eval()
    model[0].weight.requires_grad_(False)
    model[2].register_forward_hook(lambda module, args, output: output + 100)
    model(torch.randn(1, 3)).sum().backward()

    small = TorchAdapter(model).shrink(PAIR, {}, {})

    assert not small[0].weight.requires_grad and small[2].weight.requires_grad
    assert not small.training
    assert small(torch.randn(1, 3)).min() > 50
    assert small[2].weight.grad is None


def test_a_fold_is_added_to_the_bias_before_the_cut():
    model = pair()

    small = TorchAdapter(model).shrink(PAIR, {}, {"0.bias": np.array([1.0, 2.0, 3.0, 4.0])})

    assert torch.allclose(small[0].bias, model[0].bias[[0, 2]] + torch.tensor([1.0, 3.0]))


def test_a_layer_without_bias_gets_one_for_a_fold():
    model = nn.Sequential(nn.Linear(3, 2, bias=False))

    small = TorchAdapter(model).shrink(Plan(biases=("0",)), {}, {"0.bias": np.array([1.0, 2.0])})

    assert small[0].bias.tolist() == [1.0, 2.0]
    assert isinstance(small[0].bias, nn.Parameter)


def test_tied_parameters_stay_tied():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight

    small = TorchAdapter(model).shrink(plan_of(member("0.weight", 1, 4, (0,))), {}, {})

    assert small[0].weight is small[1].weight
    assert (small[0].embedding_dim, small[1].in_features) == (3, 3)


def test_a_depthwise_convolution_loses_its_groups():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))
    plan = plan_of(member("0.weight", 0, 4, (2,)), member("0.bias", 0, 4, (2,)), sizes=(Size("0", "groups", 4, 3),))

    small = TorchAdapter(model).shrink(plan, {}, {})

    assert (small[0].in_channels, small[0].out_channels, small[0].groups) == (3, 3, 3)
    assert small(torch.randn(1, 3, 5, 5)).shape == (1, 3, 3, 3)


def test_a_transposed_convolution_is_cut_in_its_own_layout():
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 2))

    small = TorchAdapter(model).shrink(plan_of(member("0.weight", 0, 5, (0,)), member("0.bias", 0, 5, (0,))), {}, {})

    assert torch.equal(small[0].weight, model[0].weight[:, 1:])
    assert (small[0].in_channels, small[0].out_channels) == (3, 4)


def test_a_masked_model_is_cut_as_the_user_built_it():
    model = pair()
    adapter = TorchAdapter(model)
    masks = {"0": {"weight": np.array([[1] * 3, [0] * 3, [1] * 3, [0] * 3], bool), "bias": np.array([1, 0, 1, 0], bool)}}
    adapter.set_masks(masks)

    small = adapter.shrink(PAIR, masks, {})

    assert type(small[0]) is nn.Linear
    assert np.array_equal(adapter.masks()["0"]["weight"], masks["0"]["weight"])


def test_plans_are_remembered_and_survive_a_copy():
    small = copy.deepcopy(TorchAdapter(pair()).shrink(PAIR, {}, {}))

    assert TorchAdapter(small).plans() == (PAIR,)


LENET = plan_of(
    member("conv2.weight", 0, 50, tuple(range(25))),
    member("conv2.bias", 0, 50, tuple(range(25))),
    member("fc1.weight", 1, 50, tuple(range(25)), inner=16),
    reshapes=(Reshape("", "aten.view", "Net.forward", 0, (-1, 800), (-1, 400)),),
)


def sourceless(model):
    """Give a model a forward whose source Python cannot find, as a class typed into a prompt has."""
    code = "def forward(self, x):\n    return self.fc1(self.conv2(self.conv1(x)[:, :, :12, :12])[:, :, :4, :4].reshape(-1, 800))\n"
    scope = {}
    exec(code, scope)
    model.forward = types.MethodType(scope["forward"], model)
    return model


def test_a_forward_without_source_is_regenerated():
    model = sourceless(Net())
    small = TorchAdapter(model).shrink(LENET, {}, {})

    TorchAdapter(small).rewrite(LENET.reshapes[0])

    assert type(small) is Net
    assert small(torch.randn(2, 1, 28, 28)).shape == (2, 500)


def test_a_forward_that_cannot_be_regenerated_says_what_to_write():
    with pytest.raises(SpeedupError, match=r"x\.flatten\(1\)"):
        forward.rewrite(sourceless(Net()), Reshape("", "aten.view", "Net.forward", 3, (-1, 77), (-1, 7)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_lenet_with_its_hard_coded_size_is_halved_exactly(dtype, tolerance):
    torch.manual_seed(0)
    model, x = Net().to(dtype), torch.randn(2, 1, 28, 28, dtype=dtype)
    masks = {}
    for layer, outputs in (("conv1", 20), ("conv2", 50), ("fc1", 500)):
        stays = np.arange(outputs) % 2 == 0
        shape = tuple(model.get_submodule(layer).weight.shape)
        masks[layer] = {"weight": np.broadcast_to(stays.reshape(-1, *[1] * (len(shape) - 1)), shape), "bias": stays}

    speedup = nnc.ModelSpeedup(model, x, masks)
    small = speedup.speedup_model()

    assert sum(parameter.numel() for parameter in small.parameters()) == 109_295
    assert speedup.difference <= tolerance
