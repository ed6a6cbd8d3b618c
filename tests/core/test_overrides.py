import pytest

from nnc.errors import ConfigError
from nnc.overrides import override

RECIPE = {"algorithm": "l1_norm", "config_list": [{"sparsity": 0.5}]}


def test_a_dotted_key_reaches_into_lists():
    assert override(RECIPE, ["config_list.0.sparsity=0.3"])["config_list"] == [{"sparsity": 0.3}]


def test_a_key_that_was_not_there_is_added():
    assert override(RECIPE, ["output=out/small"])["output"] == "out/small"


def test_a_value_is_yaml():
    assert override(RECIPE, ["example_inputs=[[2, 1, 28, 28]]"])["example_inputs"] == [[2, 1, 28, 28]]


def test_the_recipe_itself_stays_as_it_was():
    override(RECIPE, ["config_list.0.sparsity=0.3"])

    assert RECIPE["config_list"][0]["sparsity"] == 0.5


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sparsity", "is no key=value"),
        ("=3", "is no key=value"),
        ("config_list.1.sparsity=0.3", "'1' is no entry of a list of 1"),
        ("config_lst.0.sparsity=0.3", "the recipe has no config_lst"),
        ("algorithm.name=3", "what it leads to is 'l1_norm'"),
        ("output=[", "is no YAML value"),
    ],
)
def test_an_assignment_that_leads_nowhere_is_an_error(assignment, message):
    with pytest.raises(ConfigError, match=message):
        override(RECIPE, [assignment])
