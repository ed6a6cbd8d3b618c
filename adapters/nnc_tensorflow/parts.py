"""One tensor among those that a layer takes or gives, by number or by name.

Of {"loss": l, "logits": a, "hidden": (b, c)}: "" is a, the first that is not the loss; "1" and "logits" are a as well, "hidden.1",
"hidden[1]" and "3" are c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from nnc.errors import ConfigError, nearest

Path = tuple[Any, ...]


def parts_of(value: Any) -> list[tuple[Path, Any]]:
    """Return the tensors with their paths, in the order in which they stand."""
    return list(_parts(value, ()))


def _parts(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if tf.is_tensor(value) or isinstance(value, np.ndarray):  # a model may be called on arrays
        yield path, value
    for step, item in _items(value):
        yield from _parts(item, (*path, step))


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return list(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    return []


def part_of(value: Any, key: str, place: str) -> tuple[Path, Any]:
    """Return the part of `value` that `key` counts or names, with its path. Raises `ConfigError` where there is none."""
    parts = parts_of(value)
    if not key:
        parts = [part for part in parts if part[0][:1] != ("loss",)] or parts
    if not key or key.isdigit():
        found = parts[int(key or 0) :][:1]
    else:
        written = re.sub(r"\[(\d+)\]", r".\1", key)
        # Among a call's arguments a key of the first, a dict, is a name as well.
        found = [part for part in parts if written in (_written(part[0]), _written(part[0][1:]))][:1]
    if not found:
        known = [_written(path) for path, _ in parts]
        raise ConfigError(f"{place}: no such tensor passes there; there are {', '.join(known) or 'none'}{nearest(key, known)}.")
    return found[0]


def _written(path: Path) -> str:
    return ".".join(map(str, path))


def replaced(value: Any, path: Path, new: Any) -> Any:
    """Return a copy of the structure with the tensor at `path` replaced."""
    if not path:
        return new
    step, *rest = path
    items = [(each, replaced(item, tuple(rest), new) if each == step else item) for each, item in _items(value)]
    if isinstance(value, Mapping):
        return type(value)(items)
    return type(value)(*(item for _, item in items)) if hasattr(value, "_fields") else type(value)(item for _, item in items)
