"""What a schedule gives a sparsity, and the config_list by which a round comes to it.

    sparsity                            each layer is a unit
    total_sparsity                      the entry is one: its layers are ranked together
    total_sparsity, global_group_id     all the entries that share the id are

A task's sparsities count from the user's model, whatever has left since. What a layer shall lose becomes a fraction of what it has left;
a total stays as it is, and the pruner is told the sizes that it counts in (`Pruner.whole`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from nnc.adapter import Layer
from nnc.algorithm import Pruner
from nnc.columns import channels
from nnc.errors import ConfigError
from nnc.graph.ir import Shape
from nnc.schedules import Prunable
from nnc.select import resolve, spared
from nnc_schemas import PruneSpec, Selector

#: The keys of an entry by which it selects layers and says how much of them leaves: a round has others in their place.
_AMOUNTS = ("sparsity", "sparsity_per_layer", "sparse_ratio", "sparse_threshold", "max_sparsity_per_layer")
_REPLACED: Mapping[str, None] = dict.fromkeys((*Selector.model_fields, *_AMOUNTS))


@dataclass(frozen=True)
class Unit:
    """Layers that a task gives one sparsity, each with its entry; `total` is whether they are ranked together."""

    specs: Mapping[str, PruneSpec]
    total: bool

    @property
    def sparsity(self) -> float:
        """The sparsity that the config_list asks for."""
        return next(iter(self.specs.values())).amount

    def entries(self) -> list[tuple[PruneSpec, list[str]]]:
        """Return the entries that govern its layers, each with these."""
        found: dict[str, tuple[PruneSpec, list[str]]] = {}
        for layer, spec in self.specs.items():
            found.setdefault(spec.place, (spec, []))[1].append(layer)
        return list(found.values())


class Units:
    """The units of a model, by the names that tasks have for them. Raises `ConfigError` for an entry that no sparsity can be given to."""

    def __init__(self, specs: Sequence[PruneSpec], layers: Sequence[Layer], pruner: type[Pruner]) -> None:
        governed = resolve(specs, layers, pruner)
        #: The parameters' shapes in the user's model, by path.
        self.whole: dict[str, Shape] = {
            f"{layer.name}.{key}".lstrip("."): shape for layer in layers for key, shape in layer.parameters.items()
        }
        self._spared = tuple(sorted(spared(specs, layers, pruner) - governed.keys()))
        self._channels = {layer.name: channels(layer) for layer in layers if layer.name in governed}
        self._weights = {layer.name: prod(layer.parameters["weight"]) for layer in layers if layer.name in governed}
        self._units: dict[str, Unit] = {}
        for layer, index in governed.items():
            name, total = _unit_of(layer, specs[index])
            known = self._units[name].specs if name in self._units else {}
            self._units[name] = Unit({**known, layer: specs[index]}, total)

    def prunable(self) -> dict[str, Prunable]:
        """Return what a schedule is to know of each unit."""
        return {
            name: Prunable(unit.sparsity, sum(self._channels[one] for one in unit.specs), sum(self._weights[one] for one in unit.specs))
            for name, unit in self._units.items()
        }

    def entries(self, sparsity: Mapping[str, float], layers: Sequence[Layer], pruner: type[Pruner]) -> list[PruneSpec]:
        """Return the config_list of a round of `pruner` on a model that has those layers left."""
        left = {layer.name: channels(layer) / self._channels[layer.name] for layer in layers if layer.name in self._channels}
        return [
            self._entry(names, spec, _amounts(unit, spec, sparsity[name], left[names[0]]), pruner)
            for name, unit in self._units.items()
            for spec, names in unit.entries()
        ]

    def _entry(self, layers: Sequence[str], spec: PruneSpec, amounts: Mapping[str, Any], pruner: type[Pruner]) -> PruneSpec:
        """Return the entry of some layers: the user's, with other amounts, and every setting under the entry's own word for it.

        It is not validated again: no number of a round is a mistake of the user's.
        """
        settings = {
            "algorithm": pruner.name,
            "op_names": tuple(layers),
            "exclude_op_names": self._spared or None,
            "granularity": "head" if spec.heads else None,
            "global_group_id": spec.global_group,
            "dependency_group_id": spec.dependency_group,
            "target_settings": None,
        }
        copied = spec.model_copy(update={**_REPLACED, **settings, **amounts})
        if type(spec) is not pruner.spec:  # a round of another pruner than the user's
            known = {key: value for key, value in copied if key in pruner.spec.model_fields}
            copied = pruner.spec.model_construct(**known)
        return copied.placed(spec.place)


def _unit_of(layer: str, spec: PruneSpec) -> tuple[str, bool]:
    """Return the name of a layer's unit, and whether that is ranked together."""
    if spec.per_layer is not None:
        return layer, False
    if spec.total is None:
        raise ConfigError(f"{spec.place}: a schedule raises sparsity, or total_sparsity; give one of them.")
    return spec.place if spec.global_group is None else f"global_group_id {spec.global_group!r}", True


def _amounts(unit: Unit, spec: PruneSpec, sparsity: float, left: float) -> dict[str, float | None]:
    """Return what an entry says of amounts in a round: of a layer the fraction of what is left, of a total that of the user's model."""
    if not unit.total:
        return {"sparsity": max(0.0, 1 - (1 - sparsity) / left)}
    # The floor comes with the total: half way to the one is half way to the other.
    share = min(1.0, sparsity / unit.sparsity) if unit.sparsity else 1.0
    return {
        "total_sparsity": sparsity,
        "max_sparse_ratio": spec.cap,
        "min_sparse_ratio": None if spec.floor is None else spec.floor * share,
    }
