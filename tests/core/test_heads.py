"""Attention heads as granules: found by propagation, named in the plan."""

import numpy as np
import pytest

import nnc
from nnc.allocation import Scored
from nnc.graph.plan import Group, Member, Plan
from nnc.graph.propagate import propagate
from nnc.heads import removed_heads
from nnc.joint import joint_masks
from nnc_pruning import L1NormPruner
from nnc_schemas import parse_config_list
from tests.core.graphs import Pencil, masked, removed
from tests.core.test_propagate import attention


class Layer:
    def __init__(self, name, **parameters):
        self.name, self.parameters = name, parameters


def attention_and_a_layer() -> Pencil:
    p = attention(heads=3, width=4)
    p.output(p.linear(p.relu(p.linear(p.graph.inputs[0], "fc1", 6)), "fc2", 5))
    return p


def masks_of(p: Pencil, **keys):
    sizes = {"q": 12, "k": 12, "v": 12, "fc1": 6}
    layers = [Layer(name, weight=p.numbers[f"{name}.weight"].shape, bias=(size,)) for name, size in sizes.items()]
    scored = {name: Scored(np.arange(size, dtype=float), 5) for name, size in sizes.items()}
    return joint_masks(p.graph, layers, scored, dict.fromkeys(sizes, 0), parse_config_list([keys]))


def test_by_default_heads_leave_attention_and_channels_the_others():
    masks = masks_of(attention_and_a_layer(), sparsity=0.34)

    assert (~masks["v"]["bias"]).nonzero()[0].tolist() == [0, 1, 2, 3]
    assert (~masks["fc1"]["bias"]).nonzero()[0].tolist() == [0, 1]


def test_head_granularity_leaves_other_layers_alone():
    masks = masks_of(attention_and_a_layer(), sparsity=0.34, granularity="head")

    assert set(masks) == {"q", "k", "v"}


def test_the_plan_speaks_of_heads():
    p = attention(heads=3, width=4)

    text = str(propagate(p.graph, masked(p, "v", 4, 5, 6, 7)).plan)

    assert text.startswith("q heads (of 4 channels) [1] of 3 leave")
    assert "o input channels [1] of 3" in text


def plan_of_heads(*paths):
    """Return a plan in which head 1 of 3 leaves the projections at some paths."""
    groups = []
    for path in paths:
        sizes = {"start": 0, "outer": 1, "size": 3, "inner": 4}
        rows, columns = (Member(f"{path}.{name}.weight", axis, **sizes, removed=(1,)) for axis, name in enumerate(("q", "out")))
        groups.append(Group((rows, columns)))
    return Plan(groups=tuple(groups))


def test_removed_heads_are_named_by_the_number_of_their_layer():
    assert removed_heads(plan_of_heads("layers.0.attention", "layers.7.attention")) == [
        "layer 0 prune 1 head: [1]",
        "layer 7 prune 1 head: [1]",
    ]


def test_layers_with_the_same_number_are_named_by_their_paths():
    assert removed_heads(plan_of_heads("encoder.0", "decoder.0", "decoder.1")) == [
        "layer encoder.0.q prune 1 head: [1]",
        "layer decoder.0.q prune 1 head: [1]",
        "layer 1 prune 1 head: [1]",
    ]


def test_layers_that_lose_heads_together_have_a_line_each():
    first, second = plan_of_heads("block.0.attention", "block.1.attention").groups

    assert removed_heads(Plan(groups=(Group((*first.members, *second.members)),))) == [
        "layer 0 prune 1 head: [1]",
        "layer 1 prune 1 head: [1]",
    ]


def test_heads_without_example_inputs_are_refused(framework):
    with pytest.raises(nnc.ConfigError, match=r"config_list\[0\]\.granularity: heads are found by running the model"):
        L1NormPruner(framework.build("lenet"), [{"op_types": ["Linear"], "granularity": "head", "sparsity": 0.3}])


def test_masks_of_every_head_leave_one_and_say_so():
    p = attention(heads=3, width=4)

    found = propagate(p.graph, masked(p, "q", *range(12)) | masked(p, "k", *range(12)) | masked(p, "v", *range(12)))

    assert removed(found.plan, "q.weight", 0) == list(range(4, 12))
    assert found.emptied == ("q.weight axis 0 (3 blocks of 4)",)


def test_a_part_of_a_head_stays_with_the_reason():
    p = attention(heads=3, width=4)

    plan = propagate(p.graph, masked(p, "q", 4, 5)).plan

    assert [(kept.where, kept.count, kept.reason) for kept in plan.kept] == [
        ("q.weight axis 0", 2, "it is a part of one of 3 blocks of 4, which leave whole")
    ]
