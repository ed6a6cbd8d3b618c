"""Add terms to a loss: note what the student shows in its latest training pass, run the teacher on the same inputs, and sum.

    forward of the model      inputs and tapped tensors are noted         (training mode, with gradients)
    total(loss, mask)         the teacher runs, terms are computed        (once for each pass)

Nothing of that happens in evaluation, and the teacher is no part of the model: not in its parameters, its state_dict or its copies.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from math import prod
from typing import Any

import torch
from torch import nn

from nnc.errors import ConfigError, NncError
from nnc.objective import Objective, Seen
from nnc.views import Site
from nnc_torch import ops
from nnc_torch.inference import inference
from nnc_torch.instruments import ATTRIBUTE, Instruments, device_of, instruments, keep
from nnc_torch.layers import canonical
from nnc_torch.places import failed_at
from nnc_torch.placing import placed
from nnc_torch.taps import Tap, require_reached, tapped
from nnc_torch.variables import Variables
from nnc_torch.views import check_sites, register, stored_at

#: The call of a forward pass: positional arguments, keyword arguments, and the type that autocast computed in, if it did.
Call = tuple[tuple[Any, ...], dict[str, Any], torch.dtype | None]


class Watch:
    """What the objectives know of the latest forward pass, noted by hooks on the model and its layers."""

    def __init__(self) -> None:
        self.call: Call | None = None
        self.seen: dict[Site, torch.Tensor] = {}
        self.latest: dict[str, torch.Tensor] = {}
        self.handles: list[Any] = []
        self.asked = False

    @property
    def forgotten(self) -> bool:
        """Whether the model has run in training, and no loss was ever asked for."""
        return self.call is not None and not self.asked

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        """A copied model has run nothing yet; the activations of the original's pass cannot be copied."""
        made = memo[id(self)] = Watch()
        made.handles = deepcopy(self.handles, memo)
        return made

    def note_call(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        self.seen.clear()
        self.call = (args, kwargs, _autocast(device_of(model))) if model.training and torch.is_grad_enabled() else None

    def note(self, site: Site, tensor: torch.Tensor) -> None:
        """Note a tensor of a pass in training. Raises `ConfigError` for one that no gradient could go through."""
        if self.call is None:
            return
        if not torch.is_grad_enabled():
            cause = "torch.utils.checkpoint does that with use_reentrant=True; give it use_reentrant=False"
            raise ConfigError(f"{site}: the model runs it without gradients, so what is compared there could not learn: {cause}.")
        self.seen[site] = tensor.clone() if site.layer else tensor

    def taken(self) -> tuple[Call, dict[Site, torch.Tensor]] | None:
        """Return what was noted, once: it holds the pass's activations."""
        if self.call is None:
            return None
        self.asked = True
        found = self.call, dict(self.seen)
        self.call = None
        self.seen.clear()
        return found

    def start(self, model: nn.Module, objectives: Sequence[Objective], modules: Mapping[str, nn.Module]) -> None:
        sites = dict.fromkeys(site for objective in objectives for site in objective.student if not site.is_parameter)
        self.handles = [model.register_forward_pre_hook(self.note_call, with_kwargs=True, prepend=True)]
        self.handles += [register(modules[site.layer], site, Tap(site, self.note)) for site in sites]

    def stop(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []


def _autocast(device: torch.device) -> torch.dtype | None:
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def set_objectives(model: nn.Module, objectives: Sequence[Objective], teacher: Any = None) -> None:
    """Give a model these objectives and no others. Raises ConfigError, with the model as it was, for what it or the teacher lacks."""
    teacher = getattr(teacher, "model", teacher) if not isinstance(teacher, nn.Module) else teacher
    kept = instruments(model)
    names = [objective.name for objective in objectives]
    if len(set(names)) < len(names):
        raise ConfigError(f"objectives: two have one name, among {names}; a name tells their terms and variables apart.")
    modules = check_sites(model, [site for objective in objectives for site in objective.student])
    _check_teacher(objectives, model, teacher)
    own = {}
    for objective in objectives:
        variables, known = objective.variables(), kept.own.get(objective.name)
        own[objective.name] = known if known and known.fits(variables) else Variables(variables, device_of(model))
    if kept.watch is not None:
        kept.watch.stop()
    kept.hooked()
    kept.objectives, kept.own, kept.teacher, kept.watch = tuple(objectives), own, teacher if objectives else None, None
    kept.follows = isinstance(teacher, nn.Module) and device_of(teacher) == device_of(model)
    if objectives:
        kept.watch = Watch()
        kept.watch.start(model, objectives, modules)
    keep(model, kept)


def _check_teacher(objectives: Sequence[Objective], student: nn.Module, teacher: Any) -> None:
    sites = [site for objective in objectives for site in objective.teacher]
    if not sites:
        return
    if not isinstance(teacher, nn.Module):
        reads = next(objective.name for objective in objectives if objective.teacher)
        raise ConfigError(
            f"teacher: the objective {reads!r} reads one; a {type(teacher).__name__} was given, and a torch.nn.Module is needed."
        )
    if teacher is student:
        raise ConfigError("teacher: the model itself was given; give a copy of it, or another model.")
    try:
        check_sites(teacher, sites)
    except ConfigError as error:
        raise ConfigError(f"teacher: {error}") from None


@contextmanager
def set_aside(model: nn.Module) -> Iterator[None]:
    """Take the objectives' hooks off while the block runs."""
    kept = instruments(model)
    if kept.watch is None:
        yield
        return
    kept.watch.stop()
    known = vars(model).pop(ATTRIBUTE)
    try:
        yield
    finally:
        vars(model)[ATTRIBUTE] = known
        kept.watch.start(model, kept.objectives, check_sites(model, ()))


def total(model: nn.Module, loss: Any, mask: Any = None) -> torch.Tensor:
    """Return the loss of the pass that has just run, with all terms."""
    kept = instruments(model)
    if not kept.objectives or (not model.training and loss is not None):
        if loss is None:
            raise ConfigError("loss: None was given, and no objective adds a term to it; give the task's own loss.")
        return loss  # type: ignore[no-any-return]
    noted = kept.watch.taken()
    if noted is None:
        raise ConfigError(
            "loss: no forward pass in training mode, with gradients, has run since the last call; call the model, then this, once each."
        )
    call, student = noted
    home = _home(student, model)
    teacher = _taught(kept, call, home)
    terms: dict[str, torch.Tensor] = {}
    for objective in kept.objectives:
        terms.update(_terms(model, kept, objective, student, teacher, mask))
    weight = prod(objective.task_weight for objective in kept.objectives)
    kept.watch.latest = {name: term.detach() for name, term in terms.items()}
    # A model may only count its steps: then nothing is added, and without a task there is nothing to learn.
    together = sum((term.to(torch.float32).reshape(()) for term in terms.values()), torch.zeros((), device=home, requires_grad=not terms))
    if loss is None:
        return together
    kept.watch.latest["task"] = loss.detach() if isinstance(loss, torch.Tensor) else torch.tensor(float(loss))
    return loss * weight + together


def _home(student: Mapping[Site, torch.Tensor], model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in student.values()), None) or device_of(model)


def _taught(kept: Instruments, call: Call, home: torch.device) -> dict[Site, torch.Tensor]:
    """Run the teacher on the student's inputs, and return what its sites show, on the student's device."""
    sites = list(dict.fromkeys(site for objective in kept.objectives for site in objective.teacher))
    if not sites or kept.teacher is None:
        return {}
    found: dict[Site, torch.Tensor] = {}

    def see(site: Site, tensor: torch.Tensor) -> None:
        found[site] = tensor.detach().clone() if site.layer else tensor.detach()

    args, kwargs, half = call
    if kept.follows and device_of(kept.teacher) != home:
        kept.teacher.to(home)
    where = device_of(kept.teacher)
    passing = [site for site in sites if not site.is_parameter]
    with inference(kept.teacher), torch.autocast(where.type, half, enabled=half is not None), tapped(kept.teacher, passing, see):
        _run(kept.teacher, placed(args, where), placed(_taken_by(kept.teacher, kwargs), where))
    found |= {site: tensor.detach() for site, tensor in _parameters(kept.teacher, sites).items()}
    try:
        require_reached(sites, found)
    except ConfigError as error:
        raise ConfigError(f"teacher: {error}") from None
    return {site: tensor.to(home) for site, tensor in found.items()}


def _run(teacher: nn.Module, args: Any, kwargs: Any) -> None:
    try:
        teacher(*args, **kwargs)
    except (NncError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        what = f"{failed_at(teacher, error)[0]}: {type(error).__name__}: {error}"
        raise ConfigError(f"teacher: it does not run on what the model is given: {what}") from error


def _taken_by(teacher: nn.Module, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments for a teacher: the student's, but for labels that it does not take."""
    parameters = inspect.signature(teacher.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return kwargs
    known = {parameter.name for parameter in parameters}
    unknown = [name for name in kwargs if name not in known and name != "labels"]
    if unknown:
        remedy = "wrap it in a module whose forward takes what the student's takes"
        raise ConfigError(f"teacher: {type(teacher).__name__}.forward takes no {', '.join(unknown)}, which the student is given; {remedy}.")
    return {name: value for name, value in kwargs.items() if name in known}


def _terms(
    model: nn.Module,
    kept: Instruments,
    objective: Objective,
    student: Mapping[Site, torch.Tensor],
    teacher: Mapping[Site, torch.Tensor],
    mask: Any,
) -> dict[str, torch.Tensor]:
    passing = [site for site in objective.student if not site.is_parameter]
    require_reached(passing, student)
    stored = _parameters(model, objective.student)
    shown = {site: stored[site] if site.is_parameter else student[site] for site in objective.student}
    state = kept.own[objective.name]
    home = _home(shown, model)
    state.move(home)
    mask = placed(mask, home)
    seen = Seen(shown, {site: teacher[site] for site in objective.teacher}, state, kept.states, mask)
    return {f"{objective.name}.{name}": term for name, term in objective.terms(seen, ops).items()}


def _parameters(model: nn.Module, sites: Sequence[Site]) -> dict[Site, torch.Tensor]:
    """Return the stored parameters among the sites; a model is not walked through where there are none."""
    stored = [site for site in sites if site.is_parameter]
    modules = check_sites(model, stored) if stored else {}
    return {site: canonical(modules[site.layer], *stored_at(modules[site.layer], site)) for site in stored}


def terms(model: nn.Module) -> dict[str, float]:
    """Return the terms of the last training step by name."""
    watch = instruments(model).watch
    return {name: float(term) for name, term in watch.latest.items()} if watch is not None else {}
