"""Expressions in a user's code that give a size: what number they are, and another in their place."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

_ALLOWED = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Attribute, ast.Name, ast.expr_context)


def number(expression: ast.expr, owner: Any) -> int | None:
    """Return the value of an expression made of integers and of attributes of `self` (`4 * 4 * self.channels`), else None."""
    parts = list(ast.walk(expression))
    if not all(isinstance(part, _ALLOWED) for part in parts) or any(isinstance(part, ast.Name) and part.id != "self" for part in parts):
        return None
    try:
        # Literals, arithmetic and reading attributes only, checked above.
        value = eval(compile(ast.Expression(expression), "<size>", "eval"), {"__builtins__": {}, "self": owner})
    except (AttributeError, TypeError):
        return None
    return value if isinstance(value, int) else None


def attribute(expression: ast.expr | None, owner: Any) -> str | None:
    """Return the name of the attribute of `self` that an expression is and that holds a whole number, else None."""
    if not isinstance(expression, ast.Attribute) or not isinstance(expression.value, ast.Name):
        return None
    return expression.attr if isinstance(vars(owner).get(expression.attr), int) else None


def listed(expression: ast.expr, owner: Any) -> tuple[str, Sequence[int]] | None:
    """Return the name of the attribute of `self` that an expression is, and the whole numbers in it, where it holds a list of them."""
    if not isinstance(expression, ast.Attribute) or not isinstance(expression.value, ast.Name) or expression.value.id != "self":
        return None
    held = vars(owner).get(expression.attr) if owner is not None else None
    if not isinstance(held, list | tuple) or not all(isinstance(item, int) for item in held):
        return None
    return expression.attr, held


def swap(tree: ast.AST, old: ast.expr, new: ast.expr) -> None:
    """Put one expression in the place of another."""
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list):
                value[:] = [new if item is old else item for item in value]
