"""Einsum of two operands as what it is: a batched matrix product between transposes and reshapes.

    bqhd,bkhd->bhqk    transpose to (b, h, q, d) and (b, h, d, k), multiply, and the result lies as it should

Letters stand for axes: in both operands and the result (batch), in both operands only (summed over), in one and the result (free).
"""

from __future__ import annotations

from math import prod

from onnx import NodeProto

from nnc.graph.ir import Tensor
from nnc_onnx.read import Reader, Reading, unknown


def einsum(reader: Reader, node: NodeProto) -> None:
    equation = reader.attributes(node)["equation"].decode().replace(" ", "")
    inputs = [reader.tensor(name) for name in node.input]
    terms, result = _letters(equation, [len(x.shape) for x in inputs])
    if len(inputs) != 2 or not _is_plain(inputs, terms, result):
        unknown(reader, node)
        return
    a, b = terms
    size = {letter: axis for term, x in zip(terms, inputs, strict=True) for letter, axis in zip(term, x.shape, strict=True)}
    batch = [letter for letter in result if letter in a and letter in b]
    summed = [letter for letter in a if letter in b and letter not in result]
    left = [letter for letter in a if letter not in b]
    right = [letter for letter in b if letter not in a]
    rows = _seen(reader, inputs[0], a, (batch, left, summed), size)
    columns = _seen(reader, inputs[1], b, (batch, summed, right), size)
    lead = tuple(size[letter] for letter in batch)
    product = reader.join("matmul", (rows, columns), (*lead, rows.shape[-2], columns.shape[-1]))
    order = [*batch, *left, *right]
    split = _regrouped(reader, product, tuple(size[letter] for letter in order))
    reader.emit("transpose", node.output[0], (split,), {"permutation": tuple(order.index(letter) for letter in result)})


def _letters(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return one letter an axis, for each operand and the result; those of an ellipsis are capital letters, from the right."""
    left, _, result = equation.partition("->")
    terms = left.split(",")
    if "->" not in equation:
        every = sorted({letter for term in terms for letter in term if letter.isalpha()})
        result = ("..." if "..." in left else "") + "".join(letter for letter in every if left.count(letter) == 1)
    capitals = [letter for letter in map(chr, range(ord("A"), ord("Z") + 1)) if letter not in equation]
    counts = [rank - len(term.replace("...", "")) for rank, term in zip(ranks, terms, strict=False)]
    spelled = [term.replace("...", "".join(reversed(capitals[:count]))) for term, count in zip(terms, counts, strict=False)]
    return spelled, result.replace("...", "".join(reversed(capitals[: max(counts, default=0)])))


def _is_plain(inputs: list[Tensor], terms: list[str], result: str) -> bool:
    """Tell whether no operand has a letter twice or one that it alone sums over, and letters have one size each."""
    sizes: dict[str, int] = {}
    for x, term in zip(inputs, terms, strict=True):
        if len(set(term)) != len(term) or len(term) != len(x.shape):
            return False
        if any(sizes.setdefault(letter, size) != size for letter, size in zip(term, x.shape, strict=True)):
            return False
    alone = set(terms[0]) ^ set(terms[1])
    return alone <= set(result) <= sizes.keys() and len(set(result)) == len(result)


def _seen(reader: Reader, x: Tensor, term: str, parts: tuple[list[str], list[str], list[str]], size: dict[str, int]) -> Tensor:
    """Return an operand as (*batch, rows, columns)."""
    batch, rows, columns = parts
    order = tuple(term.index(letter) for letter in (*batch, *rows, *columns))
    if order != tuple(range(len(order))):
        x = reader.step("transpose", x, tuple(x.shape[axis] for axis in order), permutation=order)
    lead = tuple(size[letter] for letter in batch)
    return _regrouped(reader, x, (*lead, prod(size[letter] for letter in rows), prod(size[letter] for letter in columns)))


def _regrouped(reader: Reader, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return reader.step("reshape", x, shape) if x.shape != shape else x


READINGS: dict[str, Reading] = {"Einsum": einsum}
