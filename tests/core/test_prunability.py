"""What could be removed, told before any work: on both frameworks, and on graphs worked out by hand."""

import pytest

import nnc
from nnc.graph.groups import Groups
from nnc.graph.ir import Source
from nnc.graph.macs import macs
from tests.core.graphs import Pencil
from tests.core.test_propagate import lenet
from tests.frameworks import images


def test_the_smallest_network_has_one_channel_of_each_group():
    p = lenet()
    smallest = Groups(p.graph).smallest()
    shapes = {tensor.name: smallest[tensor] for tensor in p.graph.parameters().values()}

    assert shapes["conv1.weight"] == (1, 1, 5, 5)
    assert shapes["conv2.weight"] == (1, 1, 5, 5)
    assert shapes["fc1.weight"] == (1, 16)
    assert shapes["fc2.weight"] == (10, 1)


def test_macs_follow_the_smaller_shapes():
    p = lenet()

    # conv1: 2 images x 8 x 8 x 25; conv2: 2 x 4 x 4 x 25; fc1: 2 x 16; fc2: 2 x 10
    assert macs(p.graph, Groups(p.graph).smallest()) == 3200 + 800 + 32 + 20


def test_what_is_pinned_names_the_operation_and_the_line():
    p = Pencil()
    x = p.node("unknown", p.linear(p.input(2, 3), "first", 4), shape=(2, 4), source=Source("net.py", 23))
    p.output(p.linear(x, "last", 2))

    pinned = list(Groups(p.graph).pinned())

    assert pinned[0] == ("first", 4, "unknown (net.py:23) has no rule")
    assert pinned[1] == ("last", 2, "an output of the model")


def test_prunability_of_lenet(framework):
    found = nnc.prunability(framework.build("lenet"), framework.inputs(images()))

    assert [(group.layers, group.granules) for group in found.groups] == [(("conv1",), 20), (("conv2",), 50), (("fc1",), 500)]
    assert found.parameters == 431_080
    # What is left: conv1 1x1x25+1, conv2 1x1x25+1, fc1 1x16+1, fc2 10x1+10.
    assert found.removable_parameters == pytest.approx(1 - (26 + 26 + 17 + 20) / 431_080)
    assert [(pinned.layer, pinned.reason) for pinned in found.pinned] == [("fc2", "an output of the model")]
    assert "431,080 parameters" in str(found)
