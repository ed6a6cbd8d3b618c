"""Operations of a plug-in's own: their rules, and the fuzzing of rules, the built-in ones included."""

import numpy as np
import pytest

from nnc.graph import rules
from nnc.graph.propagate import propagate
from nnc.hookspecs import hookimpl
from nnc.testing import check_rule
from tests.core.graphs import Pencil, masked, removed


def swap_halves(node, axes):
    x, y = node.inputs[0], node.outputs[0]
    axes.eq(axes[x][0], axes[y][0])
    two, half = axes.axis(2), axes.axis(x.shape[1] // 2)
    axes.pin(two, "the halves trade places")
    axes.reshape([axes[x][1]], [two, half])
    axes.reshape([axes[y][1]], [two, half])


def pass_zeros(node, values):
    x, y = node.inputs[0], node.outputs[0]
    known = values.along(x, 1)
    values.put(y, {1: np.concatenate(np.split(known, 2)[::-1])})


class Plugin:
    @hookimpl
    def nnc_register_operations(self, register):
        register("unknown", swap_halves, transfer=pass_zeros)


plugin = Plugin()


def swapped(x):
    return np.concatenate(np.split(x, 2, axis=1)[::-1], axis=1)


def network() -> Pencil:
    p = Pencil()
    x = p.node("unknown", p.linear(p.input(2, 3), "first", 6), shape=(2, 6))
    p.output(p.linear(x, "last", 2))
    return p


def test_an_operation_that_nobody_knows_pins():
    assert propagate(network().graph, masked(network(), "first", 1)).plan.groups == ()


def test_a_plugins_rule_lets_channels_through(install):
    install(own="tests.core.test_operations:plugin")

    plan = propagate(network().graph, masked(network(), "first", 1, 4, 5)).plan

    assert removed(plan, "first.weight", 0) == [1, 4]
    assert removed(plan, "last.weight", 1) == [1, 4]


def gate(x):
    return np.split(x, 2, axis=1)[0] * np.split(x, 2, axis=1)[1]


def right_gate(node, axes):
    x, y = node.inputs[0], node.outputs[0]
    axes.eq(axes[x][0], axes[y][0])
    for half in np.split(np.arange(x.shape[1]), 2):
        axes.seg(axes[x][1], axes[y][1], half)


def wrong_gate(node, axes):
    """Forgets that the second half is tied to the output too."""
    x, y = node.inputs[0], node.outputs[0]
    axes.eq(axes[x][0], axes[y][0])
    axes.seg(axes[x][1], axes[y][1], np.arange(y.shape[1]))


def test_fuzzing_passes_right_rules():
    check_rule(right_gate, gate, [(3, 8)])
    check_rule(swap_halves, swapped, [(3, 8)])


def test_fuzzing_finds_a_wrong_rule():
    with pytest.raises(AssertionError, match="without the indices"):
        check_rule(wrong_gate, gate, [(3, 8)])


@pytest.mark.parametrize(
    ("rule", "compute", "shapes", "attrs"),
    [
        (rules.same, np.tanh, [(3, 4, 5)], {}),
        (rules.binary, np.add, [(3, 4, 5), (4, 1)], {}),
        (rules.transpose, lambda x: x.transpose(2, 0, 1), [(3, 4, 5)], {"permutation": (2, 0, 1)}),
        (rules.along, lambda x: np.cumsum(x, axis=1), [(3, 4, 5)], {"axes": (1,)}),
        (rules.concat, lambda a, b: np.concatenate([a, b], axis=1), [(3, 4), (3, 5)], {"axis": 1}),
        (rules.stack, lambda a, b: np.stack([a, b], axis=1), [(3, 4), (3, 4)], {"axis": 1}),
        (rules.select, lambda x: x[:, 1], [(3, 4, 5)], {"axis": 1}),
        (rules.pad, lambda x: np.pad(x, [(0, 0), (1, 1)]), [(3, 4)], {"axes": (1,), "value": 0}),
        (rules.reduce, lambda x: x.mean(axis=1), [(3, 4, 5)], {"axes": (1,), "keepdims": False, "function": "mean"}),
        (rules.along, lambda x: np.sort(x, axis=2), [(3, 4, 5)], {"axes": (2,)}),
    ],
)
def test_the_built_in_rules_commute_with_removal(rule, compute, shapes, attrs):
    check_rule(rule, compute, shapes, attrs)
