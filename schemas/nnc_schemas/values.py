"""The values that several specs share: names, fractions, sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import isfinite
from numbers import Real
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from nnc_schemas.problems import problem, short

#: A shape with a type: 2,16:int64.
_TYPED = r"[1-9]\d*(,[1-9]\d*)*(:\w+)?"
_REMOVE = "it is the fraction of channels to REMOVE"


def _names(value: Any) -> tuple[str, ...]:
    """Accept one name where a list is meant, as everybody writes it at some time."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) and name for name in names):
        raise problem(f"{short(value)} is not a list of names.")
    if not names:
        raise problem("the list is empty; leave the key out to select every layer.")
    return tuple(names)


def _number(value: Any, meaning: str) -> float:
    # bool is an int in Python, and "0.5" in YAML is a typing mistake: neither was meant as a number.
    if isinstance(value, bool) or not isinstance(value, Real):
        raise problem(f"{short(value)} is not a number; {meaning}.")
    return float(value)


def _sparsity(value: Any) -> float:
    number = _number(value, _REMOVE)
    if not 0 <= number < 1:
        raise problem(f"{value} is outside [0, 1); {_REMOVE}.")
    return number


def _cap(value: Any) -> float:
    meaning = "it is the largest fraction of a layer that may be REMOVED"
    number = _number(value, meaning)
    if not 0 < number <= 1:
        raise problem(f"{value} is outside (0, 1]; {meaning}.")
    return number


def _floor(value: Any) -> float:
    meaning = "it is the smallest fraction of a layer that is REMOVED"
    number = _number(value, meaning)
    if not 0 <= number < 1:
        raise problem(f"{value} is outside [0, 1); {meaning}.")
    return number


def _threshold(value: Any) -> float:
    meaning = "what scores below it leaves"
    number = _number(value, meaning)
    if not isfinite(number):
        raise problem(f"{value} is not finite; {meaning}.")
    return number


def _group_id(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        raise problem(f"{short(value)} is neither a whole number nor a name; layers with the same one are a group.")
    return value


def _count_of(counted: str) -> Callable[[Any], int]:
    """Return the validator of a whole number above 0; `counted` follows "it is how many"."""

    def count(value: Any) -> int:
        if not _is_size(value):
            raise problem(f"{short(value)} is not a whole number above 0{counted and f'; it is how many {counted}'}.")
        return int(value)

    return count


def _shapes(value: Any) -> tuple[tuple[int, ...] | str, ...]:
    """Accept `[2, 1, 28, 28]` for one input, `[[2, 16], [2, 16]]` for several, and "2,16:int64" for one of another type."""
    one = isinstance(value, str) or (isinstance(value, Sequence) and value and all(_is_size(size) for size in value))
    shapes = [value] if one else value
    if not isinstance(shapes, Sequence) or not shapes or not all(_is_shape(shape) for shape in shapes):
        raise problem(f'{short(value)} is not a list of shapes such as [[2, 1, 28, 28]], or ["2,16:int64"] for whole numbers.')
    return tuple(shape if isinstance(shape, str) else tuple(shape) for shape in shapes)


def _is_shape(value: Any) -> bool:
    if isinstance(value, str):
        return bool(re.fullmatch(_TYPED, value))
    return isinstance(value, Sequence) and all(_is_size(size) for size in value)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


_STRINGS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_POSITIVE = WithJsonSchema({"type": "integer", "minimum": 1})
_SIZES = {"type": "array", "items": {"type": "integer", "minimum": 1}}
_SHAPE = {"anyOf": [_SIZES, {"type": "string", "pattern": f"^{_TYPED}$"}]}
_SHAPES = WithJsonSchema({"type": "array", "items": _SHAPE, "minItems": 1})

Names = Annotated[tuple[str, ...], BeforeValidator(_names), WithJsonSchema({"anyOf": [{"type": "string"}, _STRINGS]})]
Sparsity = Annotated[float, BeforeValidator(_sparsity), WithJsonSchema({"type": "number", "minimum": 0, "exclusiveMaximum": 1})]
Cap = Annotated[float, BeforeValidator(_cap), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1})]
Floor = Annotated[float, BeforeValidator(_floor), WithJsonSchema({"type": "number", "minimum": 0, "exclusiveMaximum": 1})]
Threshold = Annotated[float, BeforeValidator(_threshold), WithJsonSchema({"type": "number"})]
GroupId = Annotated[int | str, BeforeValidator(_group_id), WithJsonSchema({"type": ["integer", "string"]})]
Count = Annotated[int, BeforeValidator(_count_of("")), _POSITIVE]
Block = Annotated[int, BeforeValidator(_count_of("channels make a block")), _POSITIVE]
Batches = Annotated[int, BeforeValidator(_count_of("batches are looked at")), _POSITIVE]
Sharing = Annotated[int, BeforeValidator(_count_of("inputs share a scale")), _POSITIVE]
Shapes = Annotated[tuple[tuple[int, ...] | str, ...], BeforeValidator(_shapes), _SHAPES]
