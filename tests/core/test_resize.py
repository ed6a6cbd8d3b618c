"""A hard-coded size is replaced in the user's own method, and nothing else changes."""

import functools

import pytest

from nnc.errors import SpeedupError
from nnc.graph.plan import Reshape, Size
from nnc.resize import held_sizes, resized


class Recorder:
    """Stands for a tensor: `view` and `reshape` return the sizes that they were given."""

    size = 3

    def view(self, *sizes):
        return sizes

    def reshape(self, sizes):
        return sizes


class Base:
    def scale(self):
        return 2


class Net(Base):
    size = 7

    def literal(self, x):
        return x.view(-1, 4 * 4 * 50)

    def listed(self, x):
        return x.reshape([-1, 800])

    def computed(self, x):
        n = 16 * 50
        return x.view(x.size, n) if self.size is None else x.view(-1, n)

    def whole(self, x):
        shape = (x.size, -1, 800)
        first = x.view(*shape)
        return first, x.reshape(shape[1:])

    def inherited(self, x):
        return super().scale(), x.view(-1, 800)

    def twice(self, x):
        first = x.view(-1, 800)
        second = x.view(-1, 800)
        return first, second

    @functools.lru_cache  # noqa: B019
    def decorated(self, x):
        return x.view(-1, 800)


def change(function, line_of: str, **changes):
    import inspect

    lines, first = inspect.getsourcelines(function)
    line = first + next(number for number, text in enumerate(lines) if line_of in text)
    return Reshape(**({"layer": "", "op": "view", "function": "Net.f", "line": line, "old": (-1, 800), "new": (-1, 400)} | changes))


@pytest.mark.parametrize(("name", "expected"), [("literal", (-1, 400)), ("listed", [-1, 400]), ("inherited", (2, (-1, 400)))])
def test_the_literal_is_replaced(name, expected):
    function = getattr(Net, name)

    assert resized(function, change(function, "800" if name != "literal" else "50"))(Net(), Recorder()) == expected
    assert getattr(Net(), name)(Recorder()) != expected


def test_a_variable_at_the_call_is_replaced_there_only():
    new = resized(Net.computed, change(Net.computed, "x.size, n"))

    assert new(Net(), Recorder()) == (-1, 400)


def test_of_a_shape_in_a_variable_one_size_is_replaced_at_the_call():
    line = change(Net.whole, "x.view(*shape)", old=(3, -1, 800), new=(3, -1, 400))

    assert resized(Net.whole, line)(Net(), Recorder()) == ((3, -1, 400), (-1, 800))


def test_of_two_like_calls_the_one_on_the_line_is_meant():
    new = resized(Net.twice, change(Net.twice, "second ="))

    assert new(Net(), Recorder()) == ((-1, 800), (-1, 400))


def test_a_second_change_keeps_the_first():
    first = resized(Net.twice, change(Net.twice, "first ="))
    both = resized(first, change(Net.twice, "second =", new=(-1, 200)))

    assert both(Net(), Recorder()) == ((-1, 400), (-1, 200))


def test_without_a_line_two_like_calls_are_refused():
    with pytest.raises(SpeedupError, match=r"2 calls in Net.twice have these sizes"):
        resized(Net.twice, change(Net.twice, "def", line=0))


def test_a_decorator_is_kept():
    new = resized(Net.decorated, change(Net.decorated, "return"))

    assert new(Net(), Recorder()) == (-1, 400)
    assert hasattr(new, "cache_info")


def test_a_traceback_still_points_to_the_users_line():
    new = resized(Net.literal, change(Net.literal, "50"))

    assert new.__code__.co_filename == __file__
    assert new.__code__.co_firstlineno == Net.literal.__code__.co_firstlineno


def test_code_without_source_is_refused_with_what_to_write():
    scope = {}
    exec("def forward(self, x):\n    return x.view(-1, 800)", scope)

    with pytest.raises(SpeedupError, match=r"source of forward is not available.*Write -1 there"):
        resized(scope["forward"], Reshape("", "view", "forward", 2, (-1, 800), (-1, 400)))


def test_a_changed_function_keeps_its_name_in_a_traceback():
    new = resized(Net.literal, change(Net.literal, "50"))

    assert new.__qualname__ == "Net.literal"
    assert getattr(new.__code__, "co_qualname", "Net.literal") == "Net.literal"


class Held:
    def __init__(self):
        self.part = 8

    def f(self, x):
        return x.split(self.part, 2)

    def g(self, x):
        return x.split(self.part * 2, 2)


def test_a_size_held_in_an_attribute_is_found_there():
    change_of_part = change(Held.f, "split", old=(8,), new=(4,))

    assert held_sizes(Held.f, change_of_part, Held()) == (Size("", "part", 8, 4),)


def test_a_size_computed_from_an_attribute_is_written_into_the_code():
    change_of_parts = change(Held.g, "split", old=(16,), new=(10,))
    x = type("X", (), {"split": lambda self, *sizes: sizes})()

    assert held_sizes(Held.g, change_of_parts, Held()) == ()
    assert resized(Held.g, change_of_parts, Held())(Held(), x) == (10, 2)


class Unflattened:
    def f(self, x):
        return x.unflatten(-1, (4, 8))


def test_the_sizes_of_unflatten_are_those_of_the_axes_that_it_names():
    heads = change(Unflattened.f, "unflatten", old=(2, 6, 4, 8), new=(2, 6, 3, 8))
    x = type("X", (), {"unflatten": lambda self, *sizes: sizes})()

    assert resized(Unflattened.f, heads, Unflattened())(Unflattened(), x) == (-1, (3, 8))
