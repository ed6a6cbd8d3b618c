"""Widths that a mean is taken over: they stay, with the reason, until allow_inexact=True asks for them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import nnc
from nnc_pruning import L1NormPruner
from nnc_torch.inference import run
from tests.zoo.networks import noise
from tests.zoo.test_torch_zoo import apart, count, made, randomise

HALF = [{"sparsity": 0.5}]


class Small(nn.Module):
    """A language model, normalised first; its head is its embedding."""

    def __init__(self, width):
        super().__init__()
        self.embedding, self.positions = nn.Embedding(40, width), nn.Parameter(torch.zeros(1, 6, width))
        self.first, self.second, self.last = nn.LayerNorm(width), nn.RMSNorm(width, eps=1e-6), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, 32) for _ in range(3))
        self.out, self.up, self.down = nn.Linear(32, width), nn.Linear(width, 48), nn.Linear(48, width)
        self.head = nn.Linear(width, 40, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        x = self.embedding(ids) + self.positions
        y = self.first(x)
        q, k, v = (layer(y).unflatten(-1, (4, 8)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.down(functional.gelu(self.up(self.second(x))))
        return self.head(self.last(x))


def trained(width=32):
    torch.manual_seed(0)
    model = Small(width)
    with torch.no_grad():
        for parameter in model.parameters():
            randomise(parameter, None)
    return model.eval(), torch.arange(12).reshape(2, 6)


def width_only(model, ids, sparsity=0.25, **options):
    """Mask the width of the residual stream and nothing else."""
    config = [{"sparsity": sparsity}, {"op_names": ["query", "key", "value", "up"], "exclude": True}]
    return L1NormPruner(model, config, example_inputs=ids, **options).propose()


def test_the_width_under_a_norm_leaves_and_what_is_left_is_the_network_of_that_width():
    model, ids = trained()
    masks = width_only(model, ids, allow_inexact=True)

    speedup = nnc.ModelSpeedup(model, ids, masks, allow_inexact=True)
    small = speedup.speedup_model()

    keep = masks["embedding"]["weight"][0]
    assert keep.sum() == 24
    twin, whole = Small(24).eval(), model.state_dict()
    for name, parameter in twin.named_parameters():
        taken = whole[name]
        for axis, (old, new) in enumerate(zip(taken.shape, parameter.shape, strict=True)):
            taken = taken if old == new else taken.index_select(axis, torch.from_numpy(np.flatnonzero(keep)))
        parameter.data.copy_(taken)
    assert apart(run(twin, ids), run(small, ids)) <= 1e-6
    assert small.head.weight is small.embedding.weight
    assert small.first.normalized_shape == (24,)


def test_the_report_says_how_far_the_outputs_moved_and_why():
    model, ids = trained()

    small = nnc.compress(model, {"sparsity": 0.25}, ids, allow_inexact=True)
    small.speedup()
    report = small.report()

    (moved,) = report.plan.inexact
    assert (moved.old, moved.new) == (32, 24)
    assert len(moved.places) == 3
    assert report.difference > 1e-3
    assert f"inexact, as was asked: outputs moved by {report.difference:.1e}" in " ".join(str(report).split())
    assert nnc.graph.plan.Plan.from_dict(report.plan.to_dict()) == report.plan


def test_a_recipe_may_ask_for_it():
    model, ids = trained()

    small = nnc.compress(model, {"config_list": [{"sparsity": 0.25}], "allow_inexact": True}, ids).speedup()

    assert small.embedding.embedding_dim == 24


def test_the_width_stays_by_default_and_the_pruner_does_not_choose_it():
    model, ids = trained()

    masks = L1NormPruner(model, HALF, example_inputs=ids).propose()

    assert set(masks) == {"query", "key", "value", "up"}


def test_masks_on_the_width_stay_with_a_reason_that_names_the_option():
    model, ids = trained()

    speedup = nnc.ModelSpeedup(model, ids, width_only(model, ids, allow_inexact=True))
    with pytest.warns(nnc.NothingRemoved):
        small = speedup.speedup_model()

    assert count(small) == count(model)
    assert all("allow_inexact=True" in kept.reason and "takes a mean over it" in kept.reason for kept in speedup.plan.kept)


def test_what_is_exact_is_held_to_exactness_even_where_more_is_allowed():
    model, ids = trained()
    masks = L1NormPruner(model, HALF, example_inputs=ids).propose()

    speedup = nnc.ModelSpeedup(model, ids, masks, allow_inexact=True)
    speedup.speedup_model()

    assert speedup.plan.inexact == ()
    assert speedup.difference <= 1e-6


WIDE = ["bert-sdpa", "roberta", "distilbert", "albert", "electra", "vit", "deit", "swin", "convnext", "gpt2", "llama"]


@pytest.mark.parametrize("name", WIDE)
def test_an_architecture_loses_width(name, tmp_path):
    pytest.importorskip("transformers")
    model, inputs = made(name)
    masks = L1NormPruner(model, HALF, example_inputs=inputs, allow_inexact=True).propose()

    speedup = nnc.ModelSpeedup(model, inputs, masks, allow_inexact=True)
    small = speedup.speedup_model()

    assert count(small) <= 0.5 * count(model)
    assert not speedup.plan.kept
    assert speedup.plan.inexact
    nnc.save(small, tmp_path / "small")
    assert apart(run(small, inputs), run(nnc.load(tmp_path / "small").eval(), inputs)) <= 1e-6


def test_a_pool_over_positions_lets_the_last_width_of_swin_leave():
    pytest.importorskip("transformers")
    found = nnc.prunability(*made("swin"), allow_inexact=True)

    assert not any("as_strided" in pinned.reason for pinned in found.pinned)


def group_normed(groups):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.GroupNorm(groups, 24), nn.ReLU(), nn.Conv2d(24, 5, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            randomise(parameter, None)
    return model.eval(), noise(2, 3, 8, 8)


def test_whole_groups_of_a_group_norm_leave_exactly():
    model, x = group_normed(6)

    small = nnc.ModelSpeedup(model, x, L1NormPruner(model, HALF, example_inputs=x).propose()).speedup_model()

    assert (small[1].num_groups, small[1].num_channels, small[0].out_channels) == (3, 12, 12)


def test_whole_groups_masked_in_the_convolution_alone_leave_too():
    """A group of zeros is normalised to zeros; what its shift then adds goes into the next layer's bias."""
    model, x = group_normed(6)
    keep = np.arange(24) >= 8
    masks = {"0": {"weight": np.broadcast_to(keep[:, None, None, None], (24, 3, 3, 3)), "bias": keep}}

    speedup = nnc.ModelSpeedup(model, x, masks)
    small = speedup.speedup_model()

    assert small[1].num_groups == 4
    assert speedup.difference <= 1e-6


def test_part_of_a_group_leaves_only_on_request():
    model, x = group_normed(1)
    masks = L1NormPruner(model, HALF, example_inputs=x, allow_inexact=True).propose()

    with pytest.warns(nnc.NothingRemoved, match="allow_inexact=True"):
        nnc.ModelSpeedup(model, x, masks).speedup_model()
    speedup = nnc.ModelSpeedup(model, x, masks, allow_inexact=True)
    small = speedup.speedup_model()

    assert (small[1].num_groups, small[1].num_channels) == (1, 12)
    assert [(moved.old, moved.new) for moved in speedup.plan.inexact] == [(24, 12)]
