"""Groups of channels on networks written down by hand."""

import numpy as np

from nnc.graph.groups import Groups
from tests.core.graphs import Pencil
from tests.core.test_propagate import attention, lenet


def by_layers(groups: Groups) -> dict[tuple[str, ...], int]:
    return {shared.layers: len(shared.classes) for shared in groups.shared}


def test_a_chain_has_one_group_per_layer_and_leaves_the_output_alone():
    assert by_layers(Groups(lenet().graph)) == {("conv1",): 4, ("conv2",): 6, ("fc1",): 8}


def test_both_branches_of_a_residual_add_are_one_group():
    p = Pencil()
    x = p.input(2, 3, 8, 8)
    p.output(p.conv(p.add(p.batch_norm(p.conv(x, "left", 4), "norm"), p.conv(x, "right", 4)), "last", 2))

    groups = Groups(p.graph)

    assert by_layers(groups) == {("left", "right"): 4}
    scores = groups.scores(groups.shared[0], {"left": np.array([1.0, 2, 3, 4]), "right": np.array([10.0, 20, 30, 40])})
    assert scores.tolist() == [11, 22, 33, 44]
    kept = groups.kept({0: np.array([True, False, False, False])})
    assert set(kept) == {"left.weight", "left.bias", "norm.weight", "norm.bias", "right.weight", "right.bias"}
    assert kept["norm.bias"][0].tolist() == [False, True, True, True]


def test_heads_are_the_granules_of_an_attention():
    groups = Groups(attention(heads=3, width=4).graph)

    assert by_layers(groups) == {("q", "k", "v"): 3}
    flat = np.repeat([1.0, 2.0, 3.0], 4)
    assert groups.scores(groups.shared[0], dict.fromkeys("qkv", flat)).tolist() == [12, 24, 36]
    assert groups.weights(groups.shared[0]) == 3 * 4 * 5


def test_a_depthwise_convolution_chooses_with_its_input():
    p = Pencil()
    x = p.conv(p.conv(p.input(2, 3, 8, 8), "first", 4), "depthwise", 4, groups=4)
    p.output(p.conv(x, "last", 2, kernel=1))

    assert by_layers(Groups(p.graph)) == {("first", "depthwise"): 4}
