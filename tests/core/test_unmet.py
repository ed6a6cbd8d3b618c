"""What a config_list asks and cannot have: each is told once, with the layers and what to do."""

import warnings

import numpy as np
import pytest

from nnc.allocation import Scored
from nnc.errors import ConfigError, LeftAlone
from nnc.joint import joint_masks
from nnc_schemas import parse_config_list
from tests.core.graphs import Pencil
from tests.core.test_propagate import attention


class Layer:
    def __init__(self, name, shape):
        self.name, self.parameters = name, {"weight": shape, "bias": shape[:1]}


def network() -> Pencil:
    """An attention of three heads, two branches that are added, a layer of its own, and the model's last one."""
    p = attention(heads=3, width=4)
    x = p.graph.inputs[0]
    x = p.relu(p.add(p.linear(x, "left", 6), p.linear(x, "right", 6)))
    p.output(p.linear(p.relu(p.linear(x, "hidden", 8)), "last", 5))
    return p


def masks_of(governed, *entries, pencil=None):
    p = pencil or network()
    names = [path.removesuffix(".weight") for path in p.numbers if path.endswith(".weight")]
    layers = [Layer(name, p.numbers[f"{name}.weight"].shape) for name in names]
    scored = {name: Scored(np.arange(p.numbers[f"{name}.weight"].shape[0], dtype=float), 5) for name in governed}
    return joint_masks(p.graph, layers, scored, governed, parse_config_list(list(entries)))


def masked(masks):
    return {name: int((~given["bias"]).sum()) for name, given in masks.items() if not given["bias"].all()}


def governed(*groups):
    return {name: index for index, names in enumerate(groups) for name in names.split()}


EVERY = "q k v o left right hidden last"


def test_a_plain_sparsity_takes_what_can_leave_and_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks = masks_of(governed(EVERY), {"sparsity": 0.5})

    assert masked(masks) == {"q": 4, "k": 4, "v": 4, "left": 3, "right": 3, "hidden": 4}


def test_half_of_a_group_is_left_alone_and_both_halves_are_named():
    with pytest.warns(LeftAlone) as caught:
        masks = masks_of(governed("left hidden"), {"sparsity": 0.5})

    assert masked(masks) == {"hidden": 4}
    assert str(caught[0].message) == (
        "config_list[0]: left can lose channels only together with right, which the config_list does not select or excludes: "
        "they are left alone. Select all of them, or exclude all."
    )


def test_half_of_the_only_group_is_an_error():
    with pytest.raises(ConfigError, match="left can lose channels only together with right") as caught:
        masks_of(governed("left"), {"sparsity": 0.5})

    assert "nothing that it selects can leave" in str(caught.value)


def test_queries_without_their_keys_are_an_error():
    with pytest.raises(ConfigError, match="q can lose heads only together with k, v"):
        masks_of(governed("q"), {"sparsity": 0.5, "granularity": "head"})


def test_an_entry_for_the_models_last_layer_is_told_why_nothing_leaves():
    with pytest.warns(LeftAlone, match=r"config_list\[1\]: nothing of last can leave: an output of the model\."):
        assert masked(masks_of(governed("hidden", "last"), {"sparsity": 0.5}, {"sparsity": 0.2})) == {"hidden": 4}


def test_heads_where_there_are_none_are_an_error_that_says_where_they_are():
    with pytest.raises(ConfigError) as caught:
        masks_of(governed("left right hidden"), {"sparsity": 0.5, "granularity": "head"})

    assert str(caught.value) == (
        "config_list[0].granularity: no attention head is among the output channels of left, right, hidden that can leave; "
        "heads are in q, k, v: select these, or leave granularity out to remove channels."
    )


def test_less_than_one_head_is_none_and_says_what_would_be_one():
    with pytest.warns(LeftAlone) as caught:
        masks = masks_of(governed("q k v", "hidden"), {"sparsity": 0.3, "granularity": "head"}, {"sparsity": 0.5})

    assert masked(masks) == {"hidden": 4}
    assert str(caught[0].message) == (
        "config_list[0]: 0.3 of 3 heads that can leave (each 4 channels of q, 4 channels of k, 4 channels of v) is less than one; "
        "0.34 removes one: all stay in q, k, v."
    )


def test_the_fraction_that_is_named_removes_one_head():
    assert masked(masks_of(governed("q k v"), {"sparsity": 0.34, "granularity": "head"})) == {"q": 4, "k": 4, "v": 4}


def test_a_multiple_that_no_number_of_heads_can_be_says_so():
    with pytest.warns(LeftAlone, match=r"config_list\[0\]\.round_to: 16 channels are no less than 4 heads, and there are 3 \(each 4"):
        assert masked(masks_of(governed("q k v"), {"sparsity": 0.5, "granularity": "head", "round_to": 16})) == {}


def test_an_amount_below_one_channel_of_any_layer_says_so():
    with pytest.warns(LeftAlone, match=r"config_list\[0\]: 0\.1 of its layers' channels, rounded down to whole ones, is none"):
        assert masked(masks_of(governed("left right hidden"), {"sparsity": 0.1})) == {}


def test_a_tie_to_the_models_last_layer_keeps_both_and_says_why():
    p = Pencil()
    x = p.relu(p.linear(p.relu(p.linear(p.input(2, 3), "first", 5)), "second", 5))
    p.output(p.linear(x, "last", 5))
    entries = {"sparsity": 0.4, "dependency_group_id": 1}, {"sparsity": 0.4}

    with pytest.warns(LeftAlone, match="first, last shall lose the same channels, and one of them cannot lose any: an output of the model"):
        assert masked(masks_of({"first": 0, "second": 1, "last": 0}, *entries, pencil=p)) == {"second": 2}


def test_layers_that_are_tied_on_request_lose_the_same_channels():
    p = Pencil()
    x = p.relu(p.linear(p.relu(p.linear(p.input(2, 3), "first", 6)), "second", 6))
    p.output(p.linear(x, "last", 5))

    masks = masks_of(governed("first second"), {"sparsity": 0.5, "dependency_group_id": "d"}, pencil=p)

    assert masked(masks) == {"first": 3, "second": 3}
    assert (masks["first"]["bias"] == masks["second"]["bias"]).all()


def test_an_entry_of_zero_asks_nothing_and_hears_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert masks_of(governed("left"), {"sparsity": 0}) == {}


def test_biases_stay_alive_over_groups_too():
    masks = masks_of(governed("left right"), {"sparsity": 0.5, "target_names": ["weight"]})

    assert int((~masks["left"]["weight"].any(axis=1)).sum()) == 3
    assert masks["left"]["bias"].all()
