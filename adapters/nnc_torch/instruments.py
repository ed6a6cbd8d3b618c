"""What nnc keeps beside a model in training: its views, its objectives, and what teaches their variables.

Held in an attribute of the model, so that every adapter of it sees the same, and gone when nothing is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import Any

import torch
from torch import nn

from nnc.objective import Objective
from nnc.views import Learning, Site, View
from nnc_torch.variables import Cell, Variables

#: Where a model keeps its `Instruments`.
ATTRIBUTE = "_nnc_instruments"


@dataclass
class Instruments:
    """`states` are the variables of views by (site, view name), `own` those of objectives by name.

    The teacher `follows` the model to another device if it was on the same. `watch` is what the objectives know of the latest forward
    pass, `companion` the optimizer of trained variables, `guard` what stops a step that would leave them untrained, `hook` what adds the
    objectives' terms to the loss in a loop that others wrote.
    """

    views: dict[Site, tuple[View, ...]] = field(default_factory=dict)
    states: dict[tuple[Site, str], Variables] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = ()
    own: dict[str, Variables] = field(default_factory=dict)
    teacher: nn.Module | None = None
    follows: bool = False
    watch: Any = None
    learning: Mapping[str, Learning] = field(default_factory=dict)
    companion: Any = None
    guard: Any = None
    hook: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Instruments:
        """A copied model shares the teacher, and no optimizer steps for it: what the user has steps the original."""
        shared = {"teacher": self.teacher, "companion": None, "guard": None, "hook": None}
        copied = {item.name: deepcopy(getattr(self, item.name), memo) for item in fields(self) if item.name not in shared}
        return Instruments(**copied, **shared)

    @property
    def variables(self) -> dict[tuple[str, str], Variables]:
        """All variables, as `Numbers` names them; views that share theirs (tied parameters) stand under each name."""
        return {(str(site), view): state for (site, view), state in self.states.items()} | {
            (name, ""): own for name, own in self.own.items()
        }

    def hooked(self, hook: Any = None) -> None:
        """Keep a loop's hook in the place of the last one, which a training that was broken off has left."""
        if self.hook is not None:
            self.hook.remove()
        self.hook = hook

    def trained(self) -> dict[str, list[nn.Parameter]]:
        """Return the trained variables by group, each once."""
        found: dict[str, dict[int, nn.Parameter]] = {}
        for state in self.variables.values():
            for cell in state.cells.values():
                if cell.group is not None:
                    found.setdefault(cell.group, {})[id(cell.tensor)] = cell.tensor
        return {group: list(parameters.values()) for group, parameters in found.items()}

    def shared(self) -> dict[str, Cell]:
        """Return the variables that have a shared name."""
        return {cell.shared: cell for state in self.variables.values() for cell in state.cells.values() if cell.shared}


def instruments(model: nn.Module) -> Instruments:
    """Return what a model has; an empty one, kept by nobody, where it has nothing."""
    found: Instruments = vars(model).get(ATTRIBUTE) or Instruments()
    return found


def keep(model: nn.Module, instruments: Instruments) -> None:
    """Note on a model what it has now, or take the note away where that is nothing."""
    has = instruments
    if has.views or has.objectives or has.learning or has.companion or has.guard:
        vars(model)[ATTRIBUTE] = instruments
    else:
        vars(model).pop(ATTRIBUTE, None)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")
