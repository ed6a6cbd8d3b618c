"""Numbers, flags and functions that a user gives: one error for each that cannot be meant, with its place and what is allowed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import inf, nan
from numbers import Integral, Real
from typing import Any

import numpy as np

from nnc.errors import ConfigError
from nnc.losses import signature_of

#: The least number above 0: where 0 itself means nothing.
TINY = float(np.finfo(float).tiny)


def whole_number(place: str, value: Any, least: int = 1, meaning: str = "") -> int:
    """Return a whole number, also one of NumPy's. A bool is none."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        reason = f"; {meaning}" if meaning else ""
        raise ConfigError(f"{place}: {value!r} is no whole number {'above 0' if least == 1 else f'from {least}'}{reason}.")
    return int(value)


def number(place: str, value: Any, low: float, high: float, meaning: str) -> float:
    """Return a finite number from `low` to `high`. A bool is none."""
    given = nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    if not low <= given <= high or given == inf:
        least = "above 0" if low == TINY else f"from {low:g}"
        raise ConfigError(f"{place}: {value!r} is no number {least}{'' if high == inf else f' to {high:g}'}; {meaning}.")
    return given


def flag(place: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{place}: {value!r} is neither True nor False.")
    return value


def require(holds: bool, message: str) -> None:
    """Raise `ConfigError` unless something holds."""
    if not holds:
        raise ConfigError(message)


def require_takes(place: str, function: Callable[..., Any], *given: str, hint: str = "") -> None:
    """Raise `ConfigError` where a function cannot be called with so many arguments. One that does not say what it takes is let be."""
    signature = signature_of(function)
    if signature is None:
        return
    try:
        signature.bind(*given)
    except TypeError as error:
        name = getattr(function, "__qualname__", type(function).__name__)
        said = inspect.Signature(list(signature.parameters.values()))
        raise ConfigError(f"{place}: {name}{said} is called with ({', '.join(given)}): {error}{hint}.") from None
