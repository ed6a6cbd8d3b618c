"""Teach the trained variables: a companion optimizer that steps when the user's does, and never enters it.

    optimizer.step()      the user's parameters, then, by its post-hook, the variables; their gradients are cleared
    backward twice        both gradients add up until that step: accumulation works as for parameters
    GradScaler            gradients are divided by the scale with which it calls the step; where they are inf or NaN they are dropped

A step that the scaler itself leaves out leaves the variables' gradients to the next one.

While there are variables that nothing teaches, or objectives that no loss was asked for, a step of an optimizer of the model's
parameters is an error.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from nnc.errors import ConfigError, nearest
from nnc.views import Learning
from nnc_torch.instruments import Instruments, instruments, keep


def learn(model: nn.Module, groups: Mapping[str, Learning], optimizer: Any = None) -> None:
    """Teach the trained variables after each step of `optimizer`; without one, note how they are to learn."""
    kept = instruments(model)
    unknown = sorted(kept.trained().keys() - groups.keys())
    if unknown:
        raise ConfigError(f"learn: no rate for the group {unknown[0]!r}{nearest(unknown[0], groups)}; given are {sorted(groups)}.")
    followed = None if optimizer is None else _innermost(optimizer)
    if followed is not None and not steps_model(followed, model):
        raise ConfigError(
            f"optimizer: none of the parameters of this {type(followed).__name__} is the model's: it was built for another model, or "
            "before this one was made smaller. Build it from model.parameters() of the model that trains."
        )
    kept.learning = dict(groups)
    if kept.companion is not None:
        kept.companion.close()
        kept.companion = None
    if followed is not None and groups:
        kept.companion = Companion(followed)
    keep(model, kept)
    refresh(model)


def refresh(model: nn.Module) -> None:
    """Follow a change of what is trained: teach new variables, forget old ones, and guard what would be left out."""
    kept = instruments(model)
    trained = kept.trained()
    if not trained and kept.companion is not None:
        kept.companion.close()
        kept.companion, kept.learning = None, {}
    if not trained:
        kept.learning = {}
    if kept.companion is not None:
        kept.companion.teach({group: trained[group] for group in trained if group in kept.learning}, kept.learning)
    if kept.guard is not None:
        kept.guard.close()
    kept.guard = Guard(model) if kept.objectives or _untaught(kept) else None
    keep(model, kept)


def _innermost(optimizer: Any) -> Optimizer:
    """Return the optimizer that accelerate, or another wrapper, steps."""
    inner = optimizer
    while not _has_hooks(inner) and hasattr(inner, "optimizer"):
        inner = inner.optimizer
    if not _has_hooks(inner):
        kind = type(optimizer).__name__
        raise ConfigError(f"optimizer: a {kind} is no torch.optim.Optimizer; pass the one that steps the model's parameters.")
    return inner  # type: ignore[no-any-return]


def steps_model(optimizer: Optimizer, model: nn.Module) -> bool:
    """Say whether an optimizer holds a parameter of the model."""
    own = {id(parameter) for parameter in model.parameters()}
    return any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])


def _has_hooks(optimizer: Any) -> bool:
    return isinstance(optimizer, Optimizer) and "_optimizer_step_post_hooks" in vars(optimizer)


class Companion:
    """The optimizer of the variables, one for each group."""

    def __init__(self, followed: Optimizer) -> None:
        self.optimizers: dict[str, Optimizer] = {}
        self.followed = weakref.ref(followed)
        reference = weakref.ref(self)  # the user's optimizer does not keep the model's variables alive
        self._handle = followed.register_step_post_hook(lambda *_: _step(reference()))

    def teach(self, trained: Mapping[str, list[nn.Parameter]], learning: Mapping[str, Learning]) -> None:
        """Have these variables from now on; those that stay keep their moments."""
        before = {id(p): state for optimizer in self.optimizers.values() for p, state in optimizer.state.items()}
        self.optimizers = {group: _optimizer(learning[group], parameters) for group, parameters in trained.items()}
        for group, parameters in trained.items():
            for parameter in parameters:
                if id(parameter) in before:
                    self.optimizers[group].state[parameter] = before[id(parameter)]

    def parameters(self) -> list[nn.Parameter]:
        return [p for optimizer in self.optimizers.values() for group in optimizer.param_groups for p in group["params"]]

    def step(self) -> None:
        """Step once with the gradients that have added up, and clear them."""
        scale = _scale_of_caller()
        given = [p.grad for p in self.parameters() if p.grad is not None]
        if scale != 1 and given:
            torch._foreach_div_(given, scale)
        finite = not given or bool(torch.isfinite(torch.stack([norm.cpu() for norm in torch._foreach_norm(given)]).sum()))
        for optimizer in self.optimizers.values():
            if finite:
                optimizer.step()
            optimizer.zero_grad()

    def close(self) -> None:
        self._handle.remove()


def _step(companion: Companion | None) -> None:
    if companion is not None:
        companion.step()


def _optimizer(learning: Learning, parameters: list[nn.Parameter]) -> Optimizer:
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[learning.rule]
    return kind(parameters, lr=learning.rate)


def _scale_of_caller() -> float:
    """Return the factor by which a GradScaler that called this step has scaled the loss, 1 where none did.

    It unscales the gradients of the optimizer that it was given, and tells nobody; so it is looked for among the callers.
    """
    frame = sys._getframe(1)
    for _ in range(16):
        if frame is None:
            break
        caller = frame.f_locals.get("self")
        if isinstance(caller, torch.amp.GradScaler):
            return float(caller.get_scale()) if caller.is_enabled() else 1.0
        frame = frame.f_back  # type: ignore[assignment]
    return 1.0


class Guard:
    """Stops a step of an optimizer of the model that would train less than the model has been given."""

    def __init__(self, model: nn.Module) -> None:
        self._model = weakref.ref(model, lambda _: self.close())
        self._handle = register_optimizer_step_pre_hook(self._check)

    def _check(self, optimizer: Optimizer, *_: Any) -> None:
        model = self._model()
        problem = None if model is None else _left_out(instruments(model))
        if model is not None and problem and steps_model(optimizer, model):
            raise ConfigError(problem)

    def close(self) -> None:
        self._handle.remove()


def _left_out(kept: Instruments) -> str | None:
    """Return what a step would leave out, and what to do, or None."""
    untaught = _untaught(kept)
    if untaught:
        remedy = "tell nnc of the optimizer, nnc.compress(model, config, optimizer=optimizer), before the first step"
        return f"optimizer: it steps the model, but variables of {', '.join(untaught)} would not learn: {remedy}."
    if kept.watch is not None and kept.watch.forgotten:
        names = ", ".join(objective.name for objective in kept.objectives)
        return f"loss: what {names} adds to it is missing: call loss = compressed.loss(loss) after the model and before loss.backward()."
    return None


def _untaught(kept: Instruments) -> list[str]:
    taught = kept.learning if kept.companion is not None else {}
    return sorted(kept.trained().keys() - taught.keys())
