"""Run a model for its outputs: what example inputs may be, inference mode and back, and outputs as a flat list."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import nn

from nnc.errors import ConfigError, nearest


def arguments(model: nn.Module, example_inputs: Any, place: str = "example_inputs") -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and keyword arguments that example inputs stand for.

    A tensor is the one argument, a tuple or list are positional ones, a dict keyword ones. Raises ConfigError, at `place`, for anything
    else, and where the model's forward does not take them.
    """
    args, kwargs = _split(example_inputs, place)
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        known = signature.parameters
        open_ended = any(each.kind is each.VAR_KEYWORD for each in known.values())
        unknown = [] if open_ended else [name for name in kwargs if name not in known]
        fault = f"it has no {unknown[0]!r}{nearest(unknown[0], known)}" if unknown else error
        raise ConfigError(
            f"{place}: {type(model).__name__}.forward{signature} does not take them: {fault}. "
            "A tensor is the only argument, a tuple or list the positional ones, a dict the keyword ones."
        ) from None
    return args, kwargs


def _split(example_inputs: Any, place: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    kind = type(example_inputs)
    hint = "; torch.from_numpy(...) makes a tensor of it" if isinstance(example_inputs, np.ndarray) else ""
    raise ConfigError(f"{place}: a {kind.__module__}.{kind.__qualname__}; give a torch tensor, or a tuple or dict of them{hint}.")


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    """Yield what `model.modules()` does, without a generator for each level of it."""
    seen, waiting = {id(model)}, [model]
    while waiting:
        module = waiting.pop()
        yield module
        for child in module._modules.values():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                waiting.append(child)


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Put every module into inference mode, without gradients, and give each its own training flag back."""
    training = [module for module in _modules(model) if module.training]
    try:
        for module in training:
            module.training = False  # not model.eval(): users override it
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


#: Most arguments of operations are these.
_NO_TENSORS = (int, float, str, NoneType)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in a nest of tuples, lists, mappings (transformers' ModelOutput too) and dataclasses, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            if isinstance(item, torch.Tensor):
                yield item
            elif not isinstance(item, _NO_TENSORS):
                yield from tensors_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's numbers; types that NumPy lacks (bfloat16) come as float32."""
    try:
        return tensor.numpy(force=True)
    except TypeError:
        return tensor.float().numpy(force=True)


def run(model: nn.Module, example_inputs: Any) -> tuple[np.ndarray, ...]:
    """Return the outputs of one forward pass in inference mode."""
    args, kwargs = arguments(model, example_inputs)
    with inference(model):
        return tuple(to_numpy(tensor) for tensor in tensors_in(model(*args, **kwargs)))
