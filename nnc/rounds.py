"""Prune in rounds, as a schedule says, each round on disk: what was killed goes on from its last finished round (runs.py).

pruner = nnc.ScheduledPruner(model, config_list, inputs, schedule="agp", rounds=10, trainer=trainer, folder="runs/agp")
model, masks = pruner.compress()
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from math import isfinite, prod
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from nnc.adapter import Adapter, Masks
from nnc.algorithm import Pruner
from nnc.arguments import flag, whole_number
from nnc.entries import DEFAULT
from nnc.errors import ConfigError, TrainingError
from nnc.instruments import detach
from nnc.registry import adapter_for, algorithm, schedule_class
from nnc.runs import RunFolder
from nnc.schedules import Round, Schedule, Task
from nnc.seeds import seed_all
from nnc.storage import load, save
from nnc.units import Units
from nnc_schemas import SpecError, parse_config_list

if TYPE_CHECKING:
    from nnc.trainer import Trainer

#: What of a trainer decides how a run goes, beside the user's own functions, which cannot be compared.
_TRAINING = ("epochs", "steps", "accumulate", "precision", "seed")


class ScheduledPruner:
    """Prunes in rounds: task from the schedule, pruner, optional speedup, optional training, metric.

    `schedule` is a schedule's name ("linear", "agp", "lottery_ticket", "simulated_annealing", "auto_compress", "amc"); `options` are its
    own. `rounds` is how many there are. An entry's `algorithm`, by default "l1_norm", is the pruner. With `trainer`, and unless `train` is
    False, each round that the schedule trains is trained, with an optimizer that begins afresh; its `evaluate` gives the metric. With
    `speedup` what is masked leaves after each round. `folder` keeps the rounds, and a second run on the same folder goes on where the
    first one ended; without it they are kept until the end only.

    Python's, NumPy's and the framework's random numbers are seeded before each round, and the data go on from where they stood
    (`Trainer.data_state`), so that a run that was killed goes on to the result of one that was not.

    Raises `ConfigError` before anything is touched: for an unknown schedule, one that needs a metric and has none, or a folder that holds
    another run.
    """

    def __init__(
        self,
        model: Any,
        config_list: Sequence[Any],
        example_inputs: Any = None,
        *,
        schedule: str = "agp",
        rounds: int = 10,
        trainer: Trainer | None = None,
        train: bool = True,
        speedup: bool = False,
        folder: str | PathLike[str] | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.adapter = adapter_for(model)
        self.model = self.adapter.model
        self.example_inputs, self.train, self.speedup = example_inputs, flag("train", train), flag("speedup", speedup)
        self.seed = whole_number("seed", seed, 0, "random numbers are drawn by it")
        self.trainer = None if trainer is None else require_trainer(trainer).afresh(self.adapter)
        self.specs = _parsed(config_list)
        self.pruner = _one_pruner(self.specs)
        self.units = Units(self.specs, self.adapter.layers(), self.pruner)
        self._schedule = (schedule, rounds, options)
        self.schedule = self._fresh_schedule()
        self._check()
        self.run = {
            "schedule": schedule,
            "rounds": self.schedule.rounds,
            "options": options,
            "speedup": speedup,
            "seed": self.seed,
            "config_list": [spec.model_dump(exclude_none=True) for spec in self.specs],
            "parameters": _parameters(self.adapter),
            "train": train,
            "trainer": None if self.trainer is None else {name: getattr(self.trainer, name) for name in _TRAINING},
        }
        self.folder = None if folder is None else Path(folder)
        self.done: list[Round] = [] if self.folder is None else self._found(RunFolder(self.folder, self.run))

    def compress(self) -> tuple[Any, Masks]:
        """Run the rounds that are left, and return the last one's model with its masks; after a speedup the small model without.

        After any exception, and after a speedup, the user's model is as it was.
        """
        if self.folder is not None:
            return self._through(RunFolder(self.folder, self.run))
        with tempfile.TemporaryDirectory() as scratch:
            return self._through(RunFolder(Path(scratch), self.run))

    def _found(self, folder: RunFolder) -> list[Round]:
        """Return the rounds that are finished in a folder, having checked that they are of this model."""
        folder.require_model(self.model)
        return folder.finished()

    def _through(self, folder: RunFolder) -> tuple[Any, Masks]:
        self.done = self._found(folder)
        folder.begin()
        if not self.done:
            save(self.model, folder.model(0))
        try:
            model = self._rounds(folder)
        except BaseException:
            self._give_back(folder)
            raise
        if model is not self.model:
            self._give_back(folder)
        return model, adapter_for(model).masks()

    def _rounds(self, folder: RunFolder) -> Any:
        self.schedule = self._fresh_schedule()
        for finished in self.done:  # the schedule goes the same way again
            self.schedule.propose()
            self.schedule.observe(finished)
        if self.done and self.trainer is not None:
            self.trainer.set_data_state(self.model, self.done[-1].data)
        model = self._load(folder, len(self.done)) if self.done else self.model
        while (task := self.schedule.propose()) is not None:
            model = self._round(folder, model, task)
        return model

    def _round(self, folder: RunFolder, model: Any, task: Task) -> Any:
        """Do what a task says, write it down, and return the model."""
        number = len(self.done) + 1
        began = perf_counter()
        if task.start is not None and task.start != len(self.done):
            model = self._load(folder, task.start)
        seed = (self.seed * 1000 + number) % 2**32
        seed_all(adapter_for(model), seed)
        model = self._pruned(model, task, number)
        if task.rewind:
            self._rewind(folder, model)
        if task.train and self.train and self.trainer is not None:
            self.trainer.train(model, seed=seed, label=f"round {number}")
        metric, data = self._metric(model, number), {} if self.trainer is None else self.trainer.data_state(model)
        finished = Round(number, task, metric, _parameters(adapter_for(model)), perf_counter() - began, data)
        save(model, folder.model(number))
        self.done.append(finished)
        folder.finish(self.done)
        self.schedule.observe(finished)
        return model

    def _metric(self, model: Any, number: int) -> float | None:
        metric = None if self.trainer is None else self.trainer.evaluate(model)
        if metric is not None and not isfinite(metric):
            raise TrainingError(f"round {number}: Trainer.evaluate returned {metric}; a finite number is needed, the higher the better.")
        return metric

    def _pruned(self, model: Any, task: Task, number: int) -> Any:
        cls: type[Any] = self.pruner if task.algorithm is None else algorithm(task.algorithm)
        entries = self.units.entries(task.sparsity, adapter_for(model).layers(), cls)
        pruner = cls(model, entries, self.example_inputs, trainer=self.trainer, seed=self.seed + number, whole=self.units.whole)
        _, masks = pruner.compress()
        if not self.speedup:
            return model
        from nnc.speedup import ModelSpeedup

        small = ModelSpeedup(model, self.example_inputs, masks or _nothing(adapter_for(model))).speedup_model()
        detach(adapter_for(model))
        return small

    def _fresh_schedule(self) -> Schedule:
        name, rounds, options = self._schedule
        cls = schedule_class(name, "schedule")
        if cls.needs_metric and (self.trainer is None or self.trainer.metric is None):
            raise ConfigError(f"trainer: the schedule {name!r} learns from a metric; pass trainer=nnc.Trainer(..., evaluate=...).")
        cls.require_options(options)
        return cls(self.units.prunable(), rounds, self.seed, **options)

    def _check(self) -> None:
        """Raise `ConfigError` for what would only fail in a round."""
        if self.speedup and self.schedule.rewinds:
            named = self._schedule[0]
            raise ConfigError(f"speedup: the schedule {named!r} gives back the first weights, whole; speed up after the last round.")
        if self.speedup and self.example_inputs is None:
            raise ConfigError("example_inputs: speedup=True runs the model after each round; pass some.")
        if self.pruner.learns and self.trainer is None:
            raise ConfigError(f"trainer: {self.pruner.name!r} learns in training; pass trainer=nnc.Trainer(data, loss, optimizer).")
        cls: type[Any] = self.pruner
        cls(self.model, self.specs, self.example_inputs, trainer=self.trainer, seed=self.seed)

    def _load(self, folder: RunFolder, number: int) -> Any:
        detach(self.adapter)
        return load(folder.model(number), model=self.model)

    def _give_back(self, folder: RunFolder) -> None:
        """Let the user's model be as it was before the run."""
        if folder.model(0).is_dir():  # a finished run is read without it, too
            self._load(folder, 0)

    def _rewind(self, folder: RunFolder, model: Any) -> None:
        """Give the layers their first weights again; masks stay."""
        masks = adapter_for(model).masks()
        load(folder.model(0), model=model)
        adapter_for(model).set_masks(masks)


def _parameters(adapter: Any) -> int:
    """Return how many parameters are left: those of the layers that no mask hides."""
    masks = adapter.masks()
    every = ((layer.name, name, shape) for layer in adapter.layers() for name, shape in layer.parameters.items())
    return sum(int(masks[layer][name].sum()) if name in masks.get(layer, {}) else prod(shape) for layer, name, shape in every)


def require_trainer(given: Any) -> Trainer:
    """Return what was given as a trainer. Raises `ConfigError` where it is none."""
    from nnc.trainer import Trainer

    if not isinstance(given, Trainer):
        raise ConfigError(f"trainer: {given!r} is no nnc.Trainer; pass nnc.Trainer(data, loss, optimizer, evaluate=...).")
    return given


def _parsed(config_list: Sequence[Any]) -> tuple[Any, ...]:
    from nnc.recipe import spec_of

    try:
        return parse_config_list(config_list, spec_of=spec_of)
    except SpecError as error:
        raise ConfigError(str(error)) from None


def _one_pruner(specs: Sequence[Any]) -> type[Pruner]:
    """Return the pruner that all entries name."""
    named = {spec.algorithm or DEFAULT: spec for spec in specs if not spec.exclude}
    if len(named) != 1:
        raise ConfigError(f"config_list: a schedule runs one pruner, and the entries name {', '.join(named) or 'none'}.")
    (name, spec), *_ = named.items()
    cls = algorithm(name, f"{spec.place}.algorithm")
    if not issubclass(cls, Pruner):
        raise ConfigError(f"{spec.place}.algorithm: {name!r} does not prune, so there is no sparsity to schedule.")
    return cls


def _nothing(adapter: Adapter) -> Masks:
    """Return masks by which nothing leaves: a round's share may be less than one channel, and the user's model is not the one to train."""
    layer = next(layer for layer in adapter.layers() if layer.prunable)
    return {layer.name: {"weight": np.ones(layer.parameters["weight"], bool)}}
