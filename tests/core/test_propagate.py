"""Networks written down as nodes, with what must leave worked out by hand."""

import numpy as np

from nnc.graph.plan import Plan
from nnc.graph.propagate import propagate
from tests.core.graphs import Pencil, masked, removed


def lenet() -> Pencil:
    p = Pencil()
    x = p.relu(p.conv(p.input(2, 1, 12, 12), "conv1", 4, kernel=5))
    x = p.relu(p.conv(x, "conv2", 6, kernel=5))
    x = p.reshape(x, 2, 6 * 4 * 4)
    p.output(p.linear(p.relu(p.linear(x, "fc1", 8)), "fc2", 10))
    return p


def test_a_masked_channel_leaves_its_layer_and_the_one_that_reads_it():
    plan = propagate(lenet().graph, masked(lenet(), "conv1", 1, 3)).plan

    assert removed(plan, "conv1.weight", 0) == [1, 3]
    assert removed(plan, "conv1.bias", 0) == [1, 3]
    assert removed(plan, "conv2.weight", 1) == [1, 3]
    assert len(plan.groups) == 1


def test_a_flattened_channel_takes_all_of_its_positions():
    found = propagate(lenet().graph, masked(lenet(), "conv2", 5))

    assert removed(found.plan, "fc1.weight", 1) == list(range(80, 96))
    assert found.plan.reshapes[0].old == (2, 96)
    assert found.plan.reshapes[0].new == (2, 80)


def test_a_channels_last_flatten_takes_every_nth_position():
    p = Pencil()
    x = p.conv(p.input(2, 4, 4, 1), "conv", 3, kernel=3, last=True)
    p.output(p.linear(p.reshape(x, 2, 12), "fc", 5))

    assert removed(propagate(p.graph, masked(p, "conv", 1)).plan, "fc.weight", 1) == [1, 4, 7, 10]


def test_the_models_output_never_shrinks():
    p = lenet()

    plan = propagate(p.graph, masked(p, "fc2", 0)).plan

    assert plan.groups == ()
    assert plan.kept[0].reason == "an output of the model"


def test_a_residual_add_keeps_a_channel_that_either_branch_needs():
    p = Pencil()
    x = p.input(2, 3, 8, 8)
    left, right = p.conv(x, "left", 4), p.conv(x, "right", 4)
    p.output(p.mean(p.conv(p.add(left, right), "last", 2), 2, 3))
    masks = masked(p, "left", 0, 1) | masked(p, "right", 1, 2)

    plan = propagate(p.graph, masks).plan

    assert removed(plan, "last.weight", 1) == [1]
    assert removed(plan, "left.weight", 0) == removed(plan, "right.weight", 0) == [1]
    assert any(kept.where == "left.weight axis 0" and "last still reads it" in kept.reason for kept in plan.kept)


def test_a_concat_shifts_the_second_branch():
    p = Pencil()
    x = p.input(2, 3, 8, 8)
    joined = p.concat(p.conv(x, "left", 4), p.conv(x, "right", 5))
    p.output(p.conv(joined, "last", 2))

    plan = propagate(p.graph, masked(p, "left", 3) | masked(p, "right", 0, 4)).plan

    assert removed(plan, "last.weight", 1) == [3, 4, 8]


def test_a_depthwise_convolution_follows_its_input():
    p = Pencil()
    x = p.conv(p.input(2, 3, 8, 8), "first", 4)
    x = p.conv(x, "depthwise", 4, groups=4, padded=True)
    p.output(p.conv(x, "last", 2, kernel=1))
    masks = masked(p, "first", 2) | masked(p, "depthwise", 2)

    plan = propagate(p.graph, masks).plan

    assert removed(plan, "depthwise.weight", 0) == [2]
    assert removed(plan, "depthwise.weight", 1) == []
    assert [(s.layer, s.attribute, s.old, s.new) for s in plan.sizes] == [("depthwise", "groups", 4, 3)]


def test_a_multiplier_keeps_the_copies_of_a_channel_together():
    p = Pencil()
    x = p.conv(p.input(2, 3, 8, 8), "first", 4)
    x = p.conv(x, "depthwise", 8, groups=4)
    p.output(p.conv(x, "last", 2, kernel=1))

    plan = propagate(p.graph, masked(p, "first", 1) | masked(p, "depthwise", 2, 3)).plan

    assert removed(plan, "depthwise.weight", 0) == [2, 3]
    assert removed(plan, "first.weight", 0) == [1]


def test_a_live_batch_norm_shift_is_folded_into_the_next_bias():
    p = Pencil()
    x = p.batch_norm(p.conv(p.input(2, 3, 8, 8), "first", 4), "norm")
    p.output(p.conv(x, "last", 2, kernel=1))
    n = p.numbers
    shift = n["norm.bias"][1] - n["norm.running_mean"][1] * n["norm.weight"][1] / np.sqrt(n["norm.running_var"][1] + 1e-5)

    found = propagate(p.graph, masked(p, "first", 1))

    assert removed(found.plan, "norm.running_var", 0) == [1]
    np.testing.assert_allclose(found.folds["last.bias"], n["last.weight"][:, 1, 0, 0] * shift, rtol=1e-12)
    assert found.plan.biases == ()


def test_a_constant_needs_a_bias_where_the_reader_has_none():
    p = Pencil()
    x = p.sigmoid(p.linear(p.input(2, 3), "first", 4))
    p.output(p.linear(x, "last", 2, bias=False))

    found = propagate(p.graph, masked(p, "first", 0))

    assert found.plan.biases == ("last",)
    np.testing.assert_allclose(found.folds["last.bias"], 0.5 * p.numbers["last.weight"][:, 0])


def test_a_constant_under_zero_padding_stays_and_says_so():
    p = Pencil()
    x = p.batch_norm(p.conv(p.input(2, 3, 8, 8), "first", 4), "norm")
    p.numbers["norm.bias"][1] = 9.0
    p.output(p.conv(x, "last", 2, padded=True))

    plan = propagate(p.graph, masked(p, "first", 1)).plan

    assert plan.groups == ()
    assert "pads with zeros" in plan.kept[0].reason


def test_a_negative_shift_is_zero_behind_relu_and_passes_padding():
    p = Pencil()
    x = p.relu(p.batch_norm(p.conv(p.input(2, 3, 8, 8), "first", 4), "norm"))
    p.numbers["norm.bias"][1] = -9.0
    p.output(p.conv(x, "last", 2, padded=True))

    found = propagate(p.graph, masked(p, "first", 1))

    assert removed(found.plan, "first.weight", 0) == [1]
    assert found.folds == {}


def test_what_every_reader_ignores_leaves_although_it_is_not_masked():
    p = lenet()
    mask = np.ones((10, 8), bool)
    mask[:, 6] = False

    plan = propagate(p.graph, {"fc2": {"weight": mask}}).plan

    assert removed(plan, "fc1.weight", 0) == [6]


def test_a_layer_used_twice_on_different_constants_keeps_them():
    p = Pencil()
    x = p.input(2, 3)
    shared = [p.linear(p.sigmoid(p.linear(x, "a", 4)), "shared", 4), p.linear(p.linear(x, "b", 4), "shared", 4)]
    p.output(p.linear(p.add(*shared), "last", 2))

    plan = propagate(p.graph, masked(p, "a", 0) | masked(p, "b", 0)).plan

    assert removed(plan, "shared.weight", 1) == []
    assert any("used twice" in kept.reason for kept in plan.kept)


def test_an_unknown_operation_pins_and_is_named_with_its_line():
    from nnc.graph.ir import Source

    p = Pencil()
    x = p.linear(p.input(2, 3), "first", 4)
    x = p.node("unknown", x, shape=(2, 4), source=Source("net.py", 23))
    p.output(p.linear(x, "last", 2))

    plan = propagate(p.graph, masked(p, "first", 0)).plan

    assert plan.groups == ()
    assert "net.py:23" in plan.kept[0].reason


def test_one_channel_stays_where_all_are_masked():
    p = lenet()

    found = propagate(p.graph, masked(p, "conv1", 0, 1, 2, 3))

    assert removed(found.plan, "conv1.weight", 0) == [1, 2, 3]
    assert found.emptied


def attention(heads: int = 3, width: int = 4, tokens: int = 3) -> Pencil:
    p = Pencil()
    x = p.input(2, tokens, 5)
    q, k, v = (p.transpose(p.reshape(p.linear(x, name, heads * width), 2, tokens, heads, width), 0, 2, 1, 3) for name in "qkv")
    scores = p.softmax(p.matmul(q, p.transpose(k, 0, 1, 3, 2)))
    mixed = p.reshape(p.transpose(p.matmul(scores, v), 0, 2, 1, 3), 2, tokens, heads * width)
    p.output(p.linear(mixed, "o", 5))
    return p


def test_a_masked_head_leaves_all_four_projections():
    p = attention()

    plan = propagate(p.graph, masked(p, "v", 4, 5, 6, 7)).plan

    for tensor, axis in [("q.weight", 0), ("k.bias", 0), ("v.weight", 0), ("o.weight", 1)]:
        assert removed(plan, tensor, axis) == [4, 5, 6, 7]
    member = plan.groups[0].members[0]
    assert (member.outer, member.size, member.inner, member.removed) == (1, 3, 4, (1,))


def test_part_of_a_head_stays_with_its_head():
    p = attention()

    plan = propagate(p.graph, masked(p, "v", 4, 5)).plan

    assert plan.groups == ()


def test_three_heads_and_three_tokens_are_not_confused():
    p = attention(heads=3, width=2, tokens=3)

    plan = propagate(p.graph, masked(p, "v", 0, 1)).plan

    assert removed(plan, "q.weight", 0) == [0, 1]


def test_a_fused_projection_of_unequal_parts_is_cut_into_segments():
    p = Pencil()
    x = p.input(2, 3, 5)
    q, k, v = p.split(p.linear(x, "qkv", 8 + 4 + 4), 8, 4, 4)
    q = p.transpose(p.reshape(q, 2, 3, 2, 2, 2), 0, 2, 3, 1, 4)  # 2 groups x 2 heads x 2
    k, v = (p.transpose(p.reshape(t, 2, 3, 2, 1, 2), 0, 2, 3, 1, 4) for t in (k, v))
    v = p.node("expand", v, shape=(2, 2, 2, 3, 2))
    k = p.node("expand", k, shape=(2, 2, 2, 3, 2))
    mixed = p.matmul(p.softmax(p.matmul(q, p.transpose(k, 0, 1, 2, 4, 3))), v)
    p.output(p.linear(p.reshape(p.transpose(mixed, 0, 3, 1, 2, 4), 2, 3, 8), "o", 5))

    plan = propagate(p.graph, masked(p, "qkv", 14, 15)).plan  # v of group 1

    assert removed(plan, "qkv.weight", 0) == [4, 5, 6, 7, 10, 11, 14, 15]
    assert removed(plan, "o.weight", 1) == [4, 5, 6, 7]


def test_regroupings_that_do_not_nest_are_pinned():
    p = Pencil()
    x = p.linear(p.input(2, 3), "first", 24)
    x = p.reshape(p.transpose(p.reshape(x, 2, 4, 6), 0, 2, 1), 2, 24)
    x = p.reshape(p.reshape(x, 2, 4, 6), 2, 24)
    p.output(p.linear(x, "last", 2))

    plan = propagate(p.graph, masked(p, "first", *range(24))).plan

    assert plan.groups == ()


def test_a_plan_survives_json():
    import json

    plan = propagate(lenet().graph, masked(lenet(), "conv2", 5)).plan

    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_a_plan_prints_the_chain_of_consequences():
    plan = propagate(lenet().graph, masked(lenet(), "conv1", 1, 3)).plan

    assert str(plan).splitlines() == [
        "conv1 output channels [1, 3] of 4 leave",
        "  therefore conv1 bias [1, 3] of 4",
        "  therefore conv2 input channels [1, 3] of 4",
    ]


def test_a_node_whose_sizes_are_fixed_keeps_what_it_reads():
    p = lenet()
    flatten = next(number for number, node in enumerate(p.graph.nodes) if node.kind == "reshape")

    plan = propagate(p.graph, masked(p, "conv1", 1) | masked(p, "conv2", 5), {flatten: "a literal"}).plan

    assert removed(plan, "conv1.weight", 0) == [1]
    assert removed(plan, "conv2.weight", 0) == []
    assert [kept.reason for kept in plan.kept] == ["a literal"]


def test_a_bias_of_many_axes_is_a_vector_all_the_same():
    p = Pencil()
    x = p.conv(p.input(2, 3, 8, 8), "first", 4, bias=False)
    shift = p.parameter("shift", 1, 4, 1, 1)
    p.output(p.conv(p.add(p.mul(x, p.parameter("scale", 1, 1, 1)), shift), "last", 2, kernel=1))

    found = propagate(p.graph, masked(p, "first", 1))

    assert removed(found.plan, "shift", 1) == [1]
    np.testing.assert_allclose(found.folds["last.bias"], p.numbers["last.weight"][:, 1, 0, 0] * p.numbers["shift"][0, 1, 0, 0])
