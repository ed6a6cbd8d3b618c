"""From what a user wrote to specs: every problem of a list is told at once, each with its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union

from pydantic import TypeAdapter, ValidationError

from nnc_schemas.problems import SpecError, explain, short
from nnc_schemas.prune import PruneSpec
from nnc_schemas.recipe import Recipe
from nnc_schemas.selector import Selector
from nnc_schemas.stages import Stage

#: The spec of an algorithm's entries, given its name (None: the entry names none) and the place that names it.
SpecOf = Callable[[str | None, str], type[Selector]]


def prunes(name: str | None, place: str) -> type[Selector]:
    """Return the spec of an entry where nothing else is known: one that prunes."""
    return PruneSpec


def json_schema(specs: Sequence[type[Selector]] = (PruneSpec,)) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a config_list whose entries are any of `specs`."""
    kinds = tuple(dict.fromkeys(specs))
    union = kinds[0] if len(kinds) == 1 else Union[kinds]  # noqa: UP007 - of a tuple
    return {"title": "config_list", **TypeAdapter(list[union]).json_schema()}  # type: ignore[valid-type]


def parse_config_list(value: Any, place: str = "config_list", spec_of: SpecOf = prunes) -> tuple[Selector, ...]:
    """Return the entries of a config_list, each as its algorithm's spec; entries that are specs already pass as they are.

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
            entries.append(_entry(entry, f"{place}[{index}]", spec_of).placed(f"{place}[{index}]"))
        except SpecError as error:
            problems.append(str(error))
    if problems:
        raise SpecError("\n".join(problems))
    return tuple(entries)


def parse_recipe(value: Any, place: str = "", spec_of: SpecOf = prunes) -> Recipe:
    """Return the recipe that a config_list, one entry, or a recipe's dict stands for. Raises `SpecError` as above.

    `place` is put before every problem: the file that the recipe came from.
    """
    prefix = f"{place}: " if place else ""
    if not isinstance(value, Mapping):
        return Recipe(config_list=parse_config_list(value, f"{prefix}config_list", spec_of))
    if _is_entry(value):
        return Recipe(config_list=parse_config_list([value], f"{prefix}config_list", spec_of))
    try:
        # The list's own problems are told by parse_config_list, which knows more of them.
        rest = {key: item for key, item in value.items() if key != "config_list"}
        checked = Recipe(config_list=(), **{str(key): item for key, item in rest.items()})
    except ValidationError as error:
        raise explain(error, prefix, Recipe) from None
    if "config_list" not in value:
        raise SpecError(f"{prefix}config_list: is missing.")
    entries = parse_config_list(value["config_list"], f"{prefix}config_list", _by_default(spec_of, checked.algorithm))
    return checked.model_copy(update={"config_list": entries})


def parse_stages(value: Any, place: str = "", spec_of: SpecOf = prunes) -> tuple[Stage, ...]:
    """Return the stages of a recipe, `{"stages": [...]}` or the list itself. Raises `SpecError` with the place of each problem."""
    prefix = f"{place}: " if place else ""
    given = value.get("stages") if isinstance(value, Mapping) else value
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise SpecError(f"{prefix}stages: {short(given)} is no list of stages, each a dict with a name.")
    stages = tuple(_stage(one, f"{prefix}stages[{index}]", spec_of) for index, one in enumerate(given))
    names = [stage.name for stage in stages]
    for index, stage in enumerate(stages):
        if names.index(stage.name) != index:
            raise SpecError(f"{prefix}stages[{index}].name: {stage.name!r} is the name of stages[{names.index(stage.name)}] already.")
        if stage.teacher is not None and stage.teacher not in names[:index]:
            earlier = ", ".join(names[:index]) or "none"
            raise SpecError(f"{prefix}stages[{index}].teacher: {stage.teacher!r} is no stage before this one; there is {earlier}.")
    return stages


def _stage(value: Any, place: str, spec_of: SpecOf) -> Stage:
    if isinstance(value, Stage):
        return value
    if not isinstance(value, Mapping):
        raise SpecError(f"{place}: {short(value)} is not a dict.")
    entries: tuple[Selector, ...] = ()
    if value.get("config_list"):
        default = value.get("algorithm")
        found = parse_config_list(value["config_list"], f"{place}.config_list", _by_default(spec_of, default))
        entries = tuple(one if one.algorithm or one.exclude else one.model_copy(update={"algorithm": default}) for one in found)
    try:
        return Stage(**{**{str(key): item for key, item in value.items()}, "config_list": entries})
    except ValidationError as error:
        raise explain(error, place, Stage) from None


def _by_default(spec_of: SpecOf, default: str | None) -> SpecOf:
    """Read entries that name no algorithm as the recipe's."""
    return lambda name, place: spec_of(name or default, place)


def _is_entry(value: Mapping[Any, Any]) -> bool:
    """An entry is told from a recipe by its keys: a recipe has a config_list and needs it, an entry has no such key."""
    return "config_list" not in value and not (value.keys() & (Recipe.model_fields.keys() - {"algorithm"}))


def _entry(value: Any, place: str, spec_of: SpecOf) -> Selector:
    if isinstance(value, Selector):
        return value
    if not isinstance(value, Mapping):
        raise SpecError(f"{place}: {short(value)} is not a dict.")
    name = value.get("algorithm")
    spec = spec_of(name if isinstance(name, str) else None, f"{place}.algorithm")
    try:
        return spec(**{str(key): item for key, item in value.items()})
    except ValidationError as error:
        raise explain(error, place, spec) from None
