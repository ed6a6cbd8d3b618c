"""The tensors in what passes a layer, a structure of any shape: counted, or named by their keys.

Of {"logits": a, "hidden": (b, c)}, "", "0" and "logits" are a, "1" and "hidden.0" are b, "2" and "hidden.1" are c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from nnc.errors import ConfigError, nearest

Path = tuple[Any, ...]


def parts_of(value: Any) -> list[tuple[Path, Any]]:
    """Return the tensors with their paths, in the order in which they stand."""
    return list(_parts(value, ()))


def _parts(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _parts(item, (*path, number))
    elif tf.is_tensor(value):
        yield path, value


def part_of(parts: Sequence[tuple[Path, Any]], key: str, place: str) -> tuple[Path, Any]:
    """Return the part that `key` counts or names. Raises `ConfigError` where there is none."""
    names = {".".join(map(str, path)): number for number, (path, _) in enumerate(parts)}
    last = {str(path[-1]): number for number, (path, _) in enumerate(parts) if path and not isinstance(path[-1], int)}
    known = {**{str(number): number for number in range(len(parts))}, **last, **names}
    number = 0 if key == "" else known.get(key)
    if number is None or number >= len(parts):
        listed = ", ".join(repr(name) for name in (*last, *map(str, range(len(parts)))))
        raise ConfigError(f"{place}: no tensor {key!r} passes there{nearest(key, known)}; known: {listed or 'none'}.")
    return parts[number]


def replaced(value: Any, path: Path, new: Any) -> Any:
    """Return a copy of the structure with the tensor at `path` replaced."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, Mapping):
        return type(value)({**value, key: replaced(value[key], tuple(rest), new)})
    items = [replaced(item, tuple(rest), new) if number == key else item for number, item in enumerate(value)]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
