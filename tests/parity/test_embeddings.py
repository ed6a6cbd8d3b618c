"""The width of an embedding is the output channels of its layer, on every framework: a pruner chooses columns of the table."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import nnc
from nnc.errors import LeftAlone
from nnc.registry import adapter_for
from nnc_pruning import (
    FPGMPruner,
    L1NormPruner,
    L2NormPruner,
    LevelPruner,
    MovementPruner,
    RandomPruner,
    SparseGPTPruner,
    TaylorFOPruner,
    WandaPruner,
)

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")

#: (rows, width): the columns sum to 18, 6, 24 and 12, so the second and the fourth are worth least.
TABLE = np.outer([1, -2, 3, -1, 0.5, -1.5], [2, 2 / 3, 8 / 3, 4 / 3]).astype(np.float32)
IDS = np.array([[0, 1, 2], [3, 4, 5]])
SELECTED = [{"op_types": ["Embedding"], "sparsity": 0.5}]


def numbers(residual: bool) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    found = {"embed": TABLE, "head": random.normal(size=(3, 4))}
    if residual:
        found["branch"] = random.normal(size=(4, 4)) * np.array([[1], [0.1], [0.1], [1]])
    return {name: array.astype(np.float32) for name, array in found.items()}


class Torch(torch.nn.Module):
    def __init__(self, numbers):
        super().__init__()
        self.embed = torch.nn.Embedding(6, 4)
        self.branch = torch.nn.Linear(4, 4, bias=False) if "branch" in numbers else None
        self.head = torch.nn.Linear(4, 3, bias=False)
        for name, array in numbers.items():
            getattr(self, name).weight.data = torch.tensor(array)

    def forward(self, ids):
        x = self.embed(ids)
        return self.head(x if self.branch is None else x + self.branch(x))


def with_torch(numbers):
    return Torch(numbers), torch.tensor(IDS)


def with_keras(numbers):
    given = keras.Input((3,), dtype="int32")
    x = keras.layers.Embedding(6, 4, name="embed")(given)
    if "branch" in numbers:
        x = x + keras.layers.Dense(4, use_bias=False, name="branch")(x)
    model = keras.Model(given, keras.layers.Dense(3, use_bias=False, name="head")(x))
    for name, array in numbers.items():
        model.get_layer(name).set_weights([array if name == "embed" else array.T])
    return model, IDS.astype(np.int32)


def with_onnx(numbers):
    nodes = [helper.make_node("Gather", ["embed.weight", "ids"], ["x"], name="/embed/Gather")]
    if "branch" in numbers:
        nodes += [helper.make_node("MatMul", ["x", "branch.weight"], ["b"]), helper.make_node("Add", ["x", "b"], ["sum"])]
    nodes.append(helper.make_node("MatMul", ["sum" if "branch" in numbers else "x", "head.weight"], ["y"]))
    stored = [numpy_helper.from_array(array if name == "embed" else array.T.copy(), f"{name}.weight") for name, array in numbers.items()]
    given, result = helper.make_tensor_value_info("ids", TensorProto.INT64, IDS.shape), helper.make_tensor_value_info("y", 1, (2, 3, 3))
    graph = helper.make_graph(nodes, "lookup", [given], [result], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), {"ids": IDS}


@pytest.fixture(params=[with_torch, with_keras, with_onnx], ids=["torch", "keras", "onnx"])
def build(request):
    return lambda residual=False: request.param(numbers(residual))


def columns_gone(masks):
    return np.flatnonzero(~masks["embed"]["weight"].any(axis=0)).tolist()


def shape_of(model, name):
    return next(tuple(layer.parameters["weight"]) for layer in adapter_for(model).layers() if layer.name == name)


@pytest.mark.parametrize("pruner", [L1NormPruner, L2NormPruner, FPGMPruner])
@pytest.mark.parametrize("config", [SELECTED, [{"sparsity": 0.5}]], ids=["selected", "plain"])
def test_the_columns_that_score_least_leave_with_the_inputs_of_their_reader(build, pruner, config):
    model, ids = build()

    _, masks = pruner(model, config, example_inputs=ids).compress()
    speedup = nnc.ModelSpeedup(model, ids, masks)
    small = speedup.speedup_model()

    # Distances to the others: 4, 8/3, 8/3 and 4 times the norm of a row's factors, in the order of the columns' sizes.
    assert columns_gone(masks) == ([0, 3] if pruner is FPGMPruner else [1, 3])
    assert (shape_of(small, "embed"), shape_of(small, "head")) == ((6, 2), (3, 2))
    assert speedup.difference <= 1e-6


def test_without_inputs_an_embedding_chooses_its_columns_alone(build):
    _, masks = L1NormPruner(build()[0], SELECTED).compress()

    assert columns_gone(masks) == [1, 3]


def test_the_lots_of_columns_are_the_same_everywhere(build):
    model, ids = build()
    reference, others = with_torch(numbers(residual=False))

    drawn = RandomPruner(model, SELECTED, example_inputs=ids, seed=2).propose()

    assert columns_gone(drawn) == columns_gone(RandomPruner(reference, SELECTED, example_inputs=others, seed=2).propose())


def test_single_numbers_of_a_table_are_masked_where_they_lie(build):
    _, masks = LevelPruner(build()[0], SELECTED).compress()

    smallest = np.argsort(np.abs(TABLE), axis=None, kind="stable")[:12]
    assert np.flatnonzero(~masks["embed"]["weight"]).tolist() == sorted(smallest.tolist())


def test_columns_and_the_rows_that_are_added_to_them_score_together(build):
    # By itself the table would lose 1 and 3; the branch's rows 1 and 2 are the small ones, and count more than it.
    model, ids = build(residual=True)
    adapter = adapter_for(model)
    adapter.load_tensors({**adapter.tensors(), **{name: a * 0.01 for name, a in adapter.tensors().items() if "embed" in name}})

    _, masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=ids).compress()

    assert columns_gone(masks) == np.flatnonzero(~masks["branch"]["weight"].any(axis=1)).tolist() == [1, 2]


def test_an_embedding_that_is_not_selected_follows_the_layers_that_are(build):
    model, ids = build(residual=True)

    _, masks = L1NormPruner(model, [{"op_types": ["Linear"], "sparsity": 0.5}], example_inputs=ids).compress()

    assert columns_gone(masks) == [1, 2]


@pytest.mark.parametrize("spare", [{"op_types": ["Embedding"], "exclude": True}, {"sparsity": 0.5, "exclude_op_types": ["Embedding"]}])
def test_an_embedding_that_is_excluded_keeps_its_width(build, spare):
    model, ids = build(residual=True)

    with pytest.raises(nnc.ConfigError, match=r"branch can lose channels only together with embed, .* excludes"):
        L1NormPruner(model, [{"op_types": ["Linear"], "sparsity": 0.5}, spare], example_inputs=ids).propose()


def test_what_embeddings_write_beside_others_needs_these_too(build):
    model, ids = build(residual=True)

    with pytest.raises(nnc.ConfigError, match="embed can lose channels only together with branch"):
        L1NormPruner(model, SELECTED, example_inputs=ids).propose()


def test_the_width_under_a_layer_norm_is_pinned_and_says_so():
    model = torch.nn.Sequential(torch.nn.Embedding(6, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 3))

    with pytest.raises(nnc.ConfigError, match=r"nothing of 0 can leave: .* takes a mean over it"):
        L1NormPruner(model, SELECTED, example_inputs=torch.tensor(IDS)).propose()


def test_a_tied_table_leaves_with_the_layers_that_write_its_width():
    model = Torch(numbers(residual=True))
    model.head = torch.nn.Linear(4, 6, bias=False)
    model.head.weight = model.embed.weight

    with pytest.warns(LeftAlone, match="nothing of embed can leave: embed.weight is read as another layer's weight"):
        masks = L1NormPruner(
            model, [{"sparsity": 0.25}, {"op_types": ["Embedding"], "sparsity": 0.5}], example_inputs=torch.tensor(IDS)
        ).propose()
    small = nnc.ModelSpeedup(model, torch.tensor(IDS), masks).speedup_model()

    assert small.head.weight is small.embed.weight
    assert small.head.weight.shape == (6, 3)


@pytest.mark.parametrize("build", [with_torch, with_keras], ids=["torch", "keras"])
def test_taylor_scores_the_columns_by_their_gradients(build):
    # The loss is the sum of the outputs: a column's gradient at each of the six ids, each seen once, is the sum of the head's column.
    found = numbers(residual=False)
    model, ids = build(found)
    data = [(ids, np.zeros((2, 3, 3), np.float32))]
    trainer = nnc.Trainer(data=data, loss=lambda y, _: y.sum() if hasattr(y, "sum") else keras.ops.sum(y))

    masks = TaylorFOPruner(model, SELECTED, example_inputs=ids, trainer=trainer).propose()

    worth = (TABLE**2).sum(axis=0) * found["head"].sum(axis=0) ** 2
    assert columns_gone(masks) == sorted(np.argsort(worth)[:2].tolist())


@pytest.mark.parametrize("selector", [{"op_types": ["Embedding"]}, {"op_names": ["embed"]}], ids=["type", "name"])
@pytest.mark.parametrize(
    ("pruner", "treated"),
    [
        (WandaPruner, "linear layers"),
        (SparseGPTPruner, "linear layers"),
        (MovementPruner, "layers whose whole weight takes part in every step"),
    ],
)
def test_a_pruner_that_does_not_work_on_tables_says_on_what_it_does(build, pruner, treated, selector):
    model, ids = build()

    with pytest.raises(
        nnc.ConfigError, match=rf"'{pruner.name}' does not work on \(it works on {treated}.*, here Linear\); .*another algorithm"
    ):
        pruner(model, [{**selector, "sparsity": 0.5}], example_inputs=ids)


@pytest.mark.parametrize("order", [1, -1], ids=["linear_first", "tables_first"])
@pytest.mark.parametrize("build", [with_torch, with_keras], ids=["torch", "keras"])
def test_one_list_prunes_tables_by_one_algorithm_and_linear_layers_by_another_that_knows_no_tables(build, order):
    model, ids = build(numbers(residual=False))
    config = [{"algorithm": "wanda", "op_types": ["Linear"], "sparsity": 0.5}, {"algorithm": "l1_norm", **SELECTED[0]}]
    trainer = nnc.Trainer(data=[(ids, np.zeros((2, 3, 3), np.float32))], loss=None)

    masks = nnc.compress(model, config[::order], example_inputs=ids, trainer=trainer).masks

    assert columns_gone(masks) == [1, 3]
    assert masks["head"]["weight"].sum(axis=1).tolist() == [2, 2, 2]


def test_the_file_is_as_the_checker_wants_it():
    model, ids = with_onnx(numbers(residual=False))
    _, masks = L1NormPruner(model, SELECTED, example_inputs=ids).compress()

    onnx.checker.check_model(nnc.ModelSpeedup(model, ids, masks).speedup_model())
