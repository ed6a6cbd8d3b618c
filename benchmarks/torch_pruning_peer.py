"""What Torch-Pruning removes from the same network, and whether its small network computes what the masked one does.

Torch-Pruning cuts in place and proves nothing. Its pruning history, replayed on a twin whose parameters hold their own positions, tells
which numbers it removed; with just these set to zero, the original must compute what the cut network does. Where a network has
attention, it is run as it comes, and again with the recipe that it needs for heads: which layers are projections, and how many heads.
Layers that write the width under a LayerNorm are left alone, as for nnc.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

PROJECTIONS = re.compile(r"(^|\.)(query|key|value|[qkv]_proj|[qkv]_lin|Attention\.[qkv]|c_attn)$")
INSIDE = re.compile(r"(^|\.)(intermediate\.dense|fc1|lin1|ffn|wi(_\d)?|gate_proj|up_proj|pwconv1|c_fc)$")
EXACT = 1e-5

Build = Callable[[], nn.Module]


def torch_pruning(build: Build, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return `{"plain": outcome, "recipe": outcome or None}`; an outcome has its verdict, error, and fraction removed."""
    plain = _outcome(build, inputs, recipe=False)
    heads = any(PROJECTIONS.search(name) for name, _ in build().named_modules())
    return {"plain": plain, "recipe": _outcome(build, inputs, recipe=True) if heads and plain["verdict"] != "exact" else None}


def _outcome(build: Build, inputs: dict[str, torch.Tensor], recipe: bool) -> dict[str, Any]:
    try:
        return _compared(build, inputs, recipe)
    except Exception as error:  # whatever a foreign tool raises is its outcome
        return {"verdict": "crashes", "why": f"{type(error).__name__}: {error}".splitlines()[0][:160]}


def _compared(build: Build, inputs: dict[str, torch.Tensor], recipe: bool) -> dict[str, Any]:
    small = build()
    before = _count(small)
    history = prune(small, inputs, recipe)
    left = _count(small) / before
    if not history:
        return {"verdict": "removes nothing", "removed": 0.0}
    masked = _masked(build, inputs, history)
    with torch.no_grad():
        expected, found = first(masked(**inputs)), first(small(**inputs))
    error = float((expected - found).abs().max() / expected.abs().max())
    return {"verdict": "exact" if error <= EXACT else "differs", "error": error, "removed": 1 - left}


def prune(model: nn.Module, inputs: dict[str, torch.Tensor], recipe: bool) -> list[Any]:
    """Cut half of a network's channels by L1 norm, in place, and return Torch-Pruning's history."""
    import torch_pruning as tp

    heads = _heads(model) if recipe else {}
    asked = {"num_heads": dict(heads), "prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio": 0.5} if heads else {}
    importance, left_alone = tp.importance.GroupMagnitudeImportance(p=1), _left_alone(model)
    pruner = tp.pruner.BasePruner(
        model, inputs, importance=importance, pruning_ratio=0.5, ignored_layers=left_alone, output_transform=first, **asked
    )
    pruner.step()
    _patch(model, heads)
    history: list[Any] = pruner.pruning_history()
    return history


def _masked(build: Build, inputs: dict[str, torch.Tensor], history: list[Any]) -> nn.Module:
    """Return the original with zeros where the history removes numbers."""
    import torch_pruning as tp

    masked, twin = build(), build()
    graph = tp.DependencyGraph().build_dependency(twin, inputs, output_transform=first)
    for parameter in twin.parameters():
        parameter.data = torch.arange(parameter.numel(), dtype=torch.float64).reshape(parameter.shape)
    graph.load_pruning_history(history)
    with torch.no_grad():
        for name, stays in twin.named_parameters():
            parameter = masked.get_parameter(name)
            if stays.shape != parameter.shape:
                keep = torch.zeros(parameter.numel(), dtype=torch.bool)
                keep[stays.long().flatten()] = True
                parameter.mul_(keep.reshape(parameter.shape))
    return masked


def first(output: Any) -> torch.Tensor:
    """Return the logits of a transformers output."""
    return output["logits"]


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _left_alone(model: nn.Module) -> list[nn.Module]:
    """Return the classifier; and in a LayerNorm model all layers but the first ones of attentions and feed-forwards."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    inside = [module for name, module in layers if PROJECTIONS.search(name) or INSIDE.search(name)]
    if not inside:
        return [layers[-1][1]]
    return [module for _, module in layers if not any(module is other for other in inside)]


def _heads(model: nn.Module) -> dict[nn.Module, int]:
    """Return the number of heads of each projection, as the modules note it."""
    return {module: _noted(parent, name) for name, module, parent in _projections(model)}


def _projections(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    for name, module in model.named_modules():
        if PROJECTIONS.search(name) and isinstance(module, nn.Linear):
            yield name, module, model.get_submodule(name.rpartition(".")[0])


COUNTS = ("num_attention_heads", "num_heads", "n_heads")


def _noted(parent: nn.Module, name: str) -> int:
    for attribute in COUNTS:
        if hasattr(parent, attribute):
            return int(getattr(parent, attribute))
    config = parent.config
    grouped = name.endswith(("k_proj", "v_proj")) and hasattr(config, "num_key_value_heads")
    return int(config.num_key_value_heads if grouped else config.num_attention_heads)


def _patch(model: nn.Module, heads: dict[nn.Module, int]) -> None:
    """Set the numbers of heads that attentions note, as Torch-Pruning's examples ask the user to do by hand."""
    for _, module, parent in _projections(model):
        if module in heads:
            size = module.weight.shape[0]
            for attribute in COUNTS:
                if hasattr(parent, attribute):
                    dim = next(
                        (getattr(parent, n) for n in ("attention_head_size", "head_dim", "key_value_proj_dim") if hasattr(parent, n)), None
                    )
                    if dim:
                        setattr(parent, attribute, size // dim)
            for attribute in ("all_head_size", "inner_dim"):
                if hasattr(parent, attribute):
                    setattr(parent, attribute, size)
