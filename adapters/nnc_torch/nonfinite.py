"""Find where a training step first had a number that is not finite: the same batch once more, watched layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nnc_torch.inference import tensors_in
from nnc_torch.layers import join, layers_of, stored_parameters


def first_not_finite(model: nn.Module, loss: Callable[[], torch.Tensor]) -> str:
    """Return, in words, what was not finite first when `loss()` runs the model and its gradient is taken."""
    parameters = {join(layer, name): stored for layer, module in layers_of(model) for name, stored in stored_parameters(module).items()}
    for path, stored in parameters.items():
        if not _finite(stored):
            return f"the parameter {path!r} was not finite before the step"
    found: list[str] = []
    with _watched(model, found), torch.enable_grad():
        value = loss()
        if not found and not _finite(value):
            return "every layer's output is finite, the loss that is taken of them is not"
        if not found and value.requires_grad:
            _differentiate(value, {path: stored for path, stored in parameters.items() if stored.requires_grad}, found)
    return f"{found[0]} was the first that is not finite" if found else "run once more, all was finite"


def _differentiate(loss: torch.Tensor, parameters: dict[str, torch.Tensor], found: list[str]) -> None:
    handles = [p.register_hook(lambda g, path=path: _note(found, g, f"the gradient of {path!r}")) for path, p in parameters.items()]
    try:
        torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _watched(model: nn.Module, found: list[str]) -> Iterator[None]:
    def hook(layer: str) -> Callable[..., None]:
        def see(module: nn.Module, args: Any, output: Any) -> None:
            for tensor in tensors_in(output):
                if tensor.is_floating_point():
                    _note(found, tensor, f"the output of {layer!r}")
                    if tensor.requires_grad:
                        tensor.register_hook(lambda g: _note(found, g, f"the gradient of the output of {layer!r}"))

        return see

    handles = [module.register_forward_hook(hook(layer or type(model).__name__)) for layer, module in layers_of(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _note(found: list[str], tensor: torch.Tensor, what: str) -> None:
    if not found and not _finite(tensor):
        found.append(what)


def _finite(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor.detach()).all())
