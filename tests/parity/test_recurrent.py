"""The same recurrent network in torch, Keras and ONNX loses the same units, although each stores the gates in an order of its own."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import nnc
from nnc.registry import adapter_for
from nnc_pruning import L1NormPruner

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
onnx = pytest.importorskip("onnx")

CELLS = ("LSTM", "GRU", "RNN")
#: Where each stores the gates that torch stores in the order 0, 1, ...: input, forget, candidate, output; reset, update, candidate.
KERAS = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2), "RNN": (0,)}
ONNX = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
SIZES = {"before": (6, 5), "head": (3, 8)}
TIME, BATCH = 4, 2


@cache
def numbers(kind):
    """Return the parameters by torch's names."""
    random = np.random.default_rng(0)
    rows = 8 * len(KERAS[kind])
    shapes = {f"{name}.weight": shape for name, shape in SIZES.items()} | {f"{name}.bias": shape[:1] for name, shape in SIZES.items()}
    shapes |= {"cell.weight_ih_l0": (rows, 6), "cell.weight_hh_l0": (rows, 8), "cell.bias_ih_l0": (rows,), "cell.bias_hh_l0": (rows,)}
    return {name: random.uniform(-0.5, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def sequences():
    return np.random.default_rng(1).standard_normal((BATCH, TIME, 5)).astype(np.float32)


def reordered(rows, order):
    """Return what lies gate behind gate in another order of the gates."""
    gates = rows.reshape(len(order), 8, *rows.shape[1:])
    return np.concatenate([gates[gate] for gate in order])


class Torch(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.before, self.head = torch.nn.Linear(5, 6), torch.nn.Linear(8, 3)
        self.cell = getattr(torch.nn, kind)(6, 8, batch_first=True)

    def forward(self, x):
        return self.head(self.cell(torch.relu(self.before(x)))[0])


def torch_model(kind):
    model = Torch(kind)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in numbers(kind).items()})
    return model.eval(), torch.from_numpy(sequences())


def keras_model(kind):
    given, number = keras.Input((TIME, 5)), numbers(kind)
    options = {"reset_after": True} if kind == "GRU" else {}
    cell = getattr(keras.layers, "SimpleRNN" if kind == "RNN" else kind)(8, return_sequences=True, name="cell", **options)
    x = cell(keras.layers.Dense(6, activation="relu", name="before")(given))
    model = keras.Model(given, keras.layers.Dense(3, name="head")(x))
    for name in SIZES:
        model.get_layer(name).set_weights([number[f"{name}.weight"].T, number[f"{name}.bias"]])
    parts = {name: reordered(number[f"cell.{name}_l0"], KERAS[kind]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    biases = np.stack([parts["bias_ih"], parts["bias_hh"]]) if kind == "GRU" else parts["bias_ih"] + parts["bias_hh"]
    cell.set_weights([parts["weight_ih"].T, parts["weight_hh"].T, biases])
    return model, sequences()


def onnx_model(kind):
    helper, number = onnx.helper, numbers(kind)
    parts = {name: reordered(number[f"cell.{name}_l0"], ONNX[kind])[None] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    stored = {name: array for name, array in number.items() if not name.startswith("cell")}
    stored |= {"cell.weight": parts["weight_ih"], "cell.recurrent_weight": parts["weight_hh"]}
    stored["cell.bias"] = np.concatenate([parts["bias_ih"], parts["bias_hh"]], axis=1)
    for name in SIZES:
        stored[f"{name}.weight"] = np.ascontiguousarray(stored[f"{name}.weight"].T)
    after_reset = {"linear_before_reset": 1} if kind == "GRU" else {}
    nodes = [
        helper.make_node("MatMul", ["x", "before.weight"], ["product"], name="before"),
        helper.make_node("Add", ["product", "before.bias"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["active"]),
        helper.make_node("Transpose", ["active"], ["steps"], perm=[1, 0, 2]),
        helper.make_node(kind, ["steps", "cell.weight", "cell.recurrent_weight", "cell.bias"], ["states"], hidden_size=8, **after_reset),
        helper.make_node("Squeeze", ["states", "one"], ["seen"]),
        helper.make_node("Transpose", ["seen"], ["back"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["back", "head.weight"], ["last"], name="head"),
        helper.make_node("Add", ["last", "head.bias"], ["y"]),
    ]
    arrays = [onnx.numpy_helper.from_array(array, name) for name, array in stored.items()]
    arrays.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in (("x", (2, 4, 5)), ("y", (2, 4, 3)))]
    graph = helper.make_graph(nodes, "recurrent", values[:1], values[1:], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), sequences()


BUILDERS = {"torch": torch_model, "keras": keras_model, "onnx": onnx_model}


@cache
def found(kind, framework):
    """Return the groups, the units and inputs that stay, and the outputs before and after."""
    model, x = BUILDERS[framework](kind)
    _, masks = L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=x).compress()
    speedup = nnc.ModelSpeedup(model, x, masks)
    small = speedup.speedup_model()
    cut = {
        path: np.ones(size, bool) for path, size in ((("head.weight", 1), 8), (("cell.recurrent_weight", 1), 8), (("cell.weight", 1), 6))
    }
    for path, keep in cut.items():
        for member in speedup.plan.axes()[path]:
            member.clear(keep)
    groups = sorted((sorted(group.layers), group.granules, group.parameters) for group in nnc.prunability(model, x).groups)
    return groups, {path: keep.tolist() for path, keep in cut.items()}, adapter_for(small).run(x)[0], speedup


@pytest.mark.parametrize("framework", ["keras", "onnx"])
@pytest.mark.parametrize("kind", CELLS)
def test_the_same_units_leave(kind, framework):
    groups, kept, outputs, _ = found(kind, framework)
    expected = found(kind, "torch")

    assert groups == expected[0]
    assert kept == expected[1]
    assert np.abs(outputs - expected[2]).max() <= 1e-5 * np.abs(expected[2]).max()


@pytest.mark.parametrize("framework", BUILDERS)
@pytest.mark.parametrize("kind", CELLS)
def test_half_of_the_units_leave_exactly(kind, framework):
    _, kept, _, speedup = found(kind, framework)

    assert sum(kept["head.weight", 1]) == sum(kept["cell.recurrent_weight", 1]) == 4
    assert speedup.difference <= 1e-5
    assert speedup.plan.kept == ()
