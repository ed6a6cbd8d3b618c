"""The forms in which a user writes a loss, told by the name of its first parameter.

f(outputs, targets)      PyTorch's order, and that of a function whose names say nothing
f(y_true, y_pred)        Keras' order
f(model, batch)          runs the model itself, on a batch of any form
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from nnc.errors import ConfigError

#: Names of a first parameter that say: the targets come first.
TARGETS = ("y_true", "true", "targets", "target", "labels", "label")

_known: WeakKeyDictionary[Callable[..., Any], str | None] = WeakKeyDictionary()
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def calls_model(loss: Callable[..., Any]) -> bool:
    """Tell a loss `f(model, batch)` from one of outputs and targets."""
    return _first(loss) == "model"


def of_pair(loss: Callable[..., Any], outputs: Any, targets: Any) -> Any:
    """Return the loss of outputs and targets, which it is given in its own order.

    Raises `ConfigError` where it fails for want of targets; all other errors are the user's own.
    """
    try:
        return loss(targets, outputs) if _first(loss) in TARGETS else loss(outputs, targets)
    except (TypeError, ValueError, AttributeError) as error:
        if targets is not None:
            raise
        needed = "give batches (inputs, targets), or a dict with labels"
        raise ConfigError(f"Trainer.data: a batch has no targets, and the loss fails without: {error}; {needed}.") from error


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return what a function takes, or None where it does not say. A torch module takes what its `forward` does."""
    try:
        given = inspect.signature(function)
        if hasattr(function, "forward") and all(each.kind in _VARIADIC for each in given.parameters.values()):
            given = inspect.signature(function.forward)
    except (TypeError, ValueError):  # a built-in function shows no signature
        return None
    return given


def _first(function: Callable[..., Any]) -> str | None:
    """Return the name of a function's first parameter; looked up once, for it is asked in every step."""
    try:
        return _known[function]
    except (KeyError, TypeError):  # not seen yet, or nothing that can be a key
        given = signature_of(function)
    name = next(iter(given.parameters), None) if given is not None else None
    with suppress(TypeError):
        _known[function] = name
    return name
