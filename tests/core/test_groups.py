"""Groups of channels on networks written down by hand."""

import numpy as np
import pytest

from nnc.graph.groups import Groups
from nnc.graph.propagate import propagate
from tests.core.graphs import Pencil, masked, removed
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


def residual() -> Groups:
    p = Pencil()
    x = p.input(2, 3, 8, 8)
    p.output(p.conv(p.add(p.conv(x, "left", 4), p.conv(x, "right", 4)), "last", 2))
    return Groups(p.graph)


def test_a_grouped_convolution_offers_the_positions_within_its_groups():
    p = Pencil()
    x = p.conv(p.conv(p.input(2, 3, 8, 8), "first", 6), "grouped", 12, groups=2)
    p.output(p.conv(x, "last", 5))

    assert by_layers(Groups(p.graph)) == {("first",): 3, ("grouped",): 6}


def test_whole_groups_of_a_convolution_leave_where_masks_say_so():
    p = Pencil()
    x = p.conv(p.conv(p.input(2, 3, 8, 8), "first", 6, bias=False), "grouped", 12, groups=2, bias=False)
    p.output(p.conv(x, "last", 5))

    plan = propagate(p.graph, {**masked(p, "first", 3, 4, 5, bias=False), **masked(p, "grouped", *range(6, 12), bias=False)}).plan

    assert removed(plan, "first.weight", 0) == [3, 4, 5]
    assert removed(plan, "grouped.weight", 0) == [6, 7, 8, 9, 10, 11]
    assert removed(plan, "grouped.weight", 1) == []


@pytest.mark.parametrize(("combine", "found"), [("sum", [11, 5, 9, -np.inf]), ("mean", [5.5, 2.5, 4.5, -np.inf]), ("max", [10, 3, 6, 7])])
def test_a_group_scores_the_sum_mean_or_largest_of_its_channels(combine, found):
    groups = residual()

    scores = {"left": np.array([1.0, 2, 3, -np.inf]), "right": np.array([10.0, 3, 6, 7])}

    assert groups.scores(groups.shared[0], scores, combine).tolist() == found


def test_a_head_scores_the_mean_of_all_its_rows():
    groups = Groups(attention(heads=3, width=4).graph)
    rows = {name: np.arange(12.0) * weight for name, weight in {"q": 1, "k": 2, "v": 3}.items()}

    # The rows of a head are 0..3, 4..7 and 8..11, on average 1.5, 5.5 and 9.5, and the layers weigh 2 on average.
    assert groups.scores(groups.shared[0], rows, "mean").tolist() == [3, 11, 19]
    assert groups.scores(groups.shared[0], rows, "max").tolist() == [9, 21, 33]


def test_only_what_a_product_of_activations_runs_over_is_a_head():
    assert [shared.heads for shared in Groups(attention(heads=3, width=4).graph).shared] == [True]
    assert [shared.heads for shared in Groups(lenet().graph).shared] == [False, False, False]


def test_layers_that_are_tied_on_request_are_one_group():
    p = Pencil()
    x = p.conv(p.relu(p.conv(p.input(2, 3, 8, 8), "first", 4)), "second", 4)
    p.output(p.conv(p.relu(x), "last", 2, kernel=1))

    assert by_layers(Groups(p.graph)) == {("first",): 4, ("second",): 4}
    assert by_layers(Groups(p.graph, tied=[("first", "second")])) == {("first", "second"): 4}
    assert by_layers(Groups(p.graph, tied=[("first", "absent")])) == {("first",): 4, ("second",): 4}


def test_groups_are_isomorphic_whatever_their_width():
    p = Pencil()
    x = p.batch_norm(p.conv(p.input(2, 3, 14, 14), "one", 4), "norm1")
    x = p.batch_norm(p.conv(p.relu(x), "two", 6), "norm2")
    x = p.relu(p.conv(p.relu(x), "bare", 6))
    x = p.relu(p.conv(p.conv(x, "three", 5), "depthwise", 5, groups=5))
    p.output(p.linear(p.reshape(p.conv(x, "flat", 3), 2, 12), "fc", 5))
    groups = Groups(p.graph)

    shapes = {shared.layers[0]: groups.shapes()[number] for number, shared in enumerate(groups.shared)}

    assert shapes["one"] == shapes["two"]
    assert len(set(shapes.values())) == 4  # without BatchNorm, through a depthwise convolution, flattened to 4 positions each


def chunked() -> Pencil:
    """Eight channels in two halves, as chunk(2) makes them: each has a reader of its own."""
    p = Pencil()
    x = p.relu(p.linear(p.input(2, 3), "first", 8))
    attrs = {"axis": 1, "sizes": (4,), "parts": []}
    for start in (0, 4):
        attrs["parts"].append(p.node("slice", x, shape=(2, 4), index=np.arange(start, start + 4), **attrs))
    left, right = attrs["parts"]
    p.output(p.add(p.linear(left, "left", 5), p.linear(right, "right", 5)))
    return p


def test_the_halves_of_a_chunk_stay_equal_and_the_best_of_what_leaves_stays():
    groups = Groups(chunked().graph)
    assert [len(shared.classes) for shared in groups.shared] == [4, 4]
    scores = {0: np.array([1.0, 3, 2, 4]), 1: np.array([9.0, 8, 7, 6])}

    def evened(left, right):
        found = groups.evened({0: np.array(left, bool), 1: np.array(right, bool)}, scores)
        return [found[number].astype(int).tolist() for number in (0, 1)]

    assert evened([1, 1, 1, 0], [0, 0, 0, 1]) == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert evened([1, 1, 0, 0], [0, 0, 0, 0]) == [[0, 0, 0, 0], [0, 0, 0, 0]]
    assert evened([1, 0, 1, 0], [0, 0, 1, 1]) == [[1, 0, 1, 0], [0, 0, 1, 1]]


def test_what_a_table_that_no_layer_holds_is_added_to_stays_and_the_table_is_named():
    p = Pencil()
    x = p.add(p.linear(p.input(2, 5), "first", 4), p.parameter("table", 2, 4))
    p.output(p.linear(x, "last", 2))
    held = {"first.weight", "first.bias", "last.weight", "last.bias"}

    assert by_layers(Groups(p.graph)) == {("first",): 4}
    assert by_layers(Groups(p.graph, maskable=held)) == {}
    reasons = {reason for layer, _, reason in Groups(p.graph, maskable=held).pinned() if layer == "first"}
    assert reasons == {"table is added to it, and belongs to no layer that could be masked"}


def test_a_table_that_is_added_to_the_scores_of_heads_keeps_none_and_is_cut_with_them():
    p = Pencil()
    x = p.input(2, 3, 5)
    q, k, v = (p.transpose(p.reshape(p.linear(x, name, 12), 2, 3, 3, 4), 0, 2, 1, 3) for name in "qkv")
    scores = p.softmax(p.add(p.matmul(q, p.transpose(k, 0, 1, 3, 2)), p.parameter("table", 1, 3, 3, 3)))
    p.output(p.linear(p.reshape(p.transpose(p.matmul(scores, v), 0, 2, 1, 3), 2, 3, 12), "o", 5))

    groups = Groups(p.graph, maskable={f"{layer}.{name}" for layer in "qkvo" for name in ("weight", "bias")})

    assert by_layers(groups) == {("q", "k", "v"): 3}  # where the values are zero, no score matters
    plan = propagate(p.graph, masked(p, "q", 4, 5, 6, 7) | masked(p, "k", 4, 5, 6, 7) | masked(p, "v", 4, 5, 6, 7)).plan
    assert removed(plan, "table", 1) == [1]


def test_channels_that_a_sigmoid_makes_a_half_under_zero_padding_are_not_offered():
    pencil = Pencil()
    x = pencil.sigmoid(pencil.conv(pencil.input(1, 3, 6, 6), "first", 4))
    pencil.output(pencil.conv(x, "second", 2, padded=True))

    groups = Groups(pencil.graph)

    assert groups.shared == ()
    assert ("first", 4, "second reads a constant from it that is not zero, and pads with zeros") in list(groups.pinned())


def test_channels_that_a_sigmoid_makes_a_half_are_offered_where_a_bias_takes_that():
    pencil = Pencil()
    x = pencil.sigmoid(pencil.conv(pencil.input(1, 3, 6, 6), "first", 4))
    pencil.output(pencil.conv(x, "second", 2))

    assert [shared.layers for shared in Groups(pencil.graph).shared] == [("first",)]


def test_a_batch_norm_without_scale_has_its_mean_masked():
    pencil = Pencil()
    x = pencil.conv(pencil.input(1, 3, 6, 6), "first", 4)
    vectors = [pencil.parameter(f"norm.{part}", 4) for part in ("bias", "running_mean", "running_var")]
    x = pencil.node("batch_norm", x, None, *vectors, shape=x.shape, layer="norm", channel_axis=1, epsilon=1e-5)
    pencil.output(pencil.conv(x, "second", 2, padded=True))

    groups = Groups(pencil.graph)
    kept = groups.kept({0: np.array([True, False, False, False])})

    assert sorted(kept) == ["first.bias", "first.weight", "norm.bias", "norm.running_mean"]


def test_a_layer_whose_result_is_not_used_is_offered_nothing_and_needs_nothing():
    p = Pencil()
    x = p.linear(p.input(2, 5), "first", 6)
    p.linear(p.linear(x, "unused", 4), "unused too", 3)
    p.output(p.linear(p.split(x, 3, 3)[0], "last", 2))

    assert by_layers(Groups(p.graph)) == {("first",): 3}  # what only unused layers read is summed by nobody


def test_a_result_that_lasts_is_used():
    p = Pencil()
    x = p.linear(p.input(2, 5), "first", 6)
    p.output(p.linear(p.split(x, 3, 3)[0], "last", 2))
    p.graph.lasting.append(p.linear(x, "state", 4))

    assert [len(shared.classes) for shared in Groups(p.graph).shared] == [3, 3]
