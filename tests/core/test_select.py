"""Which entry governs which layer, and what an entry hears that matches none."""

import pytest

from nnc.errors import ConfigError
from nnc.select import resolve
from nnc_schemas import parse_config_list
from tests import fakes

LAYERS = [fakes.FakeLayer(fakes.lenet(), name) for name in ("conv1", "bn1", "conv2", "fc1", "fc2")]
CONVS, ALL = ["conv1", "conv2"], ["conv1", "conv2", "fc1", "fc2"]


def governed(*entries):
    return resolve(parse_config_list(list(entries)), LAYERS)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ({}, ALL),
        ({"op_types": ["Conv2d"]}, CONVS),
        ({"op_types": "Dense"}, ["fc1", "fc2"]),
        ({"op_types": "default"}, ALL),
        ({"op_names": ["fc1", "conv2"]}, ["conv2", "fc1"]),
        ({"op_partial_names": ["onv"]}, CONVS),
        ({"op_names_re": [r"fc\d"]}, ["fc1", "fc2"]),
        ({"op_names": ["fc2"], "op_partial_names": ["conv"], "op_names_re": [".*1"]}, ALL),
        ({"op_names_re": [".*1"], "op_types": ["Linear"]}, ["fc1"]),
        ({"exclude_op_names": ["fc2", "bn1"]}, ["conv1", "conv2", "fc1"]),
        ({"exclude_op_types": ["Conv2D"], "exclude_op_names_re": [".*2"]}, ["fc1"]),
    ],
)
def test_an_entry_selects_by_names_and_types_without_exceptions(selector, names):
    assert list(governed({**selector, "sparsity": 0.5})) == names


def test_op_names_re_matches_from_the_beginning_as_in_nni():
    with pytest.raises(ConfigError, match="matches no layer"):
        governed({"op_names_re": ["onv1"], "sparsity": 0.5})


def test_the_last_entry_that_names_a_layer_governs_it():
    entries = ({"sparsity": 0.5}, {"op_types": "Linear", "exclude": True}, {"op_names": "fc1", "sparsity": 0.3})

    assert governed(*entries) == {"conv1": 0, "conv2": 0, "fc1": 2}


@pytest.mark.parametrize("amount", [{"sparsity": 0.5}, {"exclude": True}])
@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ({"op_names": ["conv1", "conv9"]}, "op_names: 'conv9' matches no layer; nearest: 'conv1'. `nnc layers` lists them all."),
        ({"op_names": ["bn1"]}, "op_names: 'bn1' is a BatchNorm2d, which has no output channels"),
        ({"op_types": ["Conv2d", "Lineer"]}, "op_types: 'Lineer' matches no layer; nearest: 'Linear'. The model has"),
        ({"op_types": ["Conv3d"]}, "op_types: 'Conv3d' matches no layer; nearest: 'Conv2d'"),
        ({"op_types": ["BatchNorm2d"]}, "op_types: 'BatchNorm2d' matches only layers that have no output channels"),
        ({"op_partial_names": ["attention"]}, "op_partial_names: 'attention' matches no layer"),
        ({"op_names_re": ["("]}, "op_names_re: '(' is no regular expression: "),
        ({"op_names": ["conv1"], "exclude_op_names": ["conv3"]}, "exclude_op_names: 'conv3' matches no layer; nearest: 'conv1'"),
        ({"op_names": ["conv1"], "exclude_op_types": ["conv2d"]}, "exclude_op_types: 'conv2d' matches no layer; nearest: 'Conv2d'"),
    ],
)
def test_a_word_that_matches_nothing_is_named_with_its_place(selector, amount, message):
    with pytest.raises(ConfigError) as caught:
        governed({"op_names": "fc2", "sparsity": 0.1}, {**selector, **amount})

    assert str(caught.value).startswith(f"config_list[1].{message}")


@pytest.mark.parametrize("selector", [{"op_names": "conv1", "op_types": "Linear"}, {"op_names": "conv1", "exclude_op_types": "Conv2d"}])
def test_an_entry_whose_keys_leave_nothing_is_an_error(selector):
    with pytest.raises(ConfigError, match=r"config_list\[0\]: matches no layer: "):
        governed({**selector, "sparsity": 0.5})


def test_a_list_that_excludes_all_it_names_is_an_error():
    with pytest.raises(ConfigError, match="nothing would be pruned"):
        governed({"op_names": "fc2", "sparsity": 0.5}, {"op_types": "Linear", "exclude": True})


def test_a_model_without_prunable_layers_is_told_so():
    with pytest.raises(ConfigError, match="the model has no layer that can be pruned"):
        resolve(parse_config_list([{"sparsity": 0.5}]), [LAYERS[1]])


class Flat:
    """What works on matrices only."""

    name, treated = "flat", "matrices"

    @staticmethod
    def treats(layer):
        return len(layer.parameters["weight"]) == 2


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (
            {"op_types": "Conv2d"},
            "op_types: 'Conv2d' matches only layers that 'flat' does not work on (it works on matrices, here Linear);",
        ),
        ({"op_names": "conv1"}, "op_names: 'conv1' is a Conv2d, which 'flat' does not work on (it works on matrices, here Linear);"),
    ],
)
def test_a_layer_that_the_algorithm_does_not_work_on_is_refused_in_its_words(selector, message):
    with pytest.raises(ConfigError) as caught:
        resolve(parse_config_list([{**selector, "sparsity": 0.5}]), LAYERS, Flat)

    remedy = "leave that out, or name another algorithm (`nnc algorithms`) for it. `nnc layers` lists them all."
    assert str(caught.value) == f"config_list[0].{message} {remedy}"


def test_a_model_without_a_layer_that_the_algorithm_works_on_is_told_so():
    with pytest.raises(ConfigError, match="no layer that can be pruned: 'flat' works on matrices"):
        resolve(parse_config_list([{"sparsity": 0.5}]), LAYERS[:3], Flat)


def test_an_entry_may_exclude_what_only_other_algorithms_work_on():
    assert resolve(parse_config_list([{"sparsity": 0.5}, {"op_types": "Conv2d", "exclude": True}]), LAYERS, Flat) == {"fc1": 0, "fc2": 0}
