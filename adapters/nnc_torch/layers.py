"""What a torch module is called, and how its parameters lie.

torch stores weights in the canonical `(out, in, *kernel)` but for two: a transposed convolution `(in, out / groups, *kernel)` and
transformers' `Conv1D`, a linear layer that keeps `(in, out)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import parametrize

from nnc_torch import ops

T = TypeVar("T", torch.Tensor, np.ndarray)

#: torch's name -> the neutral one, where they differ.
NEUTRAL: Mapping[str, str] = MappingProxyType({"MultiheadAttention": "MultiHeadAttention"})


#: What nn.MultiheadAttention calls the weight and the bias of its queries, keys and values, and what they are here.
_PACKED: Mapping[str, str] = MappingProxyType({"in_proj_weight": "weight", "in_proj_bias": "bias"})
#: Likewise where keys or values have a width of their own, and so a weight: a head's rows in one of the three stand for it.
_APART: Mapping[str, str] = MappingProxyType(
    {"q_proj_weight": "weight", "k_proj_weight": "key_weight", "v_proj_weight": "value_weight", "in_proj_bias": "bias"}
)
#: What the cells of nn.RNN, LSTM and GRU call theirs; a layer of several cells adds a number to the name, this is its first cell.
_RECURRENT = {"weight_ih": "weight", "weight_hh": "recurrent_weight", "bias_ih": "bias", "bias_hh": "recurrent_bias"}
_FIRST: Mapping[str, str] = MappingProxyType({f"{own}{end}": name for own, name in _RECURRENT.items() for end in ("", "_l0")})


def public(module: nn.Module, parameter: str) -> str:
    """Return the canonical name of a module's parameter; most are torch's own."""
    return _names(module).get(parameter, parameter)


def private(module: nn.Module, parameter: str) -> str:
    """Return torch's name of a module's parameter, given the canonical one."""
    names = _names(module)
    return (
        next((own for own, name in names.items() if name == parameter and own in stored_parameters(module)), parameter)
        if names
        else parameter
    )


def _names(module: nn.Module) -> Mapping[str, str]:
    """Return the canonical names of the parameters that torch calls otherwise."""
    if isinstance(module, nn.MultiheadAttention):
        return _APART if module.in_proj_weight is None else _PACKED
    return _FIRST if isinstance(module, nn.RNNBase | nn.RNNCellBase) else {}


def swapped(array: T, groups: int) -> T:
    """Return `(in, out / groups, *kernel)` as `(out, in / groups, *kernel)`, or that the other way round: it is its own inverse."""
    rows, columns, *kernel = array.shape
    blocks = array.reshape(groups, rows // groups, columns, *kernel)
    return blocks.swapaxes(1, 2).reshape(groups * columns, rows // groups, *kernel)


def swap_groups(module: nn.Module, parameter: str) -> int:
    """Return the groups with which `swapped` makes a parameter canonical, or 0 where it is stored canonically."""
    if parameter != "weight" or not _stores_swapped(type(module)):
        return 0
    return module.groups if isinstance(module, _ConvTransposeNd) else 1


@cache
def _stores_swapped(cls: type) -> bool:
    return issubclass(cls, _ConvTransposeNd) or _is_conv1d(cls)


def canonical(module: nn.Module, parameter: str, array: T) -> T:
    """Return an array in the layout of a module's parameter in the canonical one."""
    groups = swap_groups(module, parameter)
    return swapped(array, groups) if groups else array


def canonical_shape(module: nn.Module, parameter: str, stored: torch.Tensor) -> tuple[int, ...]:
    """Return the canonical shape of a module's parameter, given the stored one."""
    groups = swap_groups(module, parameter)
    return tuple((swapped(stored.detach(), groups) if groups else stored).shape)


def native(module: nn.Module, parameter: str, array: T, groups: int | None = None) -> T:
    """Return a canonical array in the layout in which the module stores it; `groups`: those that it will have, if others."""
    stored = swap_groups(module, parameter)
    return swapped(array, groups or stored) if stored else array


def is_transformers_linear(module: nn.Module) -> bool:
    """Say whether a module is transformers' Conv1D, GPT-2's linear layer, without importing transformers."""
    return _is_conv1d(type(module))


@cache
def _is_conv1d(cls: type) -> bool:
    return any(base.__name__ == "Conv1D" and base.__module__.startswith("transformers.") for base in cls.__mro__)


def type_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names by which a config_list may ask for a module: neutral, more general, and its own class."""
    own = parametrize.type_before_parametrizations(module)
    known = [cls.__name__ for cls in own.__mro__ if cls is not nn.Module and getattr(nn, cls.__name__, None) is cls]
    name = NEUTRAL.get(known[0], known[0]) if known else own.__name__
    names = ["Linear"] if is_transformers_linear(module) else [name]
    if isinstance(module, _ConvNd) and not module.transposed and module.groups == module.in_channels > 1:
        names.insert(0, f"Depthwise{name}")
    return tuple(dict.fromkeys((*names, own.__name__)))


def is_prunable(module: nn.Module) -> bool:
    """Say whether an axis of a module's canonical weight is its output channels."""
    kinds = nn.Linear | nn.Embedding | _ConvNd | nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention
    return isinstance(module, kinds) or is_transformers_linear(module)


def parametrizations(module: nn.Module) -> dict[str, Any]:
    """Return the parametrization lists of a module by the parameter that they stand in front of."""
    return dict(module.parametrizations.items()) if "parametrizations" in module._modules else {}


def stored_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return a module's own parameters by name, those behind a mask included."""
    own = {name: parameter for name, parameter in module._parameters.items() if parameter is not None}
    return own | {name: behind.original for name, behind in parametrizations(module).items()}


def maskable_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return what of a module can be masked: its parameters and, of a BatchNorm without a scale, the mean that it takes away."""
    own: dict[str, torch.Tensor] = {**stored_parameters(module)}
    mean = module._buffers.get("running_mean") if isinstance(module, _NormBase) and "weight" not in own else None
    return own if mean is None else {**own, "running_mean": mean}


def layers_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules of a model by name, without those that nnc or torch puts in for parametrizations."""
    found = [("", model)]
    _add_children(model, "", {id(model)}, found)
    return found


def _add_children(module: nn.Module, prefix: str, seen: set[int], found: list[tuple[str, nn.Module]]) -> None:
    for name, child in module._modules.items():
        if child is not None and id(child) not in seen and not name.endswith("parametrizations"):
            seen.add(id(child))
            found.append((prefix + name, child))
            if child._modules:  # most have none
                _add_children(child, f"{prefix}{name}.", seen, found)


def numbers_of(model: nn.Module) -> dict[str, dict[str, int]]:
    """Return the whole numbers above 1 that modules of the user's own classes note in attributes, by layer."""
    held = ((layer, _numbers_in(module)) for layer, module in layers_of(model))
    return {layer: numbers for layer, numbers in held if numbers}


def _numbers_in(module: nn.Module) -> dict[str, int]:
    if isinstance(module, nn.MultiheadAttention):
        return {"num_heads": module.num_heads}
    if type(module).__module__.startswith("torch.nn."):
        return {}  # `surgery` sets those from the parameters
    return {name: value for name, value in vars(module).items() if type(value) is int and value > 1}


def join(layer: str, parameter: str) -> str:
    """Return a parameter's path."""
    return f"{layer}.{parameter}" if layer else parameter


@dataclass(frozen=True)
class TorchLayer:
    """A module that holds parameters of its own, as an algorithm sees it."""

    name: str
    module: nn.Module

    @property
    def op_type(self) -> str:
        return self.op_types[0]

    @property
    def op_types(self) -> tuple[str, ...]:
        return type_names(self.module)

    @property
    def prunable(self) -> bool:
        return is_prunable(self.module)

    @cached_property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        stored = maskable_tensors(self.module).items()
        return {public(self.module, name): canonical_shape(self.module, name, tensor) for name, tensor in stored}

    @property
    def native(self) -> dict[str, str]:
        return {name: public(self.module, name) for name in maskable_tensors(self.module)}

    @property
    def ops(self) -> Any:
        return ops

    @property
    def weight(self) -> torch.Tensor:
        return self._effective("weight")

    @property
    def bias(self) -> torch.Tensor | None:
        return self._effective("bias") if private(self.module, "bias") in stored_parameters(self.module) else None

    def canonical(self, parameter: str, array: np.ndarray) -> np.ndarray:
        return canonical(self.module, parameter, np.asarray(array))

    def seen(self, parameter: str) -> torch.Tensor:
        """Return a parameter as the model sees it now, masks and views applied, in the canonical shape."""
        return self._effective(parameter)

    def stored(self, parameter: str) -> torch.Tensor:
        """Return a parameter without masks and views, in the canonical shape."""
        name = private(self.module, parameter)
        return canonical(self.module, parameter, maskable_tensors(self.module)[name].detach())

    @torch.no_grad()
    def _effective(self, parameter: str) -> torch.Tensor:
        name = private(self.module, parameter)
        chain = [item for item in parametrizations(self.module).get(name, ()) if item.training]
        try:
            for item in chain:
                item.training = False  # to look at a weight is no step of training: no view follows it
            return canonical(self.module, parameter, getattr(self.module, name).detach())
        finally:
            for item in chain:
                item.training = True
