"""From what a user wrote to specs: every problem of a list is told at once, each with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, RootModel, ValidationError

from nnc_schemas.problems import SpecError, explain, short
from nnc_schemas.prune import PruneSpec
from nnc_schemas.recipe import Recipe


class ConfigList(RootModel[list[PruneSpec]]):
    """The entries in order; a later entry overrides an earlier one for the layers that both name."""

    model_config = ConfigDict(title="config_list")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a config_list."""
    return ConfigList.model_json_schema()


def parse_config_list(value: Any, place: str = "config_list") -> tuple[PruneSpec, ...]:
    """Return the entries of a config_list; entries that are specs already pass as they are.

    Raises `SpecError` with one line for every problem in the list.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        wrap = " Write [entry] for a single one." if isinstance(value, Mapping) else ""
        raise SpecError(f"{place}: {short(value)} is not a list of dicts, one for each entry.{wrap}")
    if not value:
        raise SpecError(f'{place}: the list is empty; an entry says what to prune, as {{"op_types": ["Linear"], "sparsity": 0.5}}.')
    entries, problems = [], []
    for index, entry in enumerate(value):
        try:
            entries.append(_entry(entry, f"{place}[{index}]"))
        except SpecError as error:
            problems.append(str(error))
    if problems:
        raise SpecError("\n".join(problems))
    return tuple(entries)


def parse_recipe(value: Any, place: str = "") -> Recipe:
    """Return the recipe that a config_list, one entry, or a recipe's dict stands for. Raises `SpecError` as above.

    `place` is put before every problem: the file that the recipe came from.
    """
    prefix = f"{place}: " if place else ""
    if not isinstance(value, Mapping):
        return Recipe(config_list=parse_config_list(value, f"{prefix}config_list"))
    if _is_entry(value):
        return Recipe(config_list=parse_config_list([value], f"{prefix}config_list"))
    try:
        # The list's own problems are told by parse_config_list, which knows more of them.
        rest = {key: item for key, item in value.items() if key != "config_list"}
        checked = Recipe(config_list=(), **{str(key): item for key, item in rest.items()})
    except ValidationError as error:
        raise explain(error, prefix, Recipe) from None
    if "config_list" not in value:
        raise SpecError(f"{prefix}config_list: is missing.")
    return checked.model_copy(update={"config_list": parse_config_list(value["config_list"], f"{prefix}config_list")})


def _is_entry(value: Mapping[Any, Any]) -> bool:
    """An entry is told from a recipe by its keys: they share `algorithm` only."""
    return "config_list" not in value and bool(value.keys() & (PruneSpec.model_fields.keys() - {"algorithm"}))


def _entry(value: Any, place: str) -> PruneSpec:
    if isinstance(value, PruneSpec):
        return value
    if not isinstance(value, Mapping):
        raise SpecError(f"{place}: {short(value)} is not a dict.")
    try:
        return PruneSpec(**{str(key): item for key, item in value.items()})
    except ValidationError as error:
        raise explain(error, place, PruneSpec) from None
