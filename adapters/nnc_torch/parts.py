"""One tensor among those that a layer takes or gives, by number or by name.

"output"                    the first tensor; of a mapping the first that is not its "loss"
"output:1"                  the second tensor, counted through nested tuples
"output:logits"             what has that name: of a dict, a transformers ModelOutput, a dataclass, a named tuple
"output:hidden_states[3]"   of a tuple under that name the fourth; "output:hidden_states.3" is the same
"input:attention_mask"      the argument of that name
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from nnc.errors import ConfigError, nearest
from nnc.views import Site

Steps = tuple[Any, ...]


def find(value: Any, site: Site) -> Steps:
    """Return the way to the tensor of `value` that a site means. Raises ConfigError where there is none."""
    key = site.tensor.partition(":")[2]
    ways = list(_tensors(value))
    if not key or key.isdigit():
        if not key and isinstance(value, Mapping) and len(ways) > 1:
            ways = [way for way in ways if way[0] != "loss"]
        if int(key or 0) < len(ways):
            return ways[int(key or 0)]
    else:
        written = re.sub(r"\[(\d+)\]", r".\1", key)
        for way in ways:
            if written == ".".join(map(str, way)):
                return way
    known = [_written(way) for way in ways]
    raise ConfigError(f"{site}: there is no such tensor; there are {known}{nearest(key, known)}.")


def get(value: Any, steps: Steps) -> Any:
    """Return what lies at the end of a way."""
    for step in steps:
        value = value[step] if not isinstance(step, str) or isinstance(value, Mapping) else getattr(value, step)
    return value


def put(value: Any, steps: Steps, tensor: torch.Tensor) -> Any:
    """Return `value` with another tensor at the end of a way; the containers on the way are copied."""
    if not steps:
        return tensor
    step, *rest = steps
    inner = put(get(value, (step,)), tuple(rest), tensor)
    if isinstance(value, tuple):
        if isinstance(step, str):
            return value._replace(**{step: inner})
        items = (*value[:step], inner, *value[step + 1 :])
        return type(value)(*items) if hasattr(value, "_fields") else items
    made = copy.copy(value)
    if isinstance(value, Mapping | list):
        made[step] = inner
    else:
        setattr(made, step, inner)
    return made


def inputs_of(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, in the order in which they were given."""
    forward = module.forward
    names = _positional(getattr(forward, "__func__", forward))[hasattr(forward, "__func__") :]
    return {(names[i] if i < len(names) else str(i)): value for i, value in enumerate(args)} | kwargs


@lru_cache(maxsize=1024)
def _positional(function: Any) -> tuple[str, ...]:
    """Return the names of what a function takes by position."""
    return tuple(p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY)


def _tensors(value: Any, way: Steps = ()) -> Iterator[Steps]:
    if isinstance(value, torch.Tensor):
        yield way
    for step, item in _items(value):
        yield from _tensors(item, (*way, step))


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif hasattr(value, "_fields") and isinstance(value, tuple):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, tuple | list):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))


def _written(way: Steps) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) and index else str(step) for index, step in enumerate(way))
