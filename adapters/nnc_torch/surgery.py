"""Make the small model: a deep copy of the user's in which each parameter that changes is already the cut one.

The cut parameters are put into deepcopy's memo beforehand, so the full-size model is never copied; ties, hooks, flags and classes
come through as deepcopy brings them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from nnc.adapter import Masks
from nnc.errors import SpeedupError
from nnc.graph.ir import Array
from nnc.graph.plan import Plan
from nnc_torch import configs, multihead
from nnc_torch.caches import forget
from nnc_torch.copies import address, copied, lazily, memory
from nnc_torch.inference import tensors_in
from nnc_torch.layers import canonical, is_transformers_linear, join, layers_of, native, private, public
from nnc_torch.masks import native_masks, unmasked


@dataclass
class Stored:
    """One stored parameter or buffer: the module that holds it first, and every name that it has."""

    tensor: torch.Tensor
    module: nn.Module
    parameter: str
    paths: list[str] = field(default_factory=list)
    objects: list[torch.Tensor] = field(default_factory=list)


def shrink(model: nn.Module, plan: Plan, masks: Masks, folds: Mapping[str, Array]) -> nn.Module:
    """Return the small model; the user's stays as it is."""
    with unmasked(model), torch.no_grad():
        stored = _stored(model)
        biases = _new_biases(model, plan)
        kept = plan.kept_indices({path: tuple(_canonical(s).shape) for s in stored for path in s.paths} | biases)
        keeps, groups = native_masks(model, masks), {size.layer: size.new for size in plan.sizes if size.attribute == "groups"}
        memo: dict[int, Any] = {}
        for item in stored:
            memo.update(_cut(item, keeps, folds, kept, groups))
        small = _copied(model, memo)
        forget(model, small)
    for path, shape in biases.items():
        # nnc.load gives no folds: it sets every number afterwards.
        addend = np.asarray(folds.get(path, np.zeros(shape)))
        _add_bias(small.get_submodule(path.rpartition(".")[0]), addend[kept[path][0]] if path in kept else addend)
    for size in plan.sizes:
        holder = small.get_submodule(size.layer)
        setattr(holder, size.attribute, size.in_place_of(getattr(holder, size.attribute, size.old)))
    for module in small.modules():
        _follow(module)
    small._nnc_notes = configs.follow(model, small)
    return small


def _stored(model: nn.Module) -> list[Stored]:
    found: dict[tuple[Any, ...], Stored] = {}
    for layer, module in layers_of(model):
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                item = found.setdefault(memory(tensor), Stored(tensor, module, name))
                item.paths.append(join(layer, public(module, name)))
                item.objects.append(tensor)
    return list(found.values())


def _canonical(item: Stored) -> torch.Tensor:
    return canonical(item.module, item.parameter, item.tensor.detach())


def _new_biases(model: nn.Module, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the biases that the plan adds."""
    found = {}
    for layer in plan.biases:
        module = model.get_submodule(layer)
        weight = private(module, "weight")
        found[join(layer, "bias")] = tuple(canonical(module, weight, getattr(module, weight).detach()).shape[:1])
    return found


def _cut(
    item: Stored,
    keeps: Mapping[int, torch.Tensor],
    folds: Mapping[str, Array],
    kept: Mapping[str, Mapping[int, Array]],
    groups: Mapping[str, int],
) -> dict[int, Any]:
    """Return `{id(object): its cut copy}` for one stored tensor, `{}` where it is copied as it is."""
    keep = [keeps[id(tensor)] for tensor in item.objects if id(tensor) in keeps]
    addend = next((folds[path] for path in item.paths if path in folds), None)
    indices = next((kept[path] for path in item.paths if path in kept), {})
    if not keep and addend is None and not indices:
        return _tied(item)
    cut = _taken(canonical(item.module, item.parameter, item.tensor.detach()), indices)
    for mask in keep:
        stays = _taken(_distinct(canonical(item.module, item.parameter, mask)), indices)
        if not stays.all():
            cut = torch.where(stays, cut, 0.0)
    if addend is not None:
        exact = _taken(torch.as_tensor(addend, dtype=torch.float64, device=cut.device), indices)
        cut = (cut.double() + exact).to(cut.dtype)
    layer = item.paths[0].rpartition(".")[0]
    cut = native(item.module, item.parameter, cut, groups.get(layer)).contiguous()
    if address(cut) == address(item.tensor):
        cut = lazily(cut)
    return {id(tensor): _like(tensor, cut) for tensor in item.objects}


def _tied(item: Stored) -> dict[int, Any]:
    """Return copies with one memory of parameters that have one memory; `{}` for a single one."""
    if len({id(tensor) for tensor in item.objects}) == 1:
        return {}
    same = lazily(item.tensor.detach())
    return {id(tensor): _like(tensor, same) for tensor in item.objects}


def _taken(tensor: torch.Tensor, indices: Mapping[int, Array]) -> torch.Tensor:
    """Return what stays of a canonical tensor, or of one that repeats itself along its axes of size 1."""
    for axis, index in indices.items():
        if tensor.shape[axis] > 1:
            tensor = tensor.index_select(axis, torch.as_tensor(index, device=tensor.device))
    return tensor


def _distinct(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without its repetitions: one index of each axis that it was expanded along."""
    return tensor[tuple(slice(None) if stride else slice(1) for stride in tensor.stride())]


def _like(tensor: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """Return data as what a stored tensor is: a Parameter with its requires_grad, or a buffer."""
    return nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data


def _copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()  # it lists the parameters as they were last seen, perhaps masked
        for kept in tensors_in([value for value in vars(module).values() if isinstance(value, torch.Tensor | dict | list | tuple)]):
            if not kept.is_leaf:
                memo.setdefault(id(kept), kept.detach().clone())  # an activation that the user's code keeps; deepcopy refuses those
    try:
        small: nn.Module = copied(model, memo)
        return small
    except (TypeError, RuntimeError) as error:
        raise SpeedupError(f"{type(model).__name__}: the model cannot be copied with copy.deepcopy: {error}") from error


def _add_bias(module: nn.Module, bias: Array) -> None:
    weight = getattr(module, private(module, "weight"))
    new = nn.Parameter(torch.as_tensor(bias, dtype=weight.dtype, device=weight.device), weight.requires_grad)
    setattr(module, private(module, "bias"), new)


def _follow(module: nn.Module) -> None:
    """Set the sizes that torch's modules note in attributes to those of their parameters."""
    if isinstance(module, nn.MultiheadAttention):
        multihead.follow(module)
    for attribute, size in _sizes(module).items():
        if getattr(module, attribute, size) != size:
            setattr(module, attribute, size)


def _recurrent_sizes(module: nn.Module) -> dict[str, int]:
    first, state = (getattr(module, private(module, name)) for name in ("weight", "recurrent_weight"))
    # What is projected has two sizes, neither of which changes.
    return {"input_size": first.shape[1]} | ({} if getattr(module, "proj_size", 0) else {"hidden_size": state.shape[1]})


def _sizes(module: nn.Module) -> dict[str, Any]:
    weight = module._parameters.get("weight")
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return _recurrent_sizes(module)
    if isinstance(module, _NormBase):
        vector = weight if weight is not None else module._buffers.get("running_mean")
        return {} if vector is None else {"num_features": vector.shape[0]}
    if weight is None:
        return {}
    shape = tuple(weight.shape)
    if isinstance(module, _ConvNd):
        inputs, outputs = (0, 1) if module.transposed else (1, 0)
        sizes = [shape[0], shape[1] * module.groups]
        return {"in_channels": sizes[inputs], "out_channels": sizes[outputs]}
    if is_transformers_linear(module):
        return {"nx": shape[0], "nf": shape[1]}
    if isinstance(module, nn.Linear):
        return {"in_features": shape[1], "out_features": shape[0]}
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return {"num_embeddings": shape[0], "embedding_dim": shape[1]}
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return {"normalized_shape": shape}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": shape[0]}
    return {"num_parameters": shape[0]} if isinstance(module, nn.PReLU) else {}
