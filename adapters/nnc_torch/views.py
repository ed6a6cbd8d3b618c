"""See tensors through views: parametrizations behind the mask for parameters, hooks for what passes a layer.

    fc.weight    view2(view1(mask(stored)))          on every read
    fc.output    view2(view1(what forward gave))     on every call

Each place holds the views of its site in their order; a parameter with several names (tied) has those of all its names, once each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.weak import TensorWeakRef

from nnc.errors import ConfigError, nearest
from nnc.views import Site, View, Views
from nnc_torch import ops
from nnc_torch.chains import attach, detach
from nnc_torch.instruments import ATTRIBUTE, Instruments, device_of, instruments, keep
from nnc_torch.layers import canonical, layers_of, parametrizations, private, public, stored_parameters, swap_groups, swapped
from nnc_torch.multihead import close, open_up
from nnc_torch.parts import find, get, inputs_of, put
from nnc_torch.variables import Variables

#: The views of one place, each with its variables.
Stack = tuple[tuple[View, Variables], ...]


class SeenParameter(nn.Module):
    """The parametrization that shows a parameter through views; `groups` as `layers.swap_groups` gives them."""

    def __init__(self, stack: Stack, groups: int) -> None:
        super().__init__()
        self.stack = stack
        self.groups = groups

    def forward(self, stored: torch.Tensor) -> torch.Tensor:
        if not self.groups:
            return seen(self.stack, stored, self.training)
        return swapped(seen(self.stack, swapped(stored, self.groups), self.training), self.groups)


class Remembered:
    """What shared views made of a tensor last, while both live; a copy remembers nothing."""

    def __init__(self) -> None:
        self.before: Any = None

    def __reduce__(self) -> Any:
        return Remembered, ()

    def seen(self, stack: Stack, x: torch.Tensor, training: bool) -> torch.Tensor:
        """Return `seen(stack, x, training)`. Only within a graph of gradients: a tensor that has one belongs to a single forward pass."""
        if x.grad_fn is None or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return seen(stack, x, training)
        given, version, mode, result = self.before or (None, 0, False, None)
        known = result() if given is not None and given() is x and (version, mode) == (x._version, training) else None
        if known is not None:
            return known
        found = seen(stack, x, training)
        self.before = TensorWeakRef(x), x._version, training, TensorWeakRef(found)
        return found


class SeenPassing:
    """The hook that shows what passes a layer through views. Its handle is its own, so that a copied model can take it off."""

    def __init__(self, site: Site, stack: Stack, module: nn.Module, remembered: Remembered | None = None) -> None:
        self.site = site
        self.stack = stack
        self.seen = partial(seen, stack) if remembered is None else partial(remembered.seen, stack)
        self.handle = register(module, site, self)

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, *output: Any) -> Any:
        first = output[0] if output else args[0] if args else None
        if isinstance(first, torch.Tensor) and self.site.tensor in ("input", "output"):  # as nearly always
            shown = self.seen(first, module.training)
            return shown if output else ((shown, *args[1:]), kwargs)
        if output:
            way = find(output[0], self.site)
            return put(output[0], way, self.seen(get(output[0], way), module.training))
        named = inputs_of(module, args, kwargs)
        way = find(named, self.site)
        named = put(named, way, self.seen(get(named, way), module.training))
        values = list(named.values())
        return tuple(values[: len(args)]), {name: named[name] for name in kwargs}


def register(module: nn.Module, site: Site, hook: Any) -> Any:
    """Register a hook where a site lies, `hook(module, args, kwargs[, output])`, and return its handle."""
    if site.tensor.startswith("input"):
        return module.register_forward_pre_hook(hook, with_kwargs=True)
    return module.register_forward_hook(hook, with_kwargs=True)


def seen(stack: Stack, x: torch.Tensor, training: bool) -> torch.Tensor:
    """Return a tensor as it is seen through views, in its own type."""
    kind = x.dtype
    for view, state in stack:
        if state.device != x.device:
            state.move(x.device)
        x = view(x, state, ops, training)
    return x if x.dtype is kind else x.to(kind)


def set_views(model: nn.Module, views: Views) -> None:
    """See a model through `views` and no others. Raises ConfigError, with the model as it was, for sites that it does not have."""
    kept = instruments(model)
    before = kept.views, kept.states
    wanted = {site: tuple({view.name: view for view in views[site]}.values()) for site in views if views[site]}
    modules = check_sites(model, wanted)
    _remove(model)
    try:
        kept.states = _states(modules, wanted, kept, device_of(model))
        kept.views = wanted
        _add(model, modules, kept)
    except BaseException:
        _remove(model)
        kept.views, kept.states = before
        _add(model, check_sites(model, kept.views), kept)
        raise
    finally:
        keep(model, kept)


@contextmanager
def set_aside(model: nn.Module) -> Iterator[None]:
    """Take the views off while the block runs, and put the same ones on again."""
    kept = instruments(model)
    if not kept.views:
        yield
        return
    _remove(model)
    del vars(model)[ATTRIBUTE]
    try:
        yield
    finally:
        _add(model, dict(layers_of(model)), kept)
        keep(model, kept)


def check_sites(model: nn.Module, sites: Any) -> dict[str, nn.Module]:
    """Return the modules of a model by name. Raises ConfigError for a site that names none, or no parameter of it."""
    modules = dict(layers_of(model))
    for site in sites:
        if site.layer not in modules:
            raise ConfigError(f"{site}: the model has no layer {site.layer!r}{nearest(site.layer, modules)}.")
        module = modules[site.layer]
        names = [public(module, name) for name in stored_parameters(module)]
        if site.is_parameter and site.tensor not in names:
            raise ConfigError(f"{site}: the layer has no parameter {site.tensor!r}; it has {names}{nearest(site.tensor, names)}.")
    return modules


def stored_at(module: nn.Module, site: Site) -> tuple[str, nn.Parameter]:
    """Return torch's name of the parameter at a site, and the parameter."""
    name = private(module, site.tensor)
    return name, stored_parameters(module)[name]


def _states(modules: Mapping[str, nn.Module], views: Views, kept: Instruments, device: torch.device) -> dict[Any, Variables]:
    """Return the variables of views: those that were there, and new ones; of a tied parameter one for all its names."""
    found: dict[tuple[Site, str], Variables] = {}
    tied: dict[tuple[Any, str], Variables] = {}
    shared = kept.shared()
    for site, given in views.items():
        place = id(stored_at(modules[site.layer], site)[1]) if site.is_parameter else site
        for view in given:
            if (place, view.name) not in tied:
                variables, known = view.variables(), kept.states.get((site, view.name))
                tied[place, view.name] = known if known and known.fits(variables) else Variables(variables, device, shared)
            found[site, view.name] = tied[place, view.name]
    return found


def _add(model: nn.Module, modules: Mapping[str, nn.Module], kept: Instruments) -> None:
    open_up(modules, kept.views)
    stacks: dict[int, dict[str, tuple[View, Variables]]] = {}
    shared: dict[tuple[str, ...], Remembered] = {}
    for site, views in kept.views.items():
        stack = {view.name: (view, kept.states[site, view.name]) for view in views}
        if site.is_parameter:
            first = stacks.setdefault(id(stored_at(modules[site.layer], site)[1]), {})
            first.update({name: item for name, item in stack.items() if name not in first})
        else:
            names = [view.shared for view in views]
            remembered = shared.setdefault(tuple(names), Remembered()) if all(names) else None
            SeenPassing(site, tuple(stack.values()), modules[site.layer], remembered)
    for site in kept.views:
        if site.is_parameter:
            _try(modules[site.layer], site, tuple(stacks[id(stored_at(modules[site.layer], site)[1])].values()))
    for module in list(modules.values()):
        for name, tensor in stored_parameters(module).items():
            if id(tensor) in stacks:
                attach(module, name, SeenParameter(tuple(stacks[id(tensor)].values()), swap_groups(module, name)))


@torch.no_grad()
def _try(module: nn.Module, site: Site, stack: Stack) -> None:
    """Raise ConfigError where a view does not give a parameter's shape."""
    x = canonical(module, *stored_at(module, site)).detach()
    shown = seen(stack, x, training=False)
    if shown.shape != x.shape:
        names = [view.name for view, _ in stack]
        raise ConfigError(f"{site}: the views {names} give the shape {tuple(shown.shape)}; the parameter has {tuple(x.shape)}.")


def _remove(model: nn.Module) -> None:
    for _, module in layers_of(model):
        for name, chain in parametrizations(module).items():
            for item in [item for item in chain if isinstance(item, SeenParameter)]:
                detach(module, name, item)
        for hook in list(_hooks(module)):
            hook.handle.remove()
        close(module)


def _hooks(module: nn.Module) -> Iterator[SeenPassing]:
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        if isinstance(hook, SeenPassing):
            yield hook
