"""The bounds of a slice are replaced in the user's own method; what is left of steps becomes a list of places."""

import inspect

import numpy as np
import pytest

from nnc.errors import SpeedupError
from nnc.graph.plan import Reshape
from nnc.resize import held_sizes, resized

#: Element (i, j, k) is 100 i + 10 j + k, so that what is taken shows by its numbers.
X = np.arange(4)[:, None, None] * 100 + np.arange(8)[:, None] * 10 + np.arange(6)


class Net:
    half = 4

    def __init__(self):
        self.own = 4

    def tail(self, x):
        return x[:, 4:]

    def negative(self, x):
        return x[..., -4:-1]

    def two_axes(self, x):
        return x[1:3, 1:3]

    def steps(self, x):
        return x[:, ::2]

    def steps_of_several(self, x):
        return x[1:, ::2, 2:4]

    def steps_behind_dots(self, x):
        return x[0, ..., ::3, 1:]

    def steps_before_dots(self, x):
        return x[0, 1::3, ..., None, 2]

    def held(self, x):
        return x[:, : self.own]

    def computed(self, x):
        return x[:, x.shape[1] // 2 :]

    def twice(self, x):
        return x[:, :4] + x[:, :4]


def change(name, old, new, cut):
    line = inspect.getsourcelines(getattr(Net, name))[1] + 1
    return Reshape("", "slice", f"Net.{name}", line, old, new, cut=cut)


@pytest.mark.parametrize(
    ("name", "old", "new", "cut", "expected"),
    [
        ("tail", (4, 8, 1, 8), (1, 3, 1, 3), (1, 3), X[:, 1:]),
        ("negative", (2, 5, 1, 6), (1, 3, 1, 4), (2, 3), X[..., 1:3]),
        ("two_axes", (1, 3, 1, 8), (0, 2, 1, 5), (1, 3), X[1:3, 0:2]),
        ("two_axes", (1, 3, 1, 4), (0, 1, 1, 2), (0, 3), X[0:1, 1:3]),
        ("steps", (0, 8, 2, 8), (0, 1, 3), (1, 3), X[:, [0, 1, 3]]),
        ("steps_of_several", (0, 8, 2, 8), (0, 1, 3), (1, 3), X[1:, [0, 1, 3], 2:4]),
        ("steps_behind_dots", (0, 8, 3, 8), (0, 2), (0, 2), X[0][[0, 2], 1:]),
        ("steps_before_dots", (1, 8, 3, 8), (1, 2), (0, 2), X[0][[1, 2]][:, None, 2]),
        ("computed", (4, 8, 1, 8), (3, 6, 1, 6), (1, 3), X[:, 3:]),
    ],
)
def test_a_slice_takes_what_it_is_told_to(name, old, new, cut, expected):
    changed = resized(getattr(Net, name), change(name, old, new, cut), Net())

    assert (changed(Net(), X) == expected).all()


def test_places_go_through_a_function_where_no_list_can_index():
    seen = []

    def take(x, places, axis):
        seen.append((places, axis))
        return np.take(x, places, axis)

    changed = resized(Net.steps_of_several, change("steps_of_several", (0, 8, 2, 8), (0, 1, 3), (1, 3)), Net(), take)

    assert (changed(Net(), X) == X[1:, [0, 1, 3], 2:4]).all()
    assert seen == [([0, 1, 3], 1)]


def test_a_bound_that_an_attribute_gives_needs_no_other_code():
    net = Net()

    assert [(size.attribute, size.new) for size in held_sizes(Net.held, change("held", (0, 4, 1, 8), (0, 3, 1, 6), (1, 3)), net)] == [
        ("own", 3)
    ]


def test_a_second_change_starts_from_the_first():
    first = resized(Net.two_axes, change("two_axes", (1, 3, 1, 8), (0, 2, 1, 5), (1, 3)), Net())
    both = resized(first, change("two_axes", (1, 3, 1, 4), (0, 1, 1, 2), (0, 3)), Net())

    assert (both(Net(), X) == X[0:1, 0:2]).all()


def test_of_two_slices_that_take_the_same_it_is_not_clear_which_is_meant():
    with pytest.raises(SpeedupError, match=r"slice takes 0:4 of 8: the code there fixes it: 2 slices in Net.twice take that"):
        resized(Net.twice, change("twice", (0, 4, 1, 8), (0, 3, 1, 6), (1, 3)), Net())
