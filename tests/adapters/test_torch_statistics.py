"""A BatchNorm without a scale: what it takes away from a masked channel is masked too, and training still counts it."""

import numpy as np
import torch
from torch import nn

import nnc
from nnc_pruning import L1NormPruner


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    model[1].running_mean.uniform_(-1, 1)
    model[1].running_var.uniform_(0.5, 1.5)
    return model.eval(), torch.randn(2, 3, 8, 8)


def pruned():
    model, x = network()
    pruner = L1NormPruner(model, [{"op_names": ["0"], "sparsity": 0.5}], x)
    _, masks = pruner.compress()
    return model, x, pruner, masks


def test_a_masked_channel_is_zero_behind_it_and_leaves_although_a_padded_convolution_reads_it():
    model, x, _, masks = pruned()
    gone = ~masks["1"]["running_mean"]

    assert gone.sum() == 4
    assert not model[:2](x)[:, gone].any()
    speedup = nnc.ModelSpeedup(model, x)
    small = speedup.speedup_model()
    assert speedup.difference <= 1e-5
    assert (small[0].out_channels, small[1].num_features, small[3].in_channels) == (4, 4, 4)


def test_training_goes_on_counting_the_mean_of_what_is_masked():
    model, x, _, masks = pruned()
    stored = model[1].parametrizations.running_mean.original
    before = stored.clone()

    model.train()
    model(x)
    model.eval()

    gone = torch.from_numpy(~masks["1"]["running_mean"])
    assert torch.allclose(stored[gone], 0.9 * before[gone])
    assert not model[1].running_mean[gone].any()
    assert (stored[~gone] != before[~gone]).all()


def test_taking_the_masks_off_gives_numbers_and_order_back():
    plain, x = network()
    model, _, pruner, _ = pruned()

    pruner.unwrap_model()

    assert list(model.state_dict()) == list(plain.state_dict())
    assert type(model[1]) is nn.BatchNorm2d
    assert np.array_equal(model(x).detach(), plain(x).detach())
