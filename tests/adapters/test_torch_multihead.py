"""The forward that a shrunk nn.MultiheadAttention gets is torch's own, but for the size of a head."""

import types

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc_pruning import L1NormPruner
from nnc_torch import multihead


def attention(**options):
    torch.manual_seed(0)
    module = nn.MultiheadAttention(16, 4, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-1, 1)
    return module.eval()


def both(module, *args, **kwargs):
    """Return what torch's forward gives, and what ours does."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        expected = module(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    module.forward = types.MethodType(multihead.forward, module)
    return expected, module(*args, **kwargs)


CAUSAL = nn.Transformer.generate_square_subsequent_mask(5)
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize(
    ("options", "masks"),
    [
        ({}, {}),
        ({"batch_first": True}, {"key_padding_mask": PADDING}),
        ({"bias": False}, {"attn_mask": CAUSAL}),
        ({"add_bias_kv": True}, {"attn_mask": CAUSAL}),
        ({"add_zero_attn": True, "batch_first": True}, {"key_padding_mask": PADDING, "attn_mask": CAUSAL.isinf()}),
        ({}, {"attn_mask": torch.zeros(8, 5, 5)}),
        ({}, {"attn_mask": CAUSAL, "is_causal": True}),
    ],
)
def test_it_computes_what_torch_does(options, masks, weights):
    module = attention(**options)
    x = torch.randn((2, 5, 16) if options.get("batch_first") else (5, 2, 16))

    expected, given = both(module, x, x, x, need_weights=weights, **masks)

    torch.testing.assert_close(given, expected)


def test_it_reads_keys_and_values_of_other_widths():
    expected, given = both(attention(kdim=6, vdim=3), torch.randn(5, 2, 16), torch.randn(7, 2, 6), torch.randn(7, 2, 3))

    torch.testing.assert_close(given, expected)


def test_it_reads_a_memory_and_single_sequences():
    query, memory = torch.randn(5, 16), torch.randn(7, 16)

    expected, given = both(attention(), query, memory, memory, average_attn_weights=False)

    torch.testing.assert_close(given, expected)


def test_a_cut_attention_trains():
    module = attention()
    module.in_proj_weight = nn.Parameter(module.in_proj_weight.detach().reshape(3, 4, 4, 16)[:, :2].reshape(24, 16))
    module.in_proj_bias = nn.Parameter(module.in_proj_bias.detach().reshape(3, 4, 4)[:, :2].reshape(24))
    module.out_proj.weight = nn.Parameter(module.out_proj.weight.detach()[:, :8])

    multihead.follow(module)
    x = torch.randn(5, 2, 16)
    module.train()(x, x, x)[0].sum().backward()

    assert (module.num_heads, module.head_dim, module.embed_dim) == (2, 4, 16)
    assert module.in_proj_weight.grad is not None


@pytest.mark.parametrize("weights", [True, False])
def test_heads_leave_whether_or_not_a_mean_over_them_is_computed_that_nobody_reads(weights):
    """torch averages the attention weights over the heads unless it is told that nobody needs them."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention(batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=weights)[0]

    model, x = Network(), torch.randn(2, 5, 16)
    rows = torch.ones(3, 4, 4, dtype=torch.bool)  # query, key and value; heads; positions in a head
    rows[:, 1] = False
    mask = rows.reshape(48, 1).expand(48, 16)

    speedup = nnc.ModelSpeedup(model, x, {"attention": {"weight": mask, "bias": rows.reshape(48)}})
    small = speedup.speedup_model()

    assert small.attention.num_heads == 3
    assert speedup.difference <= 1e-6


class Around(nn.Module):
    """An attention with layers in front of each of its inputs, and one behind it."""

    def __init__(self, weights=False, **options):
        super().__init__()
        torch.manual_seed(0)
        self.weights = weights
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, options.get("kdim", 16)), nn.Linear(16, options.get("vdim", 16))
        self.attention, self.out = attention(**options), nn.Linear(16, 3)

    def forward(self, x, memory):
        mixed, weights = self.attention(self.query(x), self.key(memory), self.value(memory), need_weights=self.weights is not False)
        return (self.out(mixed), weights) if self.weights == "read" else self.out(mixed)


APART = {"kdim": 12, "vdim": 20}
INPUTS = (
    torch.randn(5, 5, 16, generator=torch.Generator().manual_seed(1)),
    torch.randn(5, 5, 16, generator=torch.Generator().manual_seed(2)),
)
HEADS = [{"op_types": ["MultiheadAttention"], "granularity": "head", "sparsity": 0.5}]
VARIANTS = [
    {},
    {"add_bias_kv": True},
    {"add_zero_attn": True, "batch_first": True},
    {"bias": False, "add_bias_kv": True, "add_zero_attn": True},
    {"weights": True},
    APART,
    {**APART, "bias": False},
    {"kdim": 12, "add_bias_kv": True, "batch_first": True},
    {"vdim": 20, "add_zero_attn": True},
    {**APART, "weights": True},
]


def pruned(config, options):
    """Return the speedup of a pruned model, and the small one."""
    model = Around(**options).eval()
    speedup = nnc.ModelSpeedup(model, INPUTS, L1NormPruner(model, config, example_inputs=INPUTS).propose())
    return speedup, speedup.speedup_model()


def comes_back(small, folder, options):
    nnc.save(small, folder)
    again = nnc.load(folder, model=lambda: Around(**options).eval())
    return torch.equal(small(*INPUTS), again(*INPUTS))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_half_of_the_heads_leave_exactly(options, tmp_path):
    speedup, small = pruned(HEADS, options)

    assert speedup.difference <= 1e-6 and speedup.plan.kept == ()
    assert (small.attention.num_heads, small.attention.head_dim, small.attention.embed_dim) == (2, 4, 16)
    assert small.attention.out_proj.weight.shape == (16, 8)
    assert comes_back(small, tmp_path, options)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_half_of_all_leaves_exactly(options, tmp_path):
    speedup, small = pruned([{"sparsity": 0.5}], options)

    attention, widths = small.attention, (options.get("kdim", 16) // 2, options.get("vdim", 16) // 2)
    assert speedup.difference <= 1e-6 and speedup.plan.kept == ()
    assert (attention.num_heads, attention.head_dim, attention.embed_dim) == (2, 4, 8)
    assert (attention.kdim, attention.vdim) == widths == (small.key.out_features, small.value.out_features)
    assert comes_back(small, tmp_path, options)


def test_weights_apart_are_offered_as_heads_and_cut_together():
    model = Around(**APART).eval()

    offered = {group.layers: group.granules for group in nnc.prunability(model, INPUTS).groups}
    small = nnc.compress(model, HEADS, example_inputs=INPUTS).speedup()

    assert offered[("attention",)] == 4
    whole, cut = dict(model.attention.named_parameters()), dict(small.attention.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in cut.items()}
    assert shapes == {
        "q_proj_weight": (8, 16),
        "k_proj_weight": (8, 12),
        "v_proj_weight": (8, 20),
        "in_proj_bias": (24,),
        "out_proj.weight": (16, 8),
        "out_proj.bias": (16,),
    }
    stays = whole["q_proj_weight"].reshape(4, -1).abs().sum(1).argsort()[2:].sort().values  # a head is worth its queries' rows
    for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        assert torch.equal(cut[name], whole[name].unflatten(0, (4, 4))[stays].flatten(0, 1))


def test_a_query_of_fewer_channels_leaves_the_heads_whole():
    """torch takes the width of the query for that of all heads."""
    speedup, small = pruned([{"op_names": ["query"], "sparsity": 0.5}], APART)

    assert speedup.difference <= 1e-6
    assert small.attention.q_proj_weight.shape == (16, 8)
    assert (small.attention.num_heads, small.attention.embed_dim) == (4, 16)


@pytest.mark.parametrize("options", [{"weights": "read"}, {**APART, "weights": "read"}], ids=str)
def test_heads_whose_weights_are_an_output_stay_with_a_reason(options):
    model = Around(**options).eval()

    with pytest.raises(nnc.ConfigError, match="no attention head is among the output channels of attention that can leave"):
        nnc.compress(model, HEADS, example_inputs=INPUTS)
    reasons = {pinned.reason for pinned in nnc.prunability(model, INPUTS).pinned if pinned.layer == "attention"}
    assert any("takes a mean over it" in reason for reason in reasons)


@pytest.mark.parametrize("options", [{"weights": "read"}, {**APART, "weights": "read"}], ids=str)
def test_where_heads_stay_they_stay_whole_and_what_is_around_them_leaves(options):
    speedup, small = pruned([{"sparsity": 0.5}], options)

    assert speedup.difference <= 1e-6 and speedup.plan.kept == ()
    assert (small.query.out_features, small.attention.embed_dim) == (8, 8)
    assert (small.attention.num_heads, small.attention.head_dim, small.attention.out_proj.in_features) == (4, 4, 16)


def test_without_inputs_a_row_of_the_queries_takes_those_of_the_keys_and_values_with_it():
    model = Around(**APART).eval()

    masks = L1NormPruner(model, [{"op_names": ["attention"], "sparsity": 0.25}]).propose()["attention"]

    gone = ~masks["weight"].any(axis=1)
    assert np.flatnonzero(gone).tolist() == sorted(model.attention.q_proj_weight.abs().sum(1).argsort()[:4].tolist())
    assert (masks["bias"] == np.tile(~gone, 3)).all()
    assert all((masks[f"{part}_weight"].any(axis=1) == ~gone).all() for part in ("key", "value"))


def test_masks_may_be_given_under_torchs_names():
    stays = torch.arange(16) >= 4  # without the first head
    rows = {f"{part}_proj_weight": stays[:, None].expand(16, width) for part, width in (("q", 16), ("k", 12), ("v", 20))}

    speedup = nnc.ModelSpeedup(Around(**APART).eval(), INPUTS, {"attention": {**rows, "in_proj_bias": stays.repeat(3)}})

    assert speedup.speedup_model().attention.num_heads == 3
    assert speedup.difference <= 1e-6
