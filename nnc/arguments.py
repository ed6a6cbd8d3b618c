"""Numbers and flags that a user gives a function: one error for each that cannot be meant, with its place and what is allowed."""

from __future__ import annotations

from math import inf, nan
from numbers import Integral, Real
from typing import Any

import numpy as np

from nnc.errors import ConfigError

#: The least number above 0: where 0 itself means nothing.
TINY = float(np.finfo(float).tiny)


def whole_number(place: str, value: Any, least: int, meaning: str) -> int:
    """Return a whole number, also one of NumPy's. A bool is none."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ConfigError(f"{place}: {value!r} is no whole number {'above 0' if least == 1 else f'from {least}'}; {meaning}.")
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
