"""What the rounds of a schedule ask of a model that has already lost a part: in the end, what the config_list asks of the user's."""

import numpy as np
import pytest

import nnc
from nnc.errors import ConfigError
from nnc.registry import adapter_for
from tests.algorithms.tiny_networks import numbered, tensor

pytestmark = pytest.mark.filterwarnings("ignore:.*nothing leaves:UserWarning", "ignore::nnc.errors.NothingRemoved")
ROWS = np.random.default_rng(0).standard_normal((2, 4)).astype("float32")
BOTH = {"op_names": ["first", "second"]}


def deep(framework):
    """Return 4 -> 8 -> 6 -> 2: the layers first, second and classes, of which first has 4 weights a channel and second 8."""
    if framework.name == "torch":
        from collections import OrderedDict

        from torch import nn

        parts = {"first": nn.Linear(4, 8), "one": nn.ReLU(), "second": nn.Linear(8, 6), "two": nn.ReLU(), "classes": nn.Linear(6, 2)}
        return numbered(nn.Sequential(OrderedDict(parts)))
    import keras

    layers = keras.layers
    hidden = [layers.Dense(8, activation="relu", name="first"), layers.Dense(6, activation="relu", name="second")]
    return numbered(keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(2, name="classes")]))


def widths(model):
    return {layer.name: layer.parameters["weight"][0] for layer in adapter_for(model).layers() if layer.prunable}


def small(framework, config, rounds, **options):
    """Return what is left of the network after so many rounds, each with a speedup."""
    pruner = nnc.ScheduledPruner(
        deep(framework), config, tensor(framework, ROWS), schedule="linear", rounds=rounds, speedup=True, **options
    )
    return widths(pruner.compress()[0])


def test_settings_of_the_weight_are_reached_round_by_round(framework):
    config = [{**BOTH, "target_settings": {"weight": {"sparse_ratio": 0.5}}}]

    assert small(framework, config, rounds=3) == {"first": 4, "second": 3, "classes": 2}


@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize(
    "config",
    [
        [{**BOTH, "total_sparsity": 0.5}],
        [{"op_types": ["Linear"], "total_sparsity": 0.5}],  # of classes, the outputs, nothing can leave
        [{"op_names": [name], "sparsity": 0.5, "global_group_id": "all"} for name in BOTH["op_names"]],
        [{**BOTH, "total_sparsity": 0.5, "ranking": "isomorphic"}],
    ],
)
def test_a_total_counts_the_weights_of_the_users_model_in_every_round(framework, config, rounds):
    left = small(framework, config, rounds)

    # Of 8 * 4 + 6 * 8 = 80 weights 40 leave, short of that by less than one channel, which has 8 at most.
    removed = (8 - left["first"]) * 4 + (6 - left["second"]) * 8
    assert 40 - 8 < removed <= 40


@pytest.mark.parametrize("rounds", [1, 4])
def test_a_floor_and_a_cap_are_fractions_of_the_users_layers(framework, rounds):
    left = small(framework, [{**BOTH, "total_sparsity": 0.5, "min_sparse_ratio": 0.5, "max_sparsity_per_layer": 0.5}], rounds)

    assert left == {"first": 4, "second": 3, "classes": 2}


def test_entries_with_one_id_are_given_one_sparsity(framework):
    config = [{"op_names": [name], "total_sparsity": 0.5, "global_group_id": 1} for name in BOTH["op_names"]]
    pruner = nnc.ScheduledPruner(deep(framework), config, tensor(framework, ROWS), schedule="linear", rounds=2)
    pruner.compress()

    assert [one.task.sparsity for one in pruner.done] == [{"global_group_id 1": 0.25}, {"global_group_id 1": 0.5}]


def sum_of_embedding_and_linear(framework):
    """Return a network whose embedding, "table", and linear layer, "rows", are added: their channels leave together."""
    if framework.name == "torch":
        import torch
        from torch import nn

        class Sum(nn.Module):
            def __init__(self):
                super().__init__()
                self.table, self.rows, self.classes = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 2)

            def forward(self, ids, x):
                return self.classes(torch.relu(self.table(ids) + self.rows(x)))

        return Sum(), {"ids": torch.tensor([0, 1]), "x": torch.from_numpy(ROWS)}
    import keras

    layers = keras.layers
    ids, x = keras.Input((), dtype="int32", name="ids"), keras.Input((4,), name="x")
    added = layers.Add()([layers.Embedding(5, 4, name="table")(ids), layers.Dense(4, name="rows")(x)])
    model = keras.Model({"ids": ids, "x": x}, layers.Dense(2, name="classes")(layers.ReLU()(added)))
    return model, {"ids": np.array([0, 1]), "x": ROWS}


def test_what_the_config_list_excludes_is_left_alone_in_every_round(framework):
    model, inputs = sum_of_embedding_and_linear(framework)
    config = [{"op_names": ["rows"], "sparsity": 0.5}, {"op_names": ["table"], "exclude": True}]
    pruner = nnc.ScheduledPruner(model, config, inputs, schedule="linear", rounds=2)

    with pytest.raises(
        ConfigError, match="rows can lose channels only together with table, which the config_list does not select or excludes"
    ):
        pruner.compress()
    assert adapter_for(model).masks() == {}
