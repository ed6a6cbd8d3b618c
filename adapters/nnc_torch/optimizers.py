"""The optimizer of a training: what the user gave, or one like it, built again for each training and for a smaller model."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from nnc.errors import ConfigError
from nnc_torch.instruments import instruments

_BEHIND = re.compile(r"parametrizations\.(\w+)\.original$")


@dataclass(frozen=True)
class Again:
    """What builds optimizers like one that the user gave, each in its first state: its class, and its groups by names of parameters."""

    kind: type[Optimizer]
    groups: tuple[tuple[tuple[str, ...], Mapping[str, Any]], ...]

    def of(self, model: nn.Module) -> Optimizer:
        """Return an optimizer of the parameters of `model` that have the same names; a layer that left takes its own with it."""
        own = _named(model)
        groups: list[dict[str, Any]] = [
            {"params": [own[name] for name in names if name in own]} | {key: _own(value) for key, value in options.items()}
            for names, options in self.groups
        ]
        return self.kind([group for group in groups if group["params"]])


def again(model: nn.Module, given: Optimizer) -> Again:
    """Return what builds optimizers like `given`, one of the model's parameters.

    Raises `ConfigError` for one of other parameters, and for one that its class cannot build from the options of its groups.
    """
    _check_own(model, given)
    kind, names = type(given), {id(parameter): name for name, parameter in _named(model).items()}
    taken = inspect.signature(kind).parameters
    found = Again(
        kind,
        tuple(
            (
                tuple(names[id(p)] for p in group["params"]),
                {key: _own(value) for key, value in group.items() if key in taken and key != "params"},
            )
            for group in given.param_groups
        ),
    )
    try:
        found.of(model)
    except (TypeError, ValueError) as error:
        why = f"Trainer.optimizer: a {kind.__name__} is given, which cannot be built again for each training from its groups: {error}"
        raise ConfigError(f"{why}. Pass a function that builds it, lambda parameters: ...") from None
    return found


def optimizer_of(model: nn.Module, given: Any) -> Optimizer:
    """Return the optimizer of a model's parameters. Raises `ConfigError` for what is none, or one of another model."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not learning and not (isinstance(given, (Optimizer, Again)) and instruments(model).trained()):
        count = sum(1 for _ in model.parameters())
        raise ConfigError(
            f"Trainer.optimizer: all {count} parameters of the model are frozen (requires_grad=False), so it has nothing to train; "
            "parameter.requires_grad_(True) lets one learn."
        )
    if isinstance(given, Again):
        return given.of(model)
    if isinstance(given, Optimizer):
        made = given
    elif callable(given):
        made = given(learning)
    else:
        raise ConfigError(
            f"Trainer.optimizer: {given!r} is neither an optimizer nor a function such as lambda p: torch.optim.AdamW(p, 1e-4)."
        )
    if not isinstance(made, Optimizer):
        raise ConfigError(f"Trainer.optimizer: the function returned a {type(made).__name__}, no torch.optim.Optimizer.")
    _check_own(model, made)
    return made


def _named(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return a model's parameters by the names that they have without masks and views."""
    return {_BEHIND.sub(r"\1", name): parameter for name, parameter in model.named_parameters()}


def _check_own(model: nn.Module, optimizer: Optimizer) -> None:
    own = {id(parameter) for parameter in model.parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    strangers = sum(id(parameter) not in own for parameter in held)
    if strangers:
        raise ConfigError(
            f"Trainer.optimizer: {strangers} of its {len(held)} parameters are not the model's: it was built for another model, or "
            "before this one was made smaller. Pass a function, lambda p: torch.optim.AdamW(p, 1e-4), that builds it anew."
        )


def _own(value: Any) -> Any:
    """Return an option that no step of another optimizer changes: a rate may be a tensor."""
    return value.clone() if isinstance(value, torch.Tensor) else value
