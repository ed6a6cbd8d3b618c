"""The steps of an einsum, taken in NumPy, give what NumPy's own einsum does."""

import numpy as np
import pytest

from nnc.graph.einsum import product

SIZES = {"b": 2, "h": 3, "q": 4, "k": 5, "d": 6, "i": 7, "o": 8, "x": 2, "y": 3}


def numbers(term):
    spelled = term.replace("...", "xy")
    return np.random.default_rng(len(term)).standard_normal([SIZES[letter] for letter in spelled])


def steps(found, a, b):
    left, right = (x.transpose(way.permutation).reshape(way.shape) for x, way in zip((a, b), (found.left, found.right), strict=True))
    result = left @ right
    assert result.shape == found.product
    result = result.reshape(found.split).transpose(found.permutation)
    assert result.shape == found.shape
    return result


@pytest.mark.parametrize(
    "equation",
    [
        "bqhd,bkhd->bhqk",
        "bhqk,bkhd->bqhd",
        "bqi,io->bqo",
        "bqi,io",
        "qi, oi -> oq",
        "...qd,...kd->...qk",
        "...i,io->...o",
        "bhd,bhd->bh",
        "bhd,bhd->",
        "i,o->io",
        "bqhd,hdo->bqo",
        "bhq,bhq->bhq",
    ],
)
def test_the_steps_give_what_numpys_einsum_does(equation):
    a, b = (numbers(term) for term in equation.replace(" ", "").partition("->")[0].split(","))

    found = product(equation, [a.shape, b.shape])

    np.testing.assert_allclose(steps(found, a, b), np.einsum(equation, a, b), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("bii->b", [(2, 7, 7)]),
        ("bi,bi,bi->b", [(2, 7)] * 3),
        ("bii,i->b", [(2, 7, 7), (7,)]),  # a diagonal
        ("bqi,o->bo", [(2, 4, 7), (8,)]),  # a sum over one operand's own axes
        ("bi,bo->io", [(1, 7), (2, 8)]),  # a broadcast
    ],
)
def test_what_is_no_product_of_two_operands_has_no_steps(equation, shapes):
    assert product(equation, shapes) is None


def test_the_steps_are_of_the_same_number_for_one_head_as_for_three():
    many, one = (product("bqhd,bkhd->bhqk", [(2, 4, heads, 6), (2, 5, heads, 6)]) for heads in (3, 1))

    assert (many.left.permutation, many.permutation) == (one.left.permutation, one.permutation)
    assert [len(each.shape) for each in (many.left, many.right)] == [len(each.shape) for each in (one.left, one.right)] == [4, 4]
