"""Where hidden states, queries, keys and values lie is found out; what is found is what the model computes with."""

import numpy as np
import pytest

from nnc.arrays import to_numpy
from nnc.errors import ConfigError
from nnc.instruments import trainable
from nnc.registry import adapter_for
from nnc.views import Site
from nnc_distillation.attention import Attention, Opaque, attentions
from nnc_distillation.blocks import repeated_blocks
from nnc_distillation.layer_maps import pairs
from tests.algorithms.distillation_models import MODELS, tokens
from tests.algorithms.distillation_numpy import softmax


def test_blocks_are_what_is_numbered_and_repeats():
    names = ["embed", *(f"encoder.layer.{i}.{part}" for i in range(3) for part in ("attention.query", "output.dense"))]

    assert repeated_blocks(names) == ["encoder.layer.0", "encoder.layer.1", "encoder.layer.2"]


def test_blocks_may_be_numbered_by_an_underscore():
    assert repeated_blocks(["transformer_layer_0.dense", "transformer_layer_1.dense", "pooled_dense"]) == [
        "transformer_layer_0",
        "transformer_layer_1",
    ]


def test_the_outermost_of_nested_blocks_count():
    names = [f"stages.{i}.blocks.{j}.conv" for i in range(2) for j in range(2)]

    assert repeated_blocks(names) == ["stages.0", "stages.1"]


def test_numbered_layers_of_different_kinds_are_no_blocks():
    assert repeated_blocks(["fc1", "fc2", "0", "2"]) == []
    assert repeated_blocks(["0.conv", "1.query", "1.key", "1.value"]) == []


def test_a_number_that_a_framework_adds_makes_no_block():
    assert repeated_blocks(["bert_backbone_1.dense"]) == []


def test_the_default_layer_map_takes_the_last_of_each_block():
    assert pairs(None, 3, 12, "here") == [(0, 3), (1, 7), (2, 11)]


def test_the_maps_of_pkd_leave_out_the_last_layer():
    # As published, counted from 1: {2, 4, 6, 8, 10} and {7, ..., 11}.
    assert [t + 1 for _, t in pairs("skip", 6, 12, "here")] == [2, 4, 6, 8, 10]
    assert [t + 1 for _, t in pairs("last", 6, 12, "here")] == [7, 8, 9, 10, 11]


def test_a_layer_map_counts_from_the_end_too():
    assert pairs((1, -1), 2, 4, "here") == [(0, 1), (1, 3)]
    assert pairs(((-1, 3),), 2, 4, "here") == [(1, 3)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0, 4), "here: there is no layer 4; the teacher has 4 layers, 0 to 3"),
        (((2, 0),), "here: there is no layer 2; the student has 2 layers, 0 to 1"),
        ((0, 1, 2), "here: it has 3 entries; the student has 2 layers"),
    ],
)
def test_a_layer_map_out_of_range_names_the_number_of_layers(given, message):
    with pytest.raises(ConfigError, match=message):
        pairs(given, 2, 4, "here")


def test_a_teacher_with_fewer_layers_needs_a_layer_map():
    with pytest.raises(ConfigError, match="the student has 4 layers and the teacher 2"):
        pairs(None, 4, 2, "here")


def attention_of(model, inputs, causal=False):
    """Return what each attention of a model is found to compute, softmax(q k^T / sqrt d) v, `(batch, length, width)`."""
    adapter = trainable(adapter_for(model), "a test")
    found = attentions(adapter.trace(inputs, {}).graph)
    assert all(isinstance(each, Attention) for each in found), found
    _, seen = adapter.forward(inputs, [source.site for each in found for source in each.sources])
    return [recomputed(each, seen, adapter.layers()[0].ops, causal) for each in found]


def recomputed(attention, seen, ops, causal):
    q, k, v = (to_numpy(source.read(seen, ops)).astype("float64") for source in attention.sources)
    q, k, v = (x.reshape(*x.shape[:2], attention.heads, -1).swapaxes(1, 2) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    scores = np.where(np.tril(np.ones(scores.shape[-2:])) > 0, scores, -np.inf) if causal else scores
    mixed = (softmax(scores) @ v).swapaxes(1, 2)
    return mixed.reshape(*mixed.shape[:2], -1)


def entering(model, inputs, layers):
    """Return what enters layers, `(batch, length, width)`."""
    sites = [Site(name, "input") for name in layers]
    _, seen = trainable(adapter_for(model), "a test").forward(inputs, sites)
    return [to_numpy(seen[site]).reshape(*seen[site].shape[:2], -1) for site in sites]


def assert_found(model, inputs, outputs, causal=False):
    for found, expected in zip(attention_of(model, inputs, causal), entering(model, inputs, outputs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_of_a_bert_is_recomputed_whatever_its_kernel(attention):
    ids, mask = tokens()
    model = MODELS["torch"].bert(attention=attention)

    assert_found(model, MODELS["torch"].inputs(ids, np.ones_like(mask)), [f"bert.encoder.layer.{i}.attention.output.dense" for i in (0, 1)])


def test_attention_of_a_keras_bert_is_recomputed():
    ids, mask = tokens()
    layers = [f"bert_backbone.transformer_layer_{i}.self_attention_layer.output_dense" for i in (0, 1)]
    model = MODELS["keras"].bert()
    prefix = next(layer.name for layer in model.layers if "backbone" in layer.name)

    assert_found(model, MODELS["keras"].inputs(ids, np.ones_like(mask)), [layer.replace("bert_backbone", prefix) for layer in layers])


def test_one_layer_may_make_queries_keys_and_values_together():
    import torch
    from transformers import GPT2Config, GPT2Model

    ids, _ = tokens()
    model = GPT2Model(GPT2Config(n_embd=16, n_head=4, n_layer=2, vocab_size=60, bos_token_id=0, eos_token_id=0))

    assert_found(model, torch.from_numpy(ids), ["h.0.attn.c_proj", "h.1.attn.c_proj"], causal=True)


def test_columns_of_a_fused_layer_may_lie_anywhere():
    import torch
    from torch import nn

    class Interleaved(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x):
            q, k, v = self.qkv(x).reshape(*x.shape[:2], 4, 4, 3).permute(4, 0, 2, 1, 3).unbind(0)
            return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape))

    torch.manual_seed(0)

    assert_found(Interleaved(), torch.randn(2, 5, 16), ["out"])


def test_keys_may_be_shared_by_several_heads():
    import keras

    keras.utils.set_random_seed(0)
    given = keras.Input((5, 16))
    model = keras.Model(given, keras.layers.GroupQueryAttention(4, 4, 2, name="attention")(given, given))

    assert_found(model, np.random.default_rng(0).standard_normal((2, 5, 16)).astype("float32"), ["attention._output_dense"])


def test_keras_own_attention_is_recomputed():
    import keras

    keras.utils.set_random_seed(0)
    given = keras.Input((5, 16))
    model = keras.Model(given, keras.layers.MultiHeadAttention(4, 4, name="attention")(given, given))

    assert_found(model, np.random.default_rng(0).standard_normal((2, 5, 16)).astype("float32"), ["attention.output_dense"])


def test_an_attention_that_cannot_be_tapped_says_what_is_in_the_way():
    import torch
    from torch import nn

    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    (found,) = attentions(adapter_for(model).trace(torch.ones(2, 5, 16), {}).graph)

    assert isinstance(found, Opaque)
    assert "do not leave a layer of their own" in found.reason
