"""Give a list of places in the user's code others, after some of what it took, or of what lies between, has left.

y[:, [0, 2, 3]]               1 and 2 leave                   y[:, [0, 1]]
y[:, self.places]             a list, or a tuple              y[:, [0, 1]]
y.index_select(1, self.p)     a tensor, or a buffer           y.index_select(1, self.p.new_tensor([0, 1]))
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence
from typing import Any

from nnc.expressions import number, swap
from nnc.graph.plan import Reshape

#: What is handed the places to take, or makes a tensor of them.
_TAKING = {"tensor", "as_tensor", "LongTensor", "constant", "convert_to_tensor", "index_select", "gather", "take", "array", "asarray"}


def lists(tree: ast.AST, reshape: Reshape, owner: Any) -> list[ast.expr]:
    """Return the expressions that fit best the places that `reshape` says were taken; it is clear which is meant where that is one."""
    keys = {id(each.slice) for each in ast.walk(tree) if isinstance(each, ast.Subscript)}
    on_line, used = set(_on_line(tree, reshape.line)), set(_used(tree))
    found = [
        ((id(each) in on_line, id(each) in used), each)
        for each in ast.walk(tree)
        if isinstance(each, ast.expr) and id(each) not in keys and _same(_places(each, owner), reshape.old)
    ]
    return [each for fit, each in found if fit == max(fit for fit, _ in found)]


def relist(tree: ast.AST, expression: ast.expr, new: Sequence[int], owner: Any) -> None:
    """Put other places in the place of an expression in the tree."""
    places: ast.expr = ast.List([ast.Constant(each) for each in new], ast.Load())
    if hasattr(_value(expression, owner), "new_tensor"):
        places = ast.Call(ast.Attribute(copy.deepcopy(expression), "new_tensor", ast.Load()), [places], [])
    swap(tree, expression, ast.copy_location(places, expression))
    ast.fix_missing_locations(tree)


def _on_line(tree: ast.AST, line: int) -> Iterator[int]:
    """Yield what stands in the statements of a line."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.stmt) and not hasattr(statement, "body") and _spans(statement, line):
            yield from (id(each) for each in ast.walk(statement))


def _spans(statement: ast.stmt, line: int) -> bool:
    return statement.lineno <= line <= (statement.end_lineno or statement.lineno)


def _used(tree: ast.AST) -> Iterator[int]:
    """Yield what stands between brackets, or is given to something that takes places."""
    for each in ast.walk(tree):
        if isinstance(each, ast.Subscript):
            yield from (id(part) for part in (each.slice.elts if isinstance(each.slice, ast.Tuple) else [each.slice]))
        elif isinstance(each, ast.Call) and getattr(each.func, "attr", getattr(each.func, "id", "")) in _TAKING:
            yield from (id(part) for part in (*each.args, *(keyword.value for keyword in each.keywords)))


def _places(expression: ast.expr, owner: Any) -> list[int] | None:
    """Return the whole numbers of a list in the code, or of an attribute that holds a list, a tuple, or a vector; else None."""
    if isinstance(expression, (ast.List, ast.Tuple)):
        listed: Any = [number(each, owner) for each in expression.elts]
    else:
        value = _value(expression, owner)
        listed = value.tolist() if hasattr(value, "tolist") else value
    whole = isinstance(listed, (list, tuple)) and listed and all(isinstance(each, int) for each in listed)
    return list(listed) if whole else None


def _value(expression: ast.expr, owner: Any) -> Any:
    """Return what an attribute of `self` holds, else None."""
    if isinstance(expression, ast.Attribute) and isinstance(expression.value, ast.Name) and expression.value.id == "self":
        return getattr(owner, expression.attr, None)
    return None


def _same(given: list[int] | None, taken: Sequence[int]) -> bool:
    """Tell whether places in the code are those that were taken; negative ones count from the end, wherever that is."""
    if given is None or len(given) != len(taken):
        return False
    pairs = list(zip(given, taken, strict=True))
    ends = {place - each for each, place in pairs if each < 0}
    return all(each == place for each, place in pairs if each >= 0) and (not ends or (len(ends) == 1 and min(ends) > max(taken)))
