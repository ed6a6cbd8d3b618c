"""The places that a lookup takes are replaced in the user's own method, wherever they stand."""

import inspect

import numpy as np
import pytest

from nnc.errors import SpeedupError
from nnc.graph.plan import Reshape
from nnc.resize import held_sizes, resized

#: Element (i, j) is 10 i + j, so that what is taken shows by its numbers.
X = np.arange(4)[:, None] * 10 + np.arange(8)


class Vector(np.ndarray):
    """An array that makes others of its kind, as torch's tensors do."""

    def new_tensor(self, numbers):
        return np.array(numbers).view(Vector)


class Net:
    listed, tupled = [0, 2, 5], (0, 2, 5)
    vector = np.array([0, 2, 5]).view(Vector)
    plain = np.array([0, 2, 5])

    def brackets(self, x):
        return x[:, [0, 2, 5]]

    def from_the_end(self, x):
        return x[:, [0, 2, -3]]

    def in_a_call(self, x):
        return np.take(x, [0, 2, 5], axis=1)

    def beside_the_same_numbers(self, x):
        return x[:, [0, 2, 5]] + np.sum([0, 2, 5])

    def a_variable(self, x):
        places = [0, 2, 5]

        return x[:, places]

    def attribute(self, x):
        return x[:, self.listed]

    def attribute_tuple(self, x):
        return x[:, self.tupled]

    def attribute_vector(self, x):
        return x.take(self.vector, 1)

    def attribute_array(self, x):
        return x[:, self.plain]

    def twice(self, x):
        return x[:, [0, 2, 5]] + x[:, [0, 2, 5]]

    def computed(self, x):
        return x[:, list(range(0, 6, 2))]


def change(name, old=(0, 2, 5), new=(0, 1)):
    lines, first = inspect.getsourcelines(getattr(Net, name))
    return Reshape("", "index", f"Net.{name}", first + len(lines) - 1, old, new, looked_up=True)


NAMES = [name for name in vars(Net) if inspect.isfunction(vars(Net)[name]) and name not in ("twice", "computed", "beside_the_same_numbers")]


@pytest.mark.parametrize("name", NAMES)
def test_other_places_are_taken(name):
    made = resized(vars(Net)[name], change(name), Net())

    np.testing.assert_array_equal(made(Net(), X), X[:, [0, 1]])


@pytest.mark.parametrize("name", NAMES)
def test_a_second_change_starts_from_the_first(name):
    once = resized(vars(Net)[name], change(name), Net())

    np.testing.assert_array_equal(resized(once, change(name, (0, 1), (3,)), Net())(Net(), X), X[:, [3]])


def test_equal_numbers_that_take_nothing_stay():
    made = resized(Net.beside_the_same_numbers, change("beside_the_same_numbers"), Net())

    np.testing.assert_array_equal(made(Net(), X), X[:, [0, 1]] + 7)


def test_no_attribute_alone_is_a_way():
    assert held_sizes(Net.attribute, change("attribute"), Net()) == ()


@pytest.mark.parametrize(("name", "count"), [("twice", 2), ("computed", 0)])
def test_what_is_not_clear_is_refused_with_what_to_write(name, count):
    with pytest.raises(SpeedupError, match=rf"takes the places \[0, 2, 5\], which must become \[0, 1\]: {count} lists .* Write the places"):
        resized(vars(Net)[name], change(name), Net())
