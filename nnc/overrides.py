"""Change a recipe from the command line: `-o config_list.0.sparsity=0.3 -o output=out/small`."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from nnc.errors import ConfigError


def override(data: Any, assignments: Iterable[str]) -> Any:
    """Return a copy of `data` in which each `dotted.key=value` holds; numbers in a key count list entries, values are YAML.

    Raises `ConfigError` for an assignment without `=`, and for a key that leads through something that is not there.
    """
    result = deepcopy(data)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"-o {assignment}: is no key=value, such as config_list.0.sparsity=0.3.")
        *path, last = key.split(".")
        place = result
        for depth, part in enumerate(path):
            place = _step(place, part, key, depth)
        _put(place, last, _value(assignment, text), key)
    return result


def _step(place: Any, part: str, key: str, depth: int) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, key)]
    if isinstance(place, dict) and part in place:
        return place[part]
    raise ConfigError(f"-o {key}: the recipe has no {'.'.join(key.split('.')[: depth + 1])}.")


def _put(place: Any, part: str, value: Any, key: str) -> None:
    if isinstance(place, list):
        place[_index(place, part, key)] = value
    elif isinstance(place, dict):
        place[part] = value
    else:
        raise ConfigError(f"-o {key}: what it leads to is {place!r}, which has no {part!r}.")


def _index(place: list[Any], part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise ConfigError(f"-o {key}: {part!r} is no entry of a list of {len(place)}; the first is 0.")
    return int(part)


def _value(assignment: str, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"-o {assignment}: {text!r} is no YAML value: {error}.") from None
