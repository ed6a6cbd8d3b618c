"""A config, however the user wrote it: a config_list, one entry, a recipe, or the path of a YAML or JSON file."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from nnc.errors import ConfigError
from nnc.registry import algorithm
from nnc_schemas import PruneSpec, Recipe, Selector, SpecError, parse_recipe


def read_recipe(config: Any) -> Recipe:
    """Return the recipe that `config` stands for.

    Raises `ConfigError` with one line for every problem; a file's problems begin with its path.
    """
    try:
        if isinstance(config, (str, PathLike)):
            return parse_recipe(read_file(Path(config)), str(config), spec_of)
        return config if isinstance(config, Recipe) else parse_recipe(config, spec_of=spec_of)
    except SpecError as error:
        raise ConfigError(str(error)) from None


def spec_of(name: str | None, place: str) -> type[Selector]:
    """Return the spec of an algorithm's entries; one without a name prunes. Raises `ConfigError` for an unknown algorithm."""
    return PruneSpec if name is None else algorithm(name, place).spec


def read_file(path: Path) -> Any:
    """Return what a YAML or JSON file holds. Raises `ConfigError` where it is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the recipe cannot be read: {error}.") from None
    return _json(path, text) if path.suffix == ".json" else _yaml(path, text)


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: the recipe is no JSON: {error}.") from None


def _yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: the recipe is no YAML: {error}.") from None
