"""Read what passes the layers of a model: hooks that are there while a pass runs, and gone after it, whatever happens.

    forward     numbers of sites in one pass, without gradients
    gradients   d loss / d site: of what passes a layer, and of parameters as the model sees them, masks and views applied

What is read is a copy: code that overwrites a tensor in place (`relu_`) does not change it. Of a layer that runs several times in one
pass the last time counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from nnc.errors import ConfigError, NncError, TrainingError
from nnc.views import Site
from nnc_torch.chains import attach, detach
from nnc_torch.inference import arguments, inference, tensors_in
from nnc_torch.layers import canonical, layers_of, parametrizations, private, stored_parameters
from nnc_torch.multihead import close, open_up
from nnc_torch.parts import find, get, inputs_of, put
from nnc_torch.places import failed_at
from nnc_torch.placing import batch_for
from nnc_torch.scalars import NO_GRADIENT, scalar
from nnc_torch.views import check_sites, register, stored_at


class Tap:
    """The hook that hands what passes at a site to `see`, which may return another tensor to pass on instead."""

    def __init__(self, site: Site, see: Callable[[Site, torch.Tensor], torch.Tensor | None]) -> None:
        self.site, self.see = site, see

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, *output: Any) -> Any:
        value = output[0] if output else inputs_of(module, args, kwargs)
        way = find(value, self.site)
        instead = self.see(self.site, get(value, way))
        if instead is None:
            return None
        value = put(value, way, instead)
        if output:
            return value
        return tuple(list(value.values())[: len(args)]), {name: value[name] for name in kwargs}


@contextmanager
def tapped(model: nn.Module, sites: Collection[Site], see: Callable[[Site, torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
    """Call `see` for what passes at each site while the block runs."""
    modules = check_sites(model, sites)
    opened = open_up(modules, sites)
    handles = [register(modules[site.layer], site, Tap(site, see)) for site in sites]
    try:
        yield
    finally:
        for module in opened:
            close(module)
        for handle in handles:
            handle.remove()


def forward(
    model: nn.Module, batch: Any, sites: Collection[Site] = (), training: bool = False, through: Callable[..., Any] | None = None
) -> tuple[Any, dict[Site, Any]]:
    """Return the outputs of one batch, and what passed each site; parameters as the model sees them.

    Raises `ConfigError` where the model fails on the batch, or does not reach a site.
    """
    found: dict[Site, torch.Tensor] = {}

    def see(site: Site, tensor: torch.Tensor) -> None:
        found[site] = tensor.detach().clone() if site.layer else tensor.detach()

    given = batch_for(model, batch)
    args, kwargs = ((), {}) if through is not None else arguments(model, given, "batch")
    modules = check_sites(model, sites)
    passing = [site for site in sites if not site.is_parameter]
    with in_mode(model, training), torch.no_grad(), tapped(model, passing, see):
        outputs = _outputs(model, args, kwargs) if through is None else through(model, given)
        require_reached(passing, found)
        shown = {site: _shown(modules[site.layer], site) for site in sites if site.is_parameter}
    return outputs, {site: found[site] if site in found else shown[site] for site in sites}


def _outputs(model: nn.Module, args: Any, kwargs: Any) -> Any:
    try:
        return model(*args, **kwargs)
    except (NncError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shapes = ", ".join(f"{tuple(tensor.shape)}" for tensor in tensors_in((args, kwargs)))
        what = f"the model failed on a batch of shape {shapes}: {type(error).__name__}: {error}"
        raise ConfigError(f"{failed_at(model, error)[0]}: {what}") from error


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put all modules into training or inference mode while the block runs."""
    if not training:
        with inference(model):
            yield
        return
    before = [module for module in model.modules() if not module.training]
    for module in before:
        module.training = True
    try:
        yield
    finally:
        for module in before:
            module.training = False


def require_reached(sites: Collection[Site], found: Collection[Site]) -> None:
    """Raise ConfigError that names the sites which a pass did not reach."""
    missed = [str(site) for site in sites if site not in found]
    if missed:
        why = "the layer did not run on this batch, or other code reads its weight; exclude it"
        raise ConfigError(f"{', '.join(missed)}: no forward pass reaches it: {why}.")


def _shown(module: nn.Module, site: Site) -> torch.Tensor:
    return canonical(module, site.tensor, getattr(module, private(module, site.tensor)).detach())


def gradients(
    model: nn.Module, loss: Callable[..., Any], sites: Collection[Site], batch: tuple[Any, ...] = ()
) -> tuple[float, dict[Site, torch.Tensor]]:
    """Return `loss(model, *batch)`, and its gradient with respect to each site; stored gradients stay as they are."""
    modules = check_sites(model, sites)
    edges: dict[Site, Any] = {}

    def see(site: Site, tensor: torch.Tensor) -> torch.Tensor | None:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            raise ConfigError(f"{site}: what passes there is {tensor.dtype}; only floating-point numbers have gradients.")
        fresh = None if tensor.requires_grad else tensor.detach().requires_grad_()
        # The edge, not the tensor: a later operation may overwrite the tensor in place.
        edges[site] = torch.autograd.graph.get_gradient_edge(tensor if fresh is None else fresh)
        return fresh

    passing = [site for site in sites if not site.is_parameter]
    with ExitStack() as stack:
        leaves = stack.enter_context(_leaves(model, modules, [site for site in sites if site.is_parameter]))
        stack.enter_context(tapped(model, passing, see))
        stack.enter_context(in_mode(model, False))
        stack.enter_context(torch.enable_grad())
        value = scalar(loss(model, *batch), error=ConfigError)
        if not value.requires_grad and sites:
            raise TrainingError(f"Trainer.loss: {NO_GRADIENT}.")
        require_reached(passing, edges)
        wanted = [edges[site] if site in edges else leaves[site] for site in sites]
        found = torch.autograd.grad(value, wanted, allow_unused=True) if wanted else ()
    return float(value.detach()), {site: _gradient(modules, site, each) for site, each in zip(sites, found, strict=True)}


def _gradient(modules: dict[str, nn.Module], site: Site, gradient: torch.Tensor | None) -> torch.Tensor:
    if gradient is None:
        raise ConfigError(f"{site}: the loss does not depend on it, so it has no gradient.")
    return canonical(modules[site.layer], site.tensor, gradient) if site.is_parameter else gradient


class Leaf(nn.Module):
    """The last parametrization of a chain while gradients are taken: what it shows is a leaf, the same one on each read."""

    def __init__(self) -> None:
        super().__init__()
        self.leaf: torch.Tensor | None = None

    def forward(self, shown: torch.Tensor) -> torch.Tensor:
        if self.leaf is None:
            self.leaf = shown.detach().requires_grad_()
        return self.leaf


@contextmanager
def _leaves(model: nn.Module, modules: dict[str, nn.Module], sites: Collection[Site]) -> Iterator[dict[Site, torch.Tensor]]:
    """Give, for each site, the tensor of which to take the gradient: the parameter, or what stands for it in front of the model."""
    found: dict[Site, torch.Tensor] = {}
    leaves: dict[int, Leaf] = {}
    for site in sites:
        name, parameter = stored_at(modules[site.layer], site)
        if name in parametrizations(modules[site.layer]) or not parameter.requires_grad:
            leaves.setdefault(id(parameter), Leaf())
        else:
            found[site] = parameter
    placed_at = [
        (module, name, leaves[id(tensor)])
        for _, module in (layers_of(model) if leaves else ())
        for name, tensor in stored_parameters(module).items()
        if id(tensor) in leaves
    ]
    with torch.no_grad():
        for module, name, leaf in placed_at:
            attach(module, name, leaf)
            getattr(module, name)
    try:
        for site in sites:
            if site not in found:
                leaf = leaves[id(stored_at(modules[site.layer], site)[1])].leaf
                assert leaf is not None
                found[site] = leaf
        yield found
    finally:
        for module, name, leaf in placed_at:
            detach(module, name, leaf)
