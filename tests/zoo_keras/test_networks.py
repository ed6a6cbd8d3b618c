"""The connections that Keras networks have, and the attention layers of Keras and keras_hub."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import nnc
from nnc.registry import adapter_for
from nnc_pruning import L1NormPruner
from tests.zoo_keras import networks
from tests.zoo_keras.architectures import BACKBONES, backbone
from tests.zoo_keras.checks import assert_exact, difference, pruned, run
from tests.zoo_keras.networks import NETWORKS

SUBCLASSED = (
    networks.stepped,
    networks.attention,
    networks.grouped_queries,
    networks.own_attention,
    networks.fused_attention,
    networks.einsum_heads,
    networks.split_at_indices,
    networks.slices,
    networks.tied_embedding,
)
FUNCTIONAL = (
    networks.functional_attention,
    networks.functional_split,
    networks.functional_slices,
    networks.group_norm,
    networks.unscaled_norm,
    networks.one_dimension,
    networks.recurrent_cells,
)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_gets_smaller_and_computes_the_same(network):
    case = pruned(*network())

    assert_exact(case, left=NETWORKS[network])
    assert case.speed.plan.kept == ()


@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_loses_heads_and_neurons_and_computes_the_same(name, tmp_path):
    pytest.importorskip("keras_hub")
    case = pruned(*backbone(name))

    assert_exact(case, left=0.67)

    heads = [str(group) for group in case.speed.plan.groups if "query" in str(group)]
    assert len(heads) == 2
    assert all(" of 4 leave" in text for text in heads)
    nnc.save(case.small, tmp_path / "small")
    loaded = nnc.load(tmp_path / "small", model=lambda: backbone(name)[0])
    assert difference(run(case.small, case.x), run(loaded, case.x)) <= 1e-6


@pytest.mark.parametrize("network", SUBCLASSED)
def test_a_subclassed_network_loads_into_a_fresh_one(network, tmp_path):
    case = pruned(*network())
    nnc.save(case.small, tmp_path / "small")

    loaded = nnc.load(tmp_path / "small", model=lambda: network()[0])

    assert difference(run(case.small, case.x), run(loaded, case.x)) == 0


@pytest.mark.parametrize("network", FUNCTIONAL)
def test_a_functional_network_loads_from_keras_and_from_nnc_alone(network, tmp_path):
    case = pruned(*network())
    expected = run(case.small, case.x)
    nnc.save(case.small, tmp_path / "small")
    case.small.save(tmp_path / "small.keras")

    assert difference(expected, run(nnc.load(tmp_path / "small"), case.x)) == 0
    assert difference(expected, run(keras.models.load_model(tmp_path / "small.keras"), case.x)) == 0


@pytest.mark.parametrize("network", [*SUBCLASSED, *FUNCTIONAL])
def test_a_small_network_exports_as_saved_model(network, tmp_path):
    case = pruned(*network())

    case.small.export(tmp_path / "saved", verbose=False)

    saved = tf.saved_model.load(tmp_path / "saved")  # held: its functions do not hold its variables
    found = keras.tree.flatten(saved.serve(case.x))
    assert difference(run(case.small, case.x), [np.asarray(each) for each in found]) <= 1e-6


def test_the_attention_holds_the_heads_that_are_left():
    case = pruned(*networks.attention())
    attention = case.small.blocks[0].attention

    assert "blocks.0.attention.num_heads: 4 -> 2" in str(case.speed.plan)
    assert attention.num_heads == 2
    assert attention.query_dense.kernel.shape == (32, 2, 8)
    assert attention.query_dense.partial_output_shape[-2:] == (2, 8)
    assert attention.output_dense.kernel.shape == (2, 8, 32)
    assert attention.get_config()["num_heads"] == 2


def test_an_attention_of_ones_own_notes_its_heads():
    attention = pruned(*networks.own_attention()).small.blocks[0].attention

    assert (attention.num_heads, attention.head_dim) == (2, 8)


def test_grouped_queries_leave_with_their_keys():
    attention = pruned(*networks.grouped_queries()).small.blocks[0].attention

    assert (attention.num_query_heads, attention.num_key_value_heads, attention.num_repeats) == (2, 1, 2)


def test_a_head_that_stays_computes_what_it_did():
    attention = keras.layers.MultiHeadAttention(4, 8)
    model, x = networks.built(networks.Transformer(lambda: attention), networks.noise(2, 6, 12))
    adapter = adapter_for(model)
    rows = np.repeat([True, False, True, False], 8)
    name = "blocks.0.attention"
    masks = {f"{name}.{part}_dense": {"weight": np.repeat(rows[:, None], 32, 1), "bias": rows} for part in ("query", "key", "value")}

    small = nnc.ModelSpeedup(model, x, masks).speedup_model().blocks[0].attention

    heads, kept = (scores(layer, np.asarray(model.embed(x))) for layer in (attention, small))
    np.testing.assert_allclose(kept, heads[:, [0, 2]], atol=1e-6)
    assert adapter.masks() == {}


def test_a_grouped_head_that_stays_computes_what_it_did():
    attention = keras.layers.GroupQueryAttention(8, 4, 2)
    model, x = networks.built(networks.Transformer(lambda: attention), networks.noise(2, 6, 12))
    masks = L1NormPruner(model, [{"op_partial_names": ["attention"], "granularity": "head", "sparsity": 0.5}], example_inputs=x).propose()

    small = nnc.ModelSpeedup(model, x, masks).speedup_model().blocks[0].attention

    query = next(mask["weight"] for name, mask in masks.items() if name.endswith("query_dense"))
    stays = query.reshape(4, -1).all(axis=1)
    assert stays.sum() == 2
    heads, kept = (scores(layer, np.asarray(model.embed(x))) for layer in (attention, small))
    np.testing.assert_allclose(kept, heads[:, stays], atol=1e-6)


def scores(attention, x):
    """Return an attention's scores, (batch, heads, queries, keys)."""
    return np.asarray(attention(x, x, return_attention_scores=True)[1])


def test_the_width_of_a_head_stays_in_keras_attention():
    model, x = networks.attention()
    keep = np.ones((4, 8), bool)
    keep[:, 3] = False  # one position within each head
    mask = {"weight": np.repeat(keep.reshape(-1, 1), 32, 1), "bias": keep.reshape(-1)}
    masks = {f"blocks.0.attention.{part}_dense": mask for part in ("query", "key", "value")}

    with pytest.warns(nnc.NothingRemoved):
        small = nnc.ModelSpeedup(model, x, masks).speedup_model()

    assert small.count_params() == model.count_params()


def test_a_recurrent_layer_whose_state_outlives_the_call_stays_and_the_reason_names_it():
    given = keras.Input(batch_shape=(2, 6, 5))
    memory = layers.LSTM(8, stateful=True, name="memory")(layers.Dense(12, activation="relu", name="up")(given))
    model = keras.Model(given, layers.Dense(3, name="down")(memory))
    keep = np.ones((12, 5), bool)
    keep[0] = False
    speed = nnc.ModelSpeedup(model, networks.noise(2, 6, 5), {"up": {"weight": keep}})

    with pytest.warns(nnc.NothingRemoved):
        speed.speedup_model()

    assert any(kept.where == "up.weight axis 0" and "in memory" in kept.reason for kept in speed.plan.kept)


def test_an_activation_that_is_not_zero_at_zero_keeps_the_units():
    given = keras.Input((6, 5))
    model = keras.Model(given, layers.Dense(3, name="down")(layers.LSTM(8, activation="sigmoid", name="memory")(given)))

    with pytest.raises(nnc.ConfigError, match="memory still reads it as its state"):
        L1NormPruner(model, [{"sparsity": 0.5}], networks.noise(2, 6, 5)).propose()


def test_the_units_of_a_recurrent_layer_follow_in_its_config():
    small = pruned(*networks.recurrent()).small

    lstm, gru = (layer for layer in small.layers if isinstance(layer, (layers.LSTM, layers.GRU)))
    assert (lstm.units, lstm.cell.units, lstm.cell.state_size) == (4, 4, [4, 4])
    assert gru.get_config()["units"] == 4


class One(keras.Model):
    """An attention and what reads it."""

    def __init__(self):
        super().__init__()
        self.attention, self.head = keras.layers.MultiHeadAttention(4, 8), keras.layers.Dense(5)

    def call(self, x):
        return self.head(self.attention(x, x))


def torch_twin(model):
    """Return the same network on torch, of linear layers, a view and scaled_dot_product_attention."""
    import torch
    from torch import nn

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.query_dense, self.key_dense, self.value_dense = (nn.Linear(32, 32) for _ in range(3))
            self.output_dense, self.head = nn.Linear(32, 32), nn.Linear(32, 5)

        def forward(self, x):
            q, k, v = (layer(x).view(2, 6, -1, 8).transpose(1, 2) for layer in (self.query_dense, self.key_dense, self.value_dense))
            y = nn.functional.scaled_dot_product_attention(q, k, v, scale=8**-0.5)
            return self.head(self.output_dense(y.transpose(1, 2).flatten(2)))

    twin = Twin()
    for layer in adapter_for(model).layers():
        mine = twin.get_submodule(layer.name.rpartition(".")[2])
        with torch.no_grad():
            mine.weight.copy_(torch.from_numpy(layer.numbers("weight")))
            mine.bias.copy_(torch.from_numpy(layer.numbers("bias")))
    return twin


def test_an_attention_is_masked_and_cut_as_on_torch():
    torch = pytest.importorskip("torch")
    model, x = networks.built(One(), networks.noise(2, 6, 32))
    twin, given = torch_twin(model), torch.from_numpy(x)
    speeds = []
    for each, inputs in ((model, x), (twin, given)):
        _, masks = L1NormPruner(each, [{"sparsity": 0.5}], example_inputs=inputs).compress()
        speeds.append(nnc.ModelSpeedup(each, inputs, masks))
        speeds[-1].speedup_model()

    ours, theirs = speeds
    assert difference(run(model, x), run(twin, given)) <= 1e-5
    assert [str(group).replace("attention.", "") for group in ours.plan.groups] == [str(group) for group in theirs.plan.groups]
    for name, masks in ours.masks.items():
        assert all((mask == theirs.masks[name.removeprefix("attention.")][parameter]).all() for parameter, mask in masks.items())
