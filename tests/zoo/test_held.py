"""Numbers that layers hold: they follow an axis only where the small model proves it."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import nnc
from nnc.errors import NothingRemoved
from nnc_pruning import L1NormPruner
from tests.zoo.networks import noise


class Attention(nn.Module):
    """Attention over a sequence; the class of a test says how it uses its numbers."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.head_dim, self.hidden = 4, 8, 48
        self.query, self.key, self.value = (nn.Linear(16, 32) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(32, 16), nn.Linear(16, 48), nn.Linear(48, 5)
        self.norm = nn.LayerNorm(16)

    def attended(self, x):
        shape = [*x.shape[:-1], -1, self.head_dim]
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def forward(self, x):
        return self.down(functional.relu(self.up(self.norm(x + self.attended(x)))))


class DividesByHeads(Attention):
    def attended(self, x):
        return super().attended(x) / self.num_heads


class NeedsHidden(Attention):
    """Makes a tensor of a size that no call of reshape or split gives."""

    def forward(self, x):
        zeros = torch.zeros((*x.shape[:-1], self.hidden))
        return self.down(functional.relu(self.up(self.norm(x + self.attended(x)))) + zeros)


class DividesByWidth(Attention):
    """A number that is the width and that the code computes with."""

    def __init__(self):
        super().__init__()
        self.inner_dim = 16
        self.embed = nn.Linear(6, 16)

    def forward(self, x):
        return super().forward(self.embed(x)) / self.inner_dim


def shrunk(model, x, **options):
    torch.manual_seed(0)
    masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x, **options).propose()
    speedup = nnc.ModelSpeedup(model.eval(), x, masks, **options)
    return speedup.speedup_model(), speedup


def test_a_number_of_heads_follows():
    small, speedup = shrunk(Attention(), noise(2, 6, 16))

    assert (small.num_heads, small.head_dim, small.up.out_features) == (2, 8, 24)
    assert speedup.plan.notes == ()


def test_a_number_whose_name_could_mean_anything_stays_where_nothing_needs_it():
    small, _ = shrunk(Attention(), noise(2, 6, 16))

    assert small.hidden == 48


def test_a_number_whose_name_could_mean_anything_follows_where_the_model_fails_without():
    small, speedup = shrunk(NeedsHidden(), noise(2, 6, 16))

    assert (small.hidden, small.up.out_features) == (24, 24)
    assert speedup.difference <= 1e-6


def test_a_number_that_the_code_computes_with_stays_and_the_plan_says_so():
    small, speedup = shrunk(DividesByHeads(), noise(2, 6, 16))

    assert (small.num_heads, small.query.out_features) == (4, 16)
    (note,) = speedup.plan.notes
    assert note == "left as it was, since the small model does not compute the same with it changed: num_heads of the model"
    assert "note: left as it was" in str(speedup.report())


def test_a_number_that_the_code_computes_with_stays_where_outputs_may_move():
    """Outputs are no proof there, so the numbers in the recorded operations are."""
    small, speedup = shrunk(DividesByWidth(), noise(2, 6, 6), allow_inexact=True)

    assert (small.inner_dim, small.embed.out_features) == (16, 8)
    assert "inner_dim of the model" in speedup.plan.notes[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-1), (torch.float16, 3e-2), (torch.float64, 1e-9)])
def test_other_widths_of_floats_are_compared_by_their_own_precision(dtype, tolerance):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small, speedup = shrunk(Attention().to(dtype), noise(2, 6, 16).to(dtype))

    assert speedup.difference <= tolerance
    assert small.up.weight.dtype is dtype


class FirstFixed(nn.Module):
    """The first operation of all adds what the code makes as long as it always was."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.scale = nn.Linear(8, 24), nn.Linear(24, 5), nn.Parameter(torch.rand(24))

    def forward(self, x):
        scale = self.scale + torch.ones(24)
        return self.down(functional.relu(self.up(x)) * scale)


def test_an_operation_that_fixes_a_size_is_named_although_it_is_the_first():
    model = FirstFixed()
    masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=noise(2, 8)).propose()
    speedup = nnc.ModelSpeedup(model.eval(), noise(2, 8), masks)

    with pytest.warns(NothingRemoved, match=r"aten.add .*test_held.py:\d+\) needs its size: the code there fixes it"):
        speedup.speedup_model()
