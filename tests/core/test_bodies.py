"""The code that gives a layer a size may stand in a function that its method calls; it changes for that layer only."""

import pytest

from nnc.bodies import body
from nnc.errors import SpeedupError
from nnc.graph.plan import Reshape
from nnc.resize import resized
from tests.core.test_resize import Recorder


def split_heads(x, heads):
    return x.view(-1, heads, 800)


def attention(x, heads):
    return split_heads(x, heads), [split_heads(each, heads) for each in (x,)]


def cross_attention(x, heads):
    return split_heads(x, heads)


class Net:
    scale = 3

    def forward(self, x):
        return attention(x, 2), x.view(-1, 24)

    def other(self, x):
        return split_heads(x, 4)

    def attention(self, x):
        return x.view(-1, 800)

    def both(self, x):
        return attention(x, 2)[0], cross_attention(x, 2), split_heads(x, 2)


WIDTH = Reshape("", "view", "split_heads", split_heads.__code__.co_firstlineno + 1, (-1, 2, 800), (-1, 2, 400))
OWN = Reshape("", "view", "Net.forward", Net.forward.__code__.co_firstlineno + 1, (-1, 24), (-1, 12))


def changed(net, *reshapes):
    for reshape in reshapes:
        found = body(net, reshape.function, "forward")
        vars(net).update(found.replace(resized(found.function, reshape, net), reshape))
    return net


@pytest.mark.parametrize("reshapes", [(WIDTH, OWN), (OWN, WIDTH)], ids=["function first", "method first"])
def test_a_function_changes_for_the_one_layer_whose_methods_call_it(reshapes):
    net, x = changed(Net(), *reshapes), Recorder()

    assert net.forward(x) == (((-1, 2, 400), [(-1, 2, 400)]), (-1, 12))
    assert net.other(x) == (-1, 4, 400)
    assert net.both(x) == ((-1, 2, 400),) * 3
    assert Net().forward(x) == (((-1, 2, 800), [(-1, 2, 800)]), (-1, 24))
    assert split_heads(x, 2) == (-1, 2, 800)


def test_a_function_changes_a_second_time_from_what_it_was_changed_to():
    again = Reshape("", "view", "split_heads", WIDTH.line, (-1, 2, 400), (-1, 2, 100))

    assert changed(Net(), WIDTH, OWN, again).forward(Recorder()) == (((-1, 2, 100), [(-1, 2, 100)]), (-1, 12))


def test_of_a_method_and_a_function_of_one_name_the_one_that_ran_is_taken():
    assert body(Net(), "Net.attention", "forward").is_method("attention")
    assert body(Net(), "attention", "forward").function is attention


def test_code_that_no_method_calls_by_name_is_not_found():
    assert body(Net(), "elsewhere", "forward") is None


def test_a_function_without_source_is_refused():
    scope = {}
    exec("def helper(x):\n    return x.view(-1, 800)\nclass Net:\n    def forward(self, x):\n        return helper(x)", scope)
    net = scope["Net"]()
    reshape = Reshape("", "view", "helper", 2, (-1, 800), (-1, 400))

    with pytest.raises(SpeedupError, match="source of helper is not available"):
        resized(body(net, "helper", "forward").function, reshape, net)


def test_a_lambda_and_a_class_within_a_function_are_found():
    class Local:
        def forward(self, x):
            return (lambda y: y.view(-1, 800))(x)

    name = f"{Local.forward.__qualname__}.<locals>.<lambda>"
    found = body(Local(), name, "forward")

    assert found.is_method("forward")
    reshape = Reshape("", "view", name, Local.forward.__code__.co_firstlineno + 1, (-1, 800), (-1, 400))
    assert resized(found.function, reshape, Local())(Local(), Recorder()) == (-1, 400)
