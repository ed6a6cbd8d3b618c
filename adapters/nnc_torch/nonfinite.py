"""Find where a training step first had a number that is not finite: the same batch once more, watched layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nnc_torch.inference import tensors_in
from nnc_torch.layers import join, layers_of, stored_parameters


def first_not_finite(model: nn.Module, run: Callable[[], torch.Tensor | None], batch: Any = None) -> str:
    """Return, in words, what was not finite first when `run()` runs the model on `batch`, and, if it returns a loss, in its gradient."""
    parameters = {join(layer, name): stored for layer, module in layers_of(model) for name, stored in stored_parameters(module).items()}
    for path, stored in parameters.items():
        if not _finite(stored):
            return f"the parameter {path!r} was not finite before the step"
    found: list[str] = []
    with _watched(model, found):
        loss = run()
        if loss is not None and not found and not _finite(loss):
            return "every layer's output is finite, the loss that is taken of them is not" + _of_batch(batch)
        if loss is not None and not found and loss.requires_grad:
            _differentiate(loss, {path: stored for path, stored in parameters.items() if stored.requires_grad}, found)
    nothing = "every layer's output is finite" if loss is None else "run once more, all was finite"
    return (f"{found[0]} was the first that is not finite" if found else nothing) + _of_batch(batch)


def _of_batch(batch: Any) -> str:
    """Say so where the data are to blame."""
    infinite = any(tensor.is_floating_point() and not _finite(tensor) for tensor in tensors_in(batch))
    return ", and the batch itself has NaN or infinite numbers" if infinite else ""


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
