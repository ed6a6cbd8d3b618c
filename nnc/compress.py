"""The front door: a model and a config in, a compressed model out.

    config -> entries -> one algorithm for each -> masks -> the model is seen through them -> speedup -> report, save

Entries name their algorithms. The last entry that names a layer governs it, whichever algorithm that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from nnc.adapter import Masks
from nnc.errors import ConfigError
from nnc.masks import merge
from nnc.recipe import read_recipe
from nnc.registry import adapter_for, algorithm
from nnc.select import resolve
from nnc_schemas import PruneSpec, Recipe

if TYPE_CHECKING:
    from nnc.algorithm import Pruner
    from nnc.report import Report
    from nnc.speedup import ModelSpeedup

#: What prunes the entries for which the user names no algorithm: structured, and it needs no data.
DEFAULT = "l1_norm"


def compress(model: Any, config: Any, example_inputs: Any = None, *, seed: int = 0) -> Compressed:
    """Mask `model` as `config` says.

    `config` is a config_list, one entry, a recipe, or the path of a recipe in YAML or JSON. An entry without `algorithm` is
    pruned with the recipe's, else with "l1_norm". `example_inputs` are what `speedup()` and `report()` run the model on.
    Raises `ConfigError` or `ModelError` before anything is touched.
    """
    specs = _named(read_recipe(config))
    adapter = adapter_for(model)
    model = adapter.model  # what a path names is read once
    pruners = [cls(model, _only(specs, name), example_inputs, seed=seed) for name, cls in _algorithms(model, specs).items()]
    masks = adapter.masks()
    for pruner in pruners:
        masks = merge(masks, pruner.propose())
    adapter.set_masks(masks)
    return Compressed(model, masks, example_inputs)


class Compressed:
    """A compressed model on its way: `model` is the masked one at first, the small one after `speedup()`."""

    def __init__(self, model: Any, masks: Masks, example_inputs: Any = None) -> None:
        self.original = model
        self.model = model
        self.masks = masks
        self.example_inputs = example_inputs
        self._speedup: ModelSpeedup | None = None

    def speedup(self) -> Any:
        """Cut what is masked out of the model, keep the small model in `.model`, and return it.

        The original loses its masks and is whole again. Raises `ConfigError` without example inputs, and what
        `nnc.ModelSpeedup` raises; the masks then stay as they were.
        """
        from nnc.speedup import ModelSpeedup

        adapter = adapter_for(self.original)
        speedup = ModelSpeedup(self.original, self._inputs("speedup"), self.masks)
        small = speedup.speedup_model()
        adapter.set_masks({})
        self._speedup, self.model = speedup, small
        return small

    def report(self) -> Report:
        """Return parameters, bytes, MACs and measured latency of the original and of `.model`."""
        if self._speedup is not None:
            return self._speedup.report()
        from nnc.report import report

        return report(self.original, self.model, self._inputs("report"))

    def save(self, folder: str | PathLike[str]) -> None:
        """Write `.model` to a folder that `nnc.load` reads."""
        from nnc.storage import save

        save(self.model, folder)

    def unwrap(self) -> Any:
        """Take the masks from the original model and return it."""
        adapter_for(self.original).set_masks({})
        return self.original

    def _inputs(self, purpose: str) -> Any:
        if self.example_inputs is None:
            remedy = "nnc.compress(model, config, example_inputs=...)"
            raise ConfigError(f"example_inputs: {purpose}() runs the model, so it needs some: {remedy}.")
        return self.example_inputs


def _named(recipe: Recipe) -> tuple[PruneSpec, ...]:
    """Give every entry the name of its algorithm."""
    default = recipe.algorithm or DEFAULT
    return tuple(spec.model_copy(update={"algorithm": spec.algorithm or default}) for spec in recipe.config_list)


def _algorithms(model: Any, specs: Sequence[PruneSpec]) -> dict[str, type[Pruner]]:
    """Return the algorithms that govern a layer in the end. Raises `ConfigError` for one that does not exist."""
    known = {spec.algorithm: algorithm(str(spec.algorithm), f"config_list[{index}].algorithm") for index, spec in enumerate(specs)}
    governing = {specs[index].algorithm for index in resolve(specs, adapter_for(model).layers()).values()}
    return {str(name): cls for name, cls in known.items() if name in governing}


def _only(specs: Sequence[PruneSpec], name: str) -> list[PruneSpec]:
    """Return the entries as one algorithm sees them: what is another's, it has to leave alone."""
    return [spec if spec.algorithm == name else spec.excluding().model_copy(update={"algorithm": name}) for spec in specs]
