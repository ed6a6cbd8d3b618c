"""See parameters through masks for one forward pass, and leave the model alone: what reads a masked parameter is given a masked copy.

A copy lives as long as the operation that reads it, so the weights are never held twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Seen(TorchDispatchMode):
    """While entered, operations see parameters through `masks`, which are by the id of the stored parameter."""

    def __init__(self, masks: Mapping[int, torch.Tensor]) -> None:
        super().__init__()
        self._masks = masks

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return func(*self.masked(args), **{name: self.masked(value) for name, value in (kwargs or {}).items()})

    def masked(self, value: Any) -> Any:
        """Return an argument, or a list of them, with masked copies in the place of parameters that have a mask."""
        if isinstance(value, tuple | list):
            holds = any(isinstance(item, torch.Tensor | tuple | list) for item in value)  # no sizes
            return type(value)([self.masked(item) for item in value]) if holds else value
        if not isinstance(value, torch.Tensor) or id(value) not in self._masks:
            return value
        return torch.where(self._masks[id(value)], value.detach(), 0.0)
