"""Which models the adapter works on: those whose weights are their own parameters, not computed from others by a hook."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.nn.utils import prune

from nnc.errors import ModelError
from nnc_torch.layers import layers_of, parametrizations
from nnc_torch.masks import Mask
from nnc_torch.taps import Leaf
from nnc_torch.views import SeenParameter

_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
_OLD_HOOKS = {"WeightNorm": "remove_weight_norm", "SpectralNorm": "remove_spectral_norm"}


def check(model: Any) -> None:
    """Raise ModelError, with what to do, for a model that the adapter cannot work on."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"a {type(model).__name__} is no torch.nn.Module.")
    name = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(f"{name}: TorchScript has no Python modules to change; give the nn.Module that was scripted.")
    if name in _WRAPPERS:
        raise ModelError(f"{name} wraps the model; give the model itself (model.{_WRAPPERS[name]}), and wrap the result again.")
    for layer, module in layers_of(model):
        _check_module(layer or name, module)


def _check_module(layer: str, module: nn.Module) -> None:
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise ModelError(f"{layer}.{name} has no shape yet (a lazy module): run the model once on example inputs first.")
    for hook in module._forward_pre_hooks.values():
        _check_hook(layer, hook)
    for name, chain in parametrizations(module).items():
        foreign = [type(item).__name__ for item in chain if not isinstance(item, Mask | SeenParameter | Leaf)]
        if foreign:
            raise ModelError(
                f"{layer}.{name} is computed by the parametrization {foreign[0]}, so it is no parameter that could be cut: call "
                f"torch.nn.utils.parametrize.remove_parametrizations({layer}, {name!r}) first."
            )


def _check_hook(layer: str, hook: Any) -> None:
    if isinstance(hook, prune.BasePruningMethod):
        name = hook._tensor_name
        raise ModelError(
            f"{layer}.{name} is computed by torch.nn.utils.prune from {name}_orig and {name}_mask, so it is no parameter: keep "
            f"{name}_mask as the mask if you want it, then call torch.nn.utils.prune.remove({layer}, {name!r}) first."
        )
    remove = _OLD_HOOKS.get(type(hook).__name__)
    if remove and type(hook).__module__.startswith("torch.nn.utils."):
        raise ModelError(f"{layer}.{hook.name} is computed by {type(hook).__name__}: call torch.nn.utils.{remove}({layer}) first.")
