"""Units of a recurrent layer: a unit leaves where it is zero at every step, and its constants are folded where that is exact."""

import numpy as np
import pytest

from nnc.graph.groups import Groups
from nnc.graph.macs import macs
from nnc.graph.propagate import propagate
from nnc.graph.recurrent import sigmoid
from tests.core.graphs import Pencil

ORDER = {"lstm": ("input", "forget", "candidate", "output"), "gru": ("reset", "update", "candidate"), "rnn": ("candidate",)}
UNITS = 4


def network(cell, pencil=None, state=None, candidate=np.tanh, bias=True):
    """linear up -> recurrent cell -> linear down, on sequences of 3 steps."""
    pencil = pencil or Pencil()
    x = pencil.linear(pencil.input(2, 3, 5), "up", 6)
    rows = len(ORDER[cell]) * UNITS
    weights = [pencil.parameter("cell.weight", rows, 6), pencil.parameter("cell.recurrent_weight", rows, UNITS)]
    biases = [pencil.parameter(f"cell.{name}", rows) if bias else None for name in ("bias", "recurrent_bias")]
    y = pencil.node(
        "recurrent",
        pencil.relu(x),
        weights[0],
        biases[0],
        state,
        None,
        weights[1],
        biases[1],
        shape=(2, 3, UNITS),
        layer="cell",
        cell=cell,
        order=ORDER[cell],
        activations=(candidate,) if cell == "rnn" else (sigmoid, candidate, np.tanh),
    )
    pencil.output(pencil.linear(y, "down", 2))
    return pencil.graph


def masked(cell, unit, but=()):
    """Return masks over every row of a unit, except in the parameters of `but`, and except the gates of `but`."""
    gates = [gate not in but for gate in ORDER[cell]]
    gone = np.zeros((len(gates), UNITS), bool)
    gone[gates, unit] = True
    keep = ~gone.reshape(-1)
    wide = {"weight": np.repeat(keep[:, None], 6, 1), "recurrent_weight": np.repeat(keep[:, None], UNITS, 1)}
    both = wide | {"bias": keep, "recurrent_bias": keep}
    return {"cell": {name: mask for name, mask in both.items() if name not in but}}


@pytest.mark.parametrize("cell", ORDER)
def test_a_masked_unit_leaves_every_gate_the_state_and_the_reader(cell):
    found = propagate(network(cell), masked(cell, 1))

    gates = len(ORDER[cell])
    members = {(m.tensor, m.axis): (m.outer, m.size, m.removed) for group in found.plan.groups for m in group.members}
    assert members == {
        ("cell.weight", 0): (gates, UNITS, (1,)),
        ("cell.bias", 0): (gates, UNITS, (1,)),
        ("cell.recurrent_weight", 0): (gates, UNITS, (1,)),
        ("cell.recurrent_bias", 0): (gates, UNITS, (1,)),
        ("cell.recurrent_weight", 1): (1, UNITS, (1,)),
        ("down.weight", 1): (1, UNITS, (1,)),
    }
    assert found.plan.kept == ()


def test_a_masked_candidate_is_enough_whatever_the_gates_are():
    found = propagate(network("lstm"), masked("lstm", 2, but=("input", "forget", "output")))

    assert [group.members[0].removed for group in found.plan.groups] == [(2,)]


@pytest.mark.parametrize("cell", ORDER)
def test_a_unit_whose_bias_lives_changes_from_step_to_step_and_stays(cell):
    found = propagate(network(cell), masked(cell, 1, but=("bias",)))

    assert found.plan.groups == ()


def test_a_unit_that_starts_from_a_given_state_stays():
    pencil = Pencil()
    graph = network("gru", pencil, state=pencil.input(2, UNITS))

    assert propagate(graph, masked("gru", 1)).plan.groups == ()


def test_an_activation_that_is_not_zero_at_zero_keeps_the_unit():
    graph = network("gru", candidate=sigmoid)

    assert propagate(graph, masked("gru", 1)).plan.groups == ()


def test_a_constant_input_goes_into_the_bias_of_the_gates():
    graph = network("lstm")
    rows = np.ones((6, 5), bool)
    rows[0] = False

    found = propagate(graph, {"up": {"weight": rows}})

    parameters = graph.parameters()
    constant = max(0.0, parameters["up.bias"].data()[0])
    assert np.allclose(found.folds["cell.bias"], parameters["cell.weight"].data()[:, 0] * constant)


def test_a_constant_input_without_a_bias_to_take_it_stays():
    rows = np.ones((6, 5), bool)
    rows[0] = False

    found = propagate(network("lstm", bias=False), {"up": {"weight": rows}})

    assert [kept.reason for kept in found.plan.kept] == ["cell reads a constant from it and has no bias to take it"]


def test_a_pruner_is_offered_units_of_all_gates():
    shared = {group.layers: group for group in Groups(network("lstm")).shared}

    assert len(shared["cell",].classes) == UNITS
    assert shared["cell",].rows_of_one == 4


def test_each_step_spends_both_weights_once():
    # up: 2 sequences x 3 steps x 6 x 5; cell: 6 x 16 rows x (6 inputs + 4 units); down: 6 x 2 x 4
    assert macs(network("lstm")) == 180 + 960 + 48
