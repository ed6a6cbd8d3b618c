"""A stage, before it runs: how long it trains, its schedule, and what can be told to be wrong with it on the user's own model.

Stages cut layers and never rename them: what an entry of a late stage selects is there, or not, from the beginning.
"""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnc.entries import called
from nnc.errors import ConfigError
from nnc.recipe import read_recipe
from nnc.rounds import ScheduledPruner
from nnc_schemas import Stage

if TYPE_CHECKING:
    from nnc.trainer import Trainer


def lasting_as(stage: Stage, trainer: Trainer) -> Trainer:
    """Return a trainer that trains as long as the stage says."""
    lasting = copy(trainer)
    if stage.train is not None:
        lasting.steps, lasting.epochs = stage.train.steps, stage.train.epochs or 1
    return lasting


def scheduled(stage: Stage, model: Any, trainer: Trainer, example_inputs: Any, folder: Path | None) -> ScheduledPruner:
    """Return the pruner in rounds of a stage with a schedule."""
    assert stage.schedule is not None
    return ScheduledPruner(
        model,
        list(stage.config_list),
        example_inputs,
        schedule=stage.schedule.name,
        rounds=stage.schedule.rounds,
        trainer=trainer,
        train=stage.train is not None,
        speedup=stage.speedup,
        folder=folder,
        **stage.schedule.options,
    )


def check(place: str, stage: Stage, model: Any, trainer: Trainer, example_inputs: Any) -> None:
    """Raise `ConfigError` for a stage that cannot run, with its place; nothing is touched."""
    try:
        _check(stage, model, lasting_as(stage, trainer), example_inputs)
    except ConfigError as error:
        raise error if place in str(error) else ConfigError(f"{place}: {error}") from None


def _check(stage: Stage, model: Any, trainer: Trainer, example_inputs: Any) -> None:
    if example_inputs is None and (stage.speedup or stage.export is not None):
        wish = "speedup" if stage.speedup else "export"
        raise ConfigError(f"example_inputs: {wish} runs the model, so it needs some: nnc.run(model, recipe, example_inputs=...).")
    if stage.schedule is not None:
        scheduled(stage, model, trainer, example_inputs, None)
    elif stage.config_list:
        wanted = called(model, read_recipe(list(stage.config_list)))
        if stage.calibrate and not any(cls.kind == "quantize" for cls, _ in wanted):
            raise ConfigError("calibrate(): nothing quantises this model; name an algorithm such as ptq or qat_ste in its config.")
        for cls, entries in wanted:
            if cls.kind != "distill":  # its teacher is yet to be trained
                cls(model, entries, example_inputs, trainer=trainer)
