"""The variables that a view or an objective keeps with the model.

Trained ones are Parameters, but no module holds them: the user's `model.parameters()` and `state_dict()` do not change. They move
to the device of what is seen when it is first seen there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from nnc.errors import ConfigError
from nnc.graph.ir import Array
from nnc.views import Variable
from nnc_torch.inference import to_numpy


class Cell:
    """One variable; those of one `shared` name are one cell."""

    def __init__(self, variable: Variable, device: torch.device) -> None:
        tensor = torch.as_tensor(np.array(variable.value), device=device)
        if tensor.is_floating_point():
            tensor = tensor.to(torch.get_default_dtype())
        self.tensor = nn.Parameter(tensor) if variable.trainable else tensor
        self.group = variable.group if variable.trainable else None
        self.shared = variable.shared

    def fits(self, variable: Variable) -> bool:
        group = variable.group if variable.trainable else None
        return (tuple(self.tensor.shape), self.group, self.shared) == (np.shape(variable.value), group, variable.shared)

    def move(self, device: torch.device) -> None:
        if self.tensor.device == device:
            return
        moved = self.tensor.detach().to(device)
        if not isinstance(self.tensor, nn.Parameter):
            self.tensor = moved
        elif device.type == "meta":
            self.tensor = nn.Parameter(moved)
        else:  # the same object, as its optimizer needs it
            self.tensor.data = moved
            self.tensor.grad = None if self.tensor.grad is None else self.tensor.grad.to(device)


class Variables:
    """Tensors by name: the `State` that a view or an objective is handed."""

    def __init__(self, variables: Mapping[str, Variable], device: torch.device, shared: dict[str, Cell] | None = None) -> None:
        """`shared` are the cells that have a shared name; new ones are added."""
        self.device = device
        self.cells = {name: _cell(name, variable, device, {} if shared is None else shared) for name, variable in variables.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.cells[name].tensor

    @torch.no_grad()
    def assign(self, name: str, value: Any) -> None:
        cell = self.cells[name]
        old = cell.tensor
        new = torch.as_tensor(value, device=old.device).detach()
        if new.shape != old.shape:
            raise ValueError(f"the variable {name!r} has shape {tuple(old.shape)}; a value of shape {tuple(new.shape)} was assigned.")
        if cell.group is not None:
            raise ValueError(f"the variable {name!r} is trained; only untrained ones are assigned.")
        # Another tensor, not other numbers in this one: a backward pass may still need the old numbers.
        cell.tensor = new.to(old.dtype, copy=True)

    def move(self, device: torch.device) -> None:
        """Move everything to a device."""
        self.device = device
        for cell in self.cells.values():
            cell.move(device)

    def numbers(self) -> dict[str, Array]:
        return {name: to_numpy(cell.tensor).copy() for name, cell in self.cells.items()}

    @torch.no_grad()
    def set_numbers(self, numbers: Mapping[str, Array]) -> None:
        """Set some of the variables."""
        for name, array in numbers.items():
            tensor = self.cells[name].tensor
            new = torch.as_tensor(np.array(array), device=tensor.device)
            if isinstance(tensor, nn.Parameter):
                tensor.copy_(new)
            else:
                self.assign(name, new)

    def check_numbers(self, numbers: Mapping[str, Array], place: str) -> None:
        """Raise ConfigError where `set_numbers` would not take them."""
        for name, array in numbers.items():
            if name not in self.cells:
                raise ConfigError(f"{place}: there is no variable {name!r}; there are {sorted(self.cells)}.")
            expected = tuple(self.cells[name].tensor.shape)
            if np.shape(array) != expected:
                raise ConfigError(f"{place}: the variable {name!r} has shape {expected}; numbers of shape {np.shape(array)} were given.")

    def fits(self, variables: Mapping[str, Variable]) -> bool:
        """Say whether these are variables of such names, shapes and groups."""
        return self.cells.keys() == variables.keys() and all(self.cells[name].fits(variable) for name, variable in variables.items())


def _cell(name: str, variable: Variable, device: torch.device, shared: dict[str, Cell]) -> Cell:
    known = shared.get(variable.shared) if variable.shared else None
    if known is not None and not known.fits(variable):
        expected = tuple(known.tensor.shape)
        raise ConfigError(f"the shared variable {variable.shared!r} has shape {expected}, and as {name!r} {np.shape(variable.value)}.")
    cell = known or Cell(variable, device)
    if variable.shared:
        shared[variable.shared] = cell
    return cell
