"""Real architectures, pruned by half and shrunk: each is exact, each is smaller, none is left as it was."""

import numpy as np
import pytest
import torch
from torch import nn

import nnc
from nnc.errors import NothingRemoved
from nnc_pruning import L1NormPruner
from nnc_torch.inference import run
from tests.zoo.networks import NETWORKS, Recurrent
from tests.zoo.transformers_zoo import TRANSFORMERS

ZOO = {**TRANSFORMERS, **NETWORKS}


def made(name):
    """Return a model of the zoo whose biases and statistics are random, as training leaves them, and its example inputs."""
    build, inputs = ZOO[name]
    torch.manual_seed(0)
    model = build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            randomise(parameter, generator)
        for path, buffer in model.named_buffers():
            if "running" in path:
                buffer.uniform_(0.5, 1.5, generator=generator)
    return model.eval(), inputs()


def randomise(parameter, generator):
    if parameter.ndim == 1:
        parameter.uniform_(-0.5, 1.0, generator=generator)
    elif not parameter.any():
        parameter.normal_(0, 0.1, generator=generator)
    else:
        parameter.mul_(3)


def shrunk(model, inputs):
    pruner = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=inputs)
    speedup = nnc.ModelSpeedup(model, inputs, pruner.propose())
    return speedup.speedup_model(), speedup


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def apart(left, right):
    """Return the largest difference of two runs, relative to the largest output."""
    floats = [(a, b) for a, b in zip(left, right, strict=True) if a.dtype.kind == "f" and a.size]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in floats)


@pytest.mark.filterwarnings(f"error::{NothingRemoved.__module__}.NothingRemoved")
@pytest.mark.parametrize("name", ZOO)
def test_an_architecture_shrinks_exactly_and_loads_again(name, tmp_path):
    model, inputs = made(name)
    if name in TRANSFORMERS:
        pytest.importorskip("transformers")

    small, speedup = shrunk(model, inputs)

    assert speedup.difference <= 1e-5
    assert speedup.plan.kept == ()
    assert count(small) <= 0.7 * count(model)
    assert apart(run(model, inputs), run(small, inputs)) > 1e-2
    assert type(small) is type(model)
    nnc.save(small, tmp_path / "small")
    loaded = nnc.load(tmp_path / "small", model=None if name in TRANSFORMERS else ZOO[name][0])
    assert apart(run(small, inputs), run(loaded.eval(), inputs)) <= 1e-6


@pytest.mark.parametrize(
    ("name", "layer", "attribute", "size"),
    [
        ("bert-sdpa", "bert.encoder.layer.1.attention.self", "num_attention_heads", 2),
        ("bert-sdpa", "bert.encoder.layer.1.attention.self", "attention_head_size", 16),
        ("bert-sdpa", "bert.encoder.layer.1.attention.self", "all_head_size", 32),
        ("vit", "vit.layers.1.attention", "num_attention_heads", 2),
        ("swin", "swin.encoder.layers.1.blocks.0.attention", "num_attention_heads", 4),
        ("swin", "swin.encoder.layers.1.blocks.0.attention", "head_dim", 8),
        ("gpt2", "transformer.h.1.attn", "num_heads", 2),
        ("gpt2", "transformer.h.1.attn", "split_size", 32),
        ("t5", "decoder.block.0.layer.1.EncDecAttention", "n_heads", 2),
        ("t5", "decoder.block.0.layer.1.EncDecAttention", "inner_dim", 32),
        ("t5", "decoder.block.0.layer.1.EncDecAttention", "d_model", 64),
        ("whisper", "model.decoder.layers.0.encoder_attn", "num_heads", 2),
        ("whisper", "model.decoder.layers.0.encoder_attn", "embed_dim", 64),
        ("llama", "model.layers.0.self_attn", "num_key_value_groups", 2),
        ("llama", "model.layers.0.self_attn", "head_dim", 16),
        ("fused-qkv", "", "num_heads", 2),
        ("fused-qkv", "", "head_dim", 8),
        ("group-norm", "1", "num_groups", 4),
        ("scaled", "", "hidden_channels", 24),
    ],
)
def test_an_attribute_follows_its_axis_and_no_other(name, layer, attribute, size):
    small, _ = shrunk(*made(name))

    assert getattr(small.get_submodule(layer), attribute) == size


def test_tied_embeddings_stay_tied():
    small, _ = shrunk(*made("tied-embedding"))

    assert small.head.weight is small.embedding.weight


def first_half(x):
    return x[..., :12]


class SlicedElsewhere(nn.Module):
    """A slice in a function of its own, which other models use as well."""

    def __init__(self, half=first_half):
        super().__init__()
        self.half = half
        self.first, self.second = nn.Linear(8, 24), nn.Linear(12, 5)

    def forward(self, x):
        return self.second(self.half(self.first(x)))


class SlicedByName(SlicedElsewhere):
    def forward(self, x):
        return self.second(first_half(self.first(x)))


def test_a_slice_in_a_function_that_forward_calls_follows_for_that_model_alone():
    small, speedup = shrunk(SlicedByName(), torch.randn(2, 8))

    assert speedup.plan.kept == ()
    assert small.second.in_features < 12
    assert first_half(torch.zeros(2, 24)).shape == (2, 12)


def test_a_slice_in_a_function_that_no_method_names_is_kept_with_the_reason():
    _, speedup = shrunk(SlicedElsewhere(), torch.randn(2, 8))

    assert any("aten.slice" in kept.reason and "the code there fixes it" in kept.reason for kept in speedup.plan.kept)


def test_a_state_that_is_projected_stays_and_its_layer_is_named():
    model, inputs = (
        Recurrent(lambda given, state, batch_first: nn.LSTM(given, 20, proj_size=state, batch_first=batch_first)),
        torch.randn(2, 6, 8),
    )
    unread = np.ones((32, 12), bool)
    unread[:, 3] = False

    speedup = nnc.ModelSpeedup(model, inputs, {"up": {"weight": unread}})
    with pytest.warns(NothingRemoved, match="torch.lstm with proj_size in cell"):
        speedup.speedup_model()

    assert ("up.weight axis 1", 1) in [(kept.where, kept.count) for kept in speedup.plan.kept]


def test_the_layers_and_directions_of_one_lstm_keep_one_size():
    small, _ = shrunk(*made("lstm-both-ways"))

    assert (small.cell.input_size, small.cell.hidden_size) == (8, 6)
    assert {tuple(weight.shape) for name, weight in small.cell.named_parameters() if "weight_hh" in name} == {(24, 6)}


def test_a_masked_recurrent_layer_computes_with_its_masks_and_gives_its_numbers_back():
    model, inputs = made("lstm")
    before = run(model, inputs)

    pruner = L1NormPruner(model, [{"op_types": ["LSTM"], "sparsity": 0.5}], example_inputs=inputs)
    _, masks = pruner.compress()
    states = model.cell(torch.ones(2, 3, 16))[0]

    gone = ~masks["cell"]["weight"].any(axis=1)
    assert gone.reshape(4, 12).all(axis=0).sum() == gone.reshape(4, 12).any(axis=0).sum() == 6
    assert not states[..., gone[:12]].any()
    assert apart(before, run(model, inputs)) > 1e-2
    assert apart(before, run(pruner.unwrap_model(), inputs)) == 0


def test_a_grouped_query_attention_keeps_its_groups():
    small, _ = shrunk(*made("llama"))

    attention = small.model.layers[0].self_attn
    assert attention.q_proj.out_features == 2 * attention.k_proj.out_features == 2 * attention.v_proj.out_features


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("bert-eager", "bert.encoder.layer.0.attention.output.dense"),
        ("bert-sdpa", "bert.encoder.layer.0.attention.output.dense"),
        ("vit", "vit.layers.0.attention.o_proj"),
        ("distilbert", "distilbert.transformer.layer.0.attention.out_lin"),
        ("gpt2", "transformer.h.0.attn.c_proj"),
        ("llama", "model.layers.0.self_attn.o_proj"),
        ("t5", "encoder.block.0.layer.0.SelfAttention.o"),
        ("fused-qkv", "proj"),
    ],
)
def test_a_kept_head_gives_what_it_gave(name, output):
    """The first attention reads the same in both models, so a head that stays hands the same to the output projection."""
    model, inputs = made(name)
    small, speedup = shrunk(model, inputs)

    before, after = read_by(model, output, inputs), read_by(small, output, inputs)
    keep = np.ones(before.shape[-1], bool)
    for member in speedup.plan.axes()[f"{output}.weight", 1]:
        member.clear(keep)
    columns = np.flatnonzero(keep)

    heads = columns.reshape(2, -1)
    assert (np.diff(heads, axis=1) == 1).all()
    assert torch.allclose(before[..., columns], after, rtol=1e-5, atol=1e-6)


def read_by(model, layer, inputs):
    """Return what a layer reads in one forward pass."""
    seen = []
    handle = model.get_submodule(layer).register_forward_pre_hook(lambda _, given: seen.append(given[0].detach().clone()))
    run(model, inputs)
    handle.remove()
    return seen[0].flatten(0, -2)


def test_without_example_inputs_the_gates_of_a_recurrent_layer_choose_together():
    model, inputs = made("lstm")
    _, masks = L1NormPruner(model, [{"op_names": ["cell"], "sparsity": 0.5}]).compress()

    small = nnc.ModelSpeedup(model, inputs, masks).speedup_model()

    score = np.abs(model.cell.parametrizations.weight_ih_l0.original.detach().numpy()).sum(axis=1).reshape(4, 12).sum(axis=0)
    lowest = np.sort(np.argsort(score)[:6])
    assert small.cell.hidden_size == 6
    assert np.flatnonzero(~masks["cell"]["recurrent_bias"]).tolist() == [gate * 12 + unit for gate in range(4) for unit in lowest]
