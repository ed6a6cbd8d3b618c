"""Channels that the user's code takes by a list of places leave, and the code takes what is left by the places where it lies now."""

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc_pruning import L1NormPruner


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.last = nn.Linear(5, 8), nn.Linear(4, 3)
        self.listed, self.tensor = [0, 2, 3, 6], torch.tensor([0, 2, 3, 6])
        self.register_buffer("places", torch.tensor([0, 2, 3, 6]))

    def forward(self, x):
        return self.last(self.taken(torch.relu(self.up(x))))


class Brackets(Net):
    def taken(self, y):
        return y[:, [0, 2, 3, -2]]


class Literal(Net):
    def taken(self, y):
        return torch.index_select(y, 1, torch.tensor([0, 2, 3, 6]))


class Listed(Net):
    def taken(self, y):
        return y[..., self.listed]


class Attribute(Net):
    def taken(self, y):
        return y.index_select(1, self.tensor)


class Buffer(Net):
    def taken(self, y):
        return y[:, self.places]


class Computed(Net):
    def taken(self, y):
        return y[:, list(map(int, "0236"))]


def masks(*rows):
    keep = np.ones((8, 5), bool)
    keep[list(rows)] = False
    return {"up": {"weight": keep, "bias": keep[:, 0]}}


def built(kind):
    torch.manual_seed(0)
    return kind().eval(), torch.randn(2, 5)


KINDS = [Brackets, Literal, Listed, Attribute, Buffer]


@pytest.mark.parametrize("kind", KINDS)
def test_the_places_follow(kind):
    model, x = built(kind)

    speedup = nnc.ModelSpeedup(model, x, masks(2, 3))
    small = speedup.speedup_model()

    assert (small.up.out_features, small.last.in_features) == (6, 2)
    assert [(reshape.old, reshape.new, reshape.rewrite) for reshape in speedup.plan.reshapes] == [((0, 2, 3, 6), (0, 4), True)]
    assert speedup.difference <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_shrink_and_a_fresh_model_take_the_same(kind, tmp_path):
    model, x = built(kind)
    small = nnc.ModelSpeedup(model, x, masks(2)).speedup_model()
    keep = np.arange(7) != 0

    again = nnc.ModelSpeedup(small, x, {"up": {"weight": np.repeat(keep[:, None], 5, 1), "bias": keep}}).speedup_model()
    nnc.save(again, tmp_path / "small")
    loaded = nnc.load(tmp_path / "small", model=kind().eval())

    assert (again.up.out_features, again.last.in_features) == (6, 2)
    assert torch.equal(loaded(x), again(x))


def test_half_of_the_channels_leave_when_a_pruner_chooses():
    model, x = built(Brackets)

    speedup = nnc.ModelSpeedup(model, x, L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x).propose())
    small = speedup.speedup_model()

    assert small.last.in_features == 2
    assert speedup.plan.kept == ()


def test_places_that_the_code_computes_keep_the_channels_and_say_what_to_write():
    model, x = built(Computed)

    speedup = nnc.ModelSpeedup(model, x, masks(2))
    with pytest.warns(nnc.NothingRemoved, match=r"takes the places .* 0 lists .* Write the places as one list"):
        speedup.speedup_model()

    assert speedup.difference <= 1e-6
