"""What is asked of numbers and functions that a user gives; each wrong one is a `ConfigError` that names its place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from nnc.errors import ConfigError
from nnc.losses import signature_of


def require(holds: bool, message: str) -> None:
    """Raise `ConfigError` unless something holds."""
    if not holds:
        raise ConfigError(message)


def whole(place: str, number: Any, least: int = 1) -> int:
    """Return a whole number, of Python or NumPy, that is `least` or more. True and False are none."""
    counts = isinstance(number, (int, np.integer)) and not isinstance(number, bool)
    require(counts and number >= least, f"{place}: {number!r} is no whole number {'above 0' if least == 1 else f'from {least}'}.")
    return int(number)


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
