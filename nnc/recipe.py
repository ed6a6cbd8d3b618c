"""A config, however the user wrote it: a config_list, one entry, a recipe, or the path of a YAML or JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from nnc.errors import ConfigError
from nnc.registry import algorithm
from nnc_schemas import PruneSpec, Recipe, Selector, SpecError, parse_recipe
from nnc_schemas.problems import short


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


def entries_of(config: Any) -> list[dict[str, Any]]:
    """Return the entries of a config as plain data that can be changed and written again, each with the algorithm that the recipe names.

    Raises `ConfigError` for what is no config.
    """
    given = read_file(Path(config)) if isinstance(config, (str, PathLike)) else config
    recipe = given if isinstance(given, Mapping) and "config_list" in given else {}
    entries = recipe.get("config_list", [given] if isinstance(given, Mapping) else given)
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigError(f"config_list: {short(given)} is no list of entries; give one, one entry, a recipe, or the path of one.")
    named = {"algorithm": recipe["algorithm"]} if recipe.get("algorithm") else {}
    return [{**({} if entry.get("exclude") else named), **entry} for entry in entries]


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
