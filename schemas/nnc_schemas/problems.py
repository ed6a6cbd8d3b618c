"""What is wrong with a spec, one line a problem: where, what was given, what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeGuard, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError


class SpecError(ValueError):
    """A spec is wrong; the message has one line for every problem, and each begins with its place."""


def problem(text: str) -> PydanticCustomError:
    """Return the error that a validator raises: `text` reaches the reader as it is."""
    return PydanticCustomError("nnc", "{text}", {"text": text})


def explain(error: ValidationError, place: str, model: type[BaseModel]) -> SpecError:
    """Return `error` in our words: `config_list[1].sparsity: 1.2 is outside [0, 1); ...`."""
    return SpecError("\n".join(_line(detail, place, model) for detail in error.errors(include_url=False)))


def _line(detail: ErrorDetails, place: str, model: type[BaseModel]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"])
    # A place that ends in a space is a file, not an entry: what follows it begins afresh.
    return f"{place}{path.lstrip('.') if place[-1:] in ('', ' ') else path}: {_text(detail, model)}"


def _text(detail: ErrorDetails, model: type[BaseModel]) -> str:
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        known = _within(model, detail["loc"][:-1]).model_fields
        return f"unknown key{nearest_key(key, known)}. Known are {', '.join(known)}."
    if detail["type"] == "missing":
        return "is missing."
    if detail["type"] == "nnc":
        return str(detail["msg"])
    return f"{short(detail['input'])}: {detail['msg'][0].lower()}{detail['msg'][1:]}."


def _within(model: type[BaseModel], path: Iterable[int | str]) -> type[BaseModel]:
    """Return the model that stands at `path` in another: that of a setting in an entry."""
    for part in path:
        field = model.model_fields.get(str(part))
        kinds = (get_args(field.annotation) or (field.annotation,)) if field else ()
        model = next((kind for kind in kinds if _is_model(kind)), model)
    return model


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def nearest_key(word: str, known: Iterable[str] | Mapping[str, Any]) -> str:
    """Return `"; nearest: 'sparsity'"`, or `""` where no known key is close."""
    close = get_close_matches(word.lower(), list(known), n=1, cutoff=0.5)
    return f"; nearest: {close[0]!r}" if close else ""


def short(value: object) -> str:
    """Return `repr(value)`, cut to what fits into a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
