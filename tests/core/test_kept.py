"""What stays although it is masked: the report names who disagrees, and parts of heads."""

import numpy as np

from nnc.graph.propagate import propagate
from tests.core.graphs import Pencil, masked
from tests.core.test_propagate import attention


def residual():
    p = Pencil()
    x = p.input(2, 3, 8, 8)
    sums = p.add(p.add(p.conv(x, "left", 4), p.conv(x, "right", 4)), p.conv(x, "third", 4))
    p.output(p.conv(sums, "last", 2))
    return p


def lines(p, masks):
    return [(kept.where, kept.count, kept.reason) for kept in propagate(p.graph, masks).plan.kept]


def test_layers_that_disagree_are_named():
    p = residual()

    found = lines(p, {**masked(p, "left", 0, 1, 2), **masked(p, "right", 1, 2)})

    assert ("left.weight axis 0", 1, "left masks it, right, third do not; last still reads it") in found
    assert ("left.weight axis 0", 2, "left, right mask it, third does not; last still reads it") in found
    assert ("right.weight axis 0", 2, "left, right mask it, third does not; last still reads it") in found
    assert len(found) == 3


def test_layers_that_agree_have_the_reason_of_the_reader():
    p = Pencil()
    x = p.conv(p.input(2, 3, 8, 8), "first", 4)
    p.output(p.conv(p.sigmoid(x), "second", 2, padded=True))

    (found,) = lines(p, masked(p, "first", 1))

    assert found == ("first.weight axis 0", 1, "second reads a constant from it that is not zero, and pads with zeros")


def test_a_pin_is_named_even_where_layers_disagree():
    p = Pencil()
    x = p.input(2, 8)
    p.output(p.add(p.linear(x, "left", 4), p.linear(x, "right", 4)))

    assert lines(p, masked(p, "left", 1)) == [("left.weight axis 0", 1, "an output of the model")]


def test_part_of_a_head_has_a_line_of_its_own():
    p = attention(heads=3, width=4)

    found = lines(p, masked(p, "v", 4, 5, 6))

    assert found == [("v.weight axis 0", 3, "it is a part of one of 3 blocks of 4, which leave whole")]


def test_a_whole_head_beside_a_part_of_one_leaves_and_the_part_is_named():
    p = attention(heads=3, width=4)
    masks = masked(p, "v", 0, 1, 2, 3, 5)

    plan = propagate(p.graph, masks).plan

    assert plan.kept_indices({m.tensor: p.numbers[m.tensor].shape for g in plan.groups for m in g.members})["v.weight"][0].tolist() == [
        4, 5, 6, 7, 8, 9, 10, 11
    ]  # fmt: skip
    assert [(kept.where, kept.count) for kept in plan.kept] == [("v.weight axis 0", 1)]


def test_thousands_of_channels_have_one_line_a_reason():
    p = Pencil()
    x = p.input(2, 3)
    p.output(p.linear(p.add(p.linear(x, "left", 4000), p.linear(x, "right", 4000)), "last", 2))

    found = lines(p, masked(p, "left", *np.arange(0, 4000, 2)))

    assert found == [("left.weight axis 0", 2000, "left masks it, right does not; last still reads it")]
