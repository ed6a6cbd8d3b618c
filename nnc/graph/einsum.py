"""Einsum of two operands as what it is: a batched matrix product between transposes and reshapes.

    bqhd,bkhd->bhqk    transpose to (b, h, q, d) and (b, h, d, k), multiply, and the result lies as it should

Letters stand for axes: in both operands and the result (batch), in both operands only (summed over), in one and the result (free).
The steps are the same for all sizes of the axes, so that a model with fewer heads, be it one, shows the same operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from string import ascii_uppercase

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operand:
    """An operand's axes in the order `permutation`, then as a batch of matrices: `shape` is `(*batch, rows, columns)`."""

    permutation: Shape
    turned: Shape
    shape: Shape


@dataclass(frozen=True)
class Product:
    """The product of two operands, of shape `product`; then its axes apart again, `split`, in the order `permutation`, which is `shape`."""

    left: Operand
    right: Operand
    product: Shape
    split: Shape
    permutation: Shape
    shape: Shape


def product(equation: str, shapes: Sequence[Shape]) -> Product | None:
    """Return the steps of an einsum; None where it is no product of two operands.

    That is where an operand has a letter twice, as for a diagonal, or one that it alone sums over; or where a letter has two sizes.
    """
    terms, result = _letters(equation.replace(" ", ""), [len(shape) for shape in shapes])
    if len(shapes) != 2 or len(terms) != 2 or not _is_plain(shapes, terms, result):
        return None
    a, b = terms
    size = {letter: axis for term, shape in zip(terms, shapes, strict=True) for letter, axis in zip(term, shape, strict=True)}
    batch = [letter for letter in result if letter in a and letter in b]
    summed = [letter for letter in a if letter in b and letter not in result]
    rows, columns = [letter for letter in a if letter not in b], [letter for letter in b if letter not in a]
    left, right = _operand(a, (batch, rows, summed), size), _operand(b, (batch, summed, columns), size)
    order = [*batch, *rows, *columns]
    permutation, split = tuple(order.index(letter) for letter in result), tuple(size[letter] for letter in order)
    return Product(left, right, (*left.shape[:-1], right.shape[-1]), split, permutation, tuple(size[letter] for letter in result))


def _letters(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return one letter an axis, for each operand and the result; those of an ellipsis are capital letters, from the right."""
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if not arrow:
        every = sorted({letter for letter in left if letter.isalpha()})
        result = ("..." if "..." in left else "") + "".join(letter for letter in every if left.count(letter) == 1)
    free = [letter for letter in ascii_uppercase if letter not in equation]
    counts = [rank - len(term.replace("...", "")) for rank, term in zip(ranks, terms, strict=False)]
    spelled = [term.replace("...", "".join(reversed(free[:count]))) for term, count in zip(terms, counts, strict=False)]
    return spelled, result.replace("...", "".join(reversed(free[: max(counts, default=0)])))


def _is_plain(shapes: Sequence[Shape], terms: list[str], result: str) -> bool:
    """Tell whether no operand has a letter twice or one that it alone sums over, and letters have one size each."""
    sizes: dict[str, int] = {}
    for shape, term in zip(shapes, terms, strict=True):
        if len(set(term)) != len(term) or len(term) != len(shape):
            return False
        if any(sizes.setdefault(letter, size) != size for letter, size in zip(term, shape, strict=True)):
            return False
    alone = set(terms[0]) ^ set(terms[1])
    return alone <= set(result) <= sizes.keys() and len(set(result)) == len(result)


def _operand(term: str, parts: tuple[list[str], list[str], list[str]], size: dict[str, int]) -> Operand:
    batch, rows, columns = parts
    order = [*batch, *rows, *columns]
    joined = (prod(size[letter] for letter in rows), prod(size[letter] for letter in columns))
    turned = tuple(size[letter] for letter in order)
    return Operand(tuple(map(term.index, order)), turned, (*(size[letter] for letter in batch), *joined))
