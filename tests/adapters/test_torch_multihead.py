"""The forward that a shrunk nn.MultiheadAttention gets is torch's own, but for the size of a head."""

import types

import pytest
import torch
from torch import nn

import nnc
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
