"""From the entries of one recipe to the algorithms that they call, each with the entries that are its own.

Of two pruners the last entry that names a layer governs it; the same of two quantizers. Pruning, distillation and quantisation do not
compete: each kind sees its own entries, and those that exclude layers from everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nnc.registry import adapter_for, algorithm
from nnc.select import resolve, selected
from nnc.ties import check_ids
from nnc_schemas import Recipe, Selector

if TYPE_CHECKING:
    from nnc.algorithm import Algorithm

#: What prunes the entries for which the user names no algorithm: structured, and it needs no data.
DEFAULT = "l1_norm"
#: Kinds whose algorithms share a layer: every one of them gets all of its own entries.
_SHARING = ("distill",)


def called(model: Any, recipe: Recipe) -> list[tuple[type[Algorithm], list[Selector]]]:
    """Return each algorithm that treats something in the end, in the order of its first entry, with its entries.

    Raises `ConfigError` for an algorithm that does not exist, or an entry that matches no layer.
    """
    named = [_named(spec, recipe) for spec in recipe.config_list]
    found: list[tuple[type[Algorithm], list[Selector]]] = []
    for kind in dict.fromkeys(_class(spec).kind for spec in named if spec.algorithm):
        entries = [spec for spec in named if not spec.algorithm or _class(spec).kind == kind]
        found += _sharing(entries) if kind in _SHARING else _competing(model, entries)
    return found


def _named(spec: Selector, recipe: Recipe) -> Selector:
    """Give an entry the name of its algorithm; one that excludes and names none means all of them."""
    name = spec.algorithm or recipe.algorithm or (None if spec.exclude else DEFAULT)
    return spec if name == spec.algorithm else spec.model_copy(update={"algorithm": name})


def _class(spec: Selector) -> type[Algorithm]:
    return algorithm(str(spec.algorithm), f"{spec.place}.algorithm")


def _sharing(entries: Sequence[Selector]) -> Iterator[tuple[type[Algorithm], list[Selector]]]:
    for cls in dict.fromkeys(_class(spec) for spec in entries if spec.algorithm):
        yield cls, [spec for spec in entries if spec.algorithm in (None, cls.name)]


def _competing(model: Any, entries: Sequence[Selector]) -> Iterator[tuple[type[Algorithm], list[Selector]]]:
    layers = adapter_for(model).layers()
    first = next(_class(spec) for spec in entries if spec.algorithm)
    classes = [_class(spec) if spec.algorithm else first for spec in entries]
    governed = resolve(entries, layers, classes)
    check_ids(governed, entries)
    governing = {entries[index].algorithm for index in governed.values()}
    meant = [(spec, selected(spec, layers, its)) for spec, its in zip(entries, classes, strict=True)]
    for cls in dict.fromkeys(_class(spec) for spec in entries if spec.algorithm):
        if cls.name in governing:
            known = {layer.name for layer in layers if cls.treats(layer) or layer.prunable}
            seen = [_seen_by(cls, spec, [name for name in names if name in known]) for spec, names in meant]
            yield cls, [spec for spec in seen if spec is not None]


def _seen_by(cls: type[Algorithm], spec: Selector, layers: Sequence[str]) -> Selector | None:
    """Return an entry as an algorithm sees it: of what is not its own, it has to leave alone what it knows; None without such."""
    if spec.algorithm == cls.name:
        return spec
    selectors = {key: None for key in Selector.model_fields if key not in ("exclude", "op_names")}
    return spec.excluding().model_copy(update={**selectors, "algorithm": cls.name, "op_names": layers}) if layers else None
