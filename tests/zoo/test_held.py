"""Numbers that layers hold: they follow an axis only where the small model proves it."""

import math
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


class OneHead(nn.Module):
    """Attention with one head, whose width may shrink; `shape` is a variable, and `width` a size and a number to compute with."""

    def __init__(self):
        super().__init__()
        self.width = 24
        self.query, self.key, self.value = (nn.Linear(16, 24) for _ in range(3))
        self.out = nn.Linear(24, 5)

    def scale(self, q):
        return math.sqrt(self.width)

    def forward(self, x):
        shape = (*x.shape[:-1], self.width)
        q = self.query(x).view(shape)
        k = self.key(x).view(*shape)
        v = self.value(x).reshape(x.shape[0], -1, self.width)
        return self.out(torch.softmax(q @ k.transpose(-1, -2) / self.scale(q), -1) @ v)


class OneHeadByShape(OneHead):
    def scale(self, q):
        return math.sqrt(q.shape[-1])


class Slopes(nn.Module):
    """Adds to each head's scores what follows from how many heads there are, as ALiBi does."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(16, 32) for _ in range(3))
        self.out = nn.Linear(32, 5)

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (-1, 8)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        heads, tokens = q.shape[1:3]
        slopes = torch.tensor([2.0 ** (-8 * (number + 1) / heads) for number in range(heads)])
        scores = q @ k.transpose(-1, -2) + slopes[:, None, None] * torch.arange(float(tokens))
        return self.out((torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(2))


class TwoHeads(nn.Module):
    """Where one head is left, what puts heads side by side has nothing to copy."""

    def __init__(self):
        super().__init__()
        self.num_heads = 2
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.out = nn.Linear(16, 5)

    def forward(self, x):
        shape = (*x.shape[:-1], self.num_heads, 8)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.query, self.key, self.value))
        return self.out((torch.softmax(q @ k.transpose(-1, -2), -1) @ v).transpose(1, 2).contiguous().reshape(*x.shape[:-1], -1))


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


def test_code_is_rewritten_where_the_attribute_that_gives_a_size_is_a_number_too(tmp_path):
    """Setting `width` would divide the scores by another root."""
    x = noise(2, 6, 16)
    small, speedup = shrunk(OneHead(), x)

    assert (small.width, small.query.out_features, small.value.out_features) == (24, 12, 12)
    assert speedup.plan.kept == () and speedup.difference <= 1e-6
    nnc.save(small, tmp_path)
    assert torch.equal(nnc.load(tmp_path, model=OneHead)(x), small(x))


def test_a_width_whose_root_is_taken_from_the_tensor_stays_with_the_reason():
    small, speedup = shrunk(OneHeadByShape(), noise(2, 6, 16))

    assert (small.query.out_features, small.key.out_features, small.value.out_features) == (24, 24, 12)
    (reason,) = {kept.reason for kept in speedup.plan.kept}
    assert reason.endswith("computes with 4.899, which follows from the size")


def test_heads_stay_whose_number_decides_what_is_added_to_their_scores():
    with pytest.warns(NothingRemoved):
        small, speedup = shrunk(Slopes(), noise(2, 6, 16))

    assert small.query.out_features == 32
    assert all("reads numbers that the code makes" in kept.reason for kept in speedup.plan.kept)


def test_the_last_head_but_one_leaves_though_torch_then_copies_nothing():
    small, speedup = shrunk(TwoHeads(), noise(2, 6, 16))

    assert (small.num_heads, small.out.in_features, speedup.plan.kept) == (1, 8, ())


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


class OneFusedHead(nn.Module):
    """Attention with one head over windows, five axes, whose scale torch takes from the width of the queries."""

    def __init__(self, scale=None):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(16, 24) for _ in range(3))
        self.out, self.scale = nn.Linear(24, 5), scale

    def forward(self, x):
        q, k, v = (layer(x).reshape(2, 1, 3, 4, -1) for layer in (self.query, self.key, self.value))
        return self.out(functional.scaled_dot_product_attention(q, k, v, scale=self.scale))


@pytest.mark.parametrize(("scale", "width"), [(None, 24), (0.2, 12)])
def test_a_width_from_which_torch_takes_a_scale_is_not_chosen(scale, width):
    torch.manual_seed(0)
    model, x = OneFusedHead(scale), noise(2, 12, 16)
    speedup = nnc.ModelSpeedup(model, x, L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x).propose())

    small = speedup.speedup_model()

    assert speedup.difference <= 1e-5
    assert speedup.plan.kept == ()
    assert (small.query.out_features, small.key.out_features, small.value.out_features) == (width, width, 12)
