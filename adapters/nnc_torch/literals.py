"""Notice calls before torch takes them apart: the sizes that the user's code gives to `reshape`, and recurrent layers as a whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Literals(TorchFunctionMode):
    """While entered, `sizes` are those of the reshape that runs now, else None; what `handlers` name runs through them."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: tuple[int, ...] | None = None
        self.handlers: Mapping[Any, Callable[..., Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is not torch.Tensor.reshape and func is not torch.reshape:
            return self.handlers.get(func, func)(*args, **(kwargs or {}))
        self.sizes = _sizes(args, kwargs or {})
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.sizes = None

    def resolve(self, given: tuple[int, ...]) -> tuple[int, ...]:
        """Return the user's sizes where they stand for the resolved ones, as (-1, 800) does for (2, 800); else `given`."""
        sizes = self.sizes
        if sizes is None or len(sizes) != len(given):
            return given
        return sizes if all(s in (-1, g) for s, g in zip(sizes, given, strict=True)) else given


def within(module: ModuleType) -> bool:
    """Tell a handler whether a module of nnc makes the call that it handles.

    What stands for a function of torch shows the operations of that, whose own calls reach no handler.
    """
    return sys._getframe(3).f_code.co_filename == module.__file__


def _sizes(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[int, ...]:
    given = kwargs.get("shape", args[1:])
    if len(given) == 1 and not isinstance(given[0], int):
        given = given[0]
    return tuple(given)
