"""Prune in rounds, as a schedule says, each round on disk: what was killed goes on from its last finished round.

pruner = nnc.ScheduledPruner(model, config_list, inputs, schedule="agp", rounds=10, trainer=trainer, folder="runs/agp")
model, masks = pruner.compress()

runs/agp/run.json             what the run is
runs/agp/round_003            the model and its masks after round 3, as nnc.save writes them (round_000: the user's own)
runs/agp/rounds.json          every finished round: sparsities, metric, parameters, seconds
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from math import prod
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from nnc.adapter import Adapter, Masks
from nnc.algorithm import Pruner
from nnc.columns import channels
from nnc.entries import DEFAULT
from nnc.errors import ConfigError, StorageError
from nnc.instruments import detach
from nnc.registry import adapter_for, algorithm, schedule_class
from nnc.schedules import Prunable, Round, Schedule, Task
from nnc.select import resolve
from nnc.storage import load, save
from nnc_schemas import PruneSpec, SpecError, parse_config_list

if TYPE_CHECKING:
    from nnc.trainer import Trainer

_RUN = "run.json"
_ROUNDS = "rounds.json"


class ScheduledPruner:
    """Prunes in rounds: task from the schedule, pruner, optional speedup, optional training, metric.

    `schedule` is a schedule's name ("linear", "agp", "lottery_ticket", "simulated_annealing", "auto_compress", "amc"); `options` are its
    own. `rounds` is how many there are. An entry's `algorithm`, by default "l1_norm", is the pruner. With `trainer`, and unless `train` is
    False, each round that the schedule trains is trained; its `evaluate` gives the metric. With `speedup` what is masked leaves after
    each round. `folder` keeps the rounds, and a second run on the same folder goes on where the first one ended; without it they are
    kept until the end only.

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
        self.example_inputs, self.trainer, self.train, self.speedup, self.seed = example_inputs, trainer, train, speedup, seed
        self.specs = _parsed(config_list)
        self.pruner = _one_pruner(self.specs)
        self._units = self._find_units()
        self.schedule = self._schedule(schedule, rounds, options)
        if speedup and self.schedule.rewinds:
            raise ConfigError(f"speedup: the schedule {schedule!r} gives back the first weights, whole; speed up after the last round.")
        if speedup and example_inputs is None:
            raise ConfigError("example_inputs: speedup=True runs the model after each round; pass some.")
        self.run = {
            "schedule": schedule,
            "rounds": rounds,
            "options": options,
            "speedup": speedup,
            "seed": seed,
            "config_list": [spec.model_dump(exclude_none=True) for spec in self.specs],
            "parameters": self._parameters(self.adapter),
        }
        self.folder = None if folder is None else Path(folder)
        self.done: list[Round] = [] if self.folder is None else read_rounds(self.folder, self.run)

    def compress(self) -> tuple[Any, Masks]:
        """Run the rounds that are left, and return the last one's model with its masks; after a speedup the small model without."""
        if self.folder is not None:
            return self._through(self.folder)
        with tempfile.TemporaryDirectory() as scratch:
            return self._through(Path(scratch))

    def _through(self, folder: Path) -> tuple[Any, Masks]:
        folder.mkdir(parents=True, exist_ok=True)
        if not self.done:
            save(self.model, folder / _name(0))
            _write(folder / _RUN, self.run)
        for finished in self.done:  # the schedule goes the same way again
            self.schedule.propose()
            self.schedule.observe(finished)
        model = self._load(folder, len(self.done)) if self.done else self.model
        while (task := self.schedule.propose()) is not None:
            model = self._round(folder, model, task)
        adapter = adapter_for(model)
        return model, adapter.masks()

    def _round(self, folder: Path, model: Any, task: Task) -> Any:
        """Do what a task says, write it down, and return the model."""
        number = len(self.done) + 1
        began = perf_counter()
        if task.start is not None and task.start != len(self.done):
            model = self._load(folder, task.start)
        model = self._pruned(model, task, number)
        if task.rewind:
            self._rewind(folder, model)
        if task.train and self.train and self.trainer is not None:
            self.trainer.train(model, seed=self.seed * 1000 + number, label=f"round {number}")
        metric = None if self.trainer is None else self.trainer.evaluate(model)
        finished = Round(number, task, metric, self._parameters(adapter_for(model)), perf_counter() - began)
        save(model, folder / _name(number))
        self.done.append(finished)
        # Last, for it vouches for the model.
        _write(folder / _ROUNDS, [one.to_dict() for one in self.done])
        self.schedule.observe(finished)
        return model

    def _pruned(self, model: Any, task: Task, number: int) -> Any:
        cls = self.pruner if task.algorithm is None else algorithm(task.algorithm)
        entries = self._entries(model, task, cls)
        pruner: Any = cls(model, entries, self.example_inputs, trainer=self.trainer, seed=self.seed + number)
        _, masks = pruner.compress()
        if not self.speedup:
            return model
        from nnc.speedup import ModelSpeedup

        small = ModelSpeedup(model, self.example_inputs, masks or _nothing(adapter_for(model))).speedup_model()
        detach(adapter_for(model))
        return small

    def _entries(self, model: Any, task: Task, cls: type[Any]) -> list[dict[str, Any]]:
        """Return the config_list of a round; sparsities, which count from the user's model, count from what `model` has left."""
        sizes = {layer.name: channels(layer) for layer in adapter_for(model).layers() if layer.prunable}
        entries = []
        for unit, (spec, layers, amount) in self._units.items():
            left = sum(sizes[name] for name in layers) / sum(self._channels[name] for name in layers)
            wanted = max(0.0, 1 - (1 - task.sparsity[unit]) / left)
            given = spec.model_dump(exclude_none=True, exclude_unset=True)
            own = {key: value for key, value in given.items() if key not in _REPLACED and key in cls.spec.model_fields}
            entries.append({**own, "algorithm": cls.name, "op_names": list(layers), amount: wanted})
        return entries

    def _find_units(self) -> dict[str, tuple[PruneSpec, tuple[str, ...], str]]:
        """Return what a task gives a sparsity: each layer or, where an entry has a total, the entry; with its layers and its key."""
        layers = {layer.name: layer for layer in self.adapter.layers()}
        self._channels = {name: channels(layer) for name, layer in layers.items() if layer.prunable}
        self._weights = {name: prod(layer.parameters["weight"]) for name, layer in layers.items() if layer.prunable}
        units: dict[str, tuple[PruneSpec, tuple[str, ...], str]] = {}
        for name, index in resolve(self.specs, self.adapter.layers(), self.pruner).items():
            spec = self.specs[index]
            if spec.per_layer is None and spec.total is None:
                raise ConfigError(f"{spec.place}: a schedule raises sparsity, or total_sparsity; give one of them.")
            if spec.per_layer is not None:
                units[name] = (spec, (name,), "sparsity")
            else:
                known = units.get(spec.place, (spec, (), "total_sparsity"))[1]
                units[spec.place] = (spec, (*known, name), "total_sparsity")
        return units

    def _schedule(self, name: str, rounds: int, options: Mapping[str, Any]) -> Schedule:
        cls = schedule_class(name, "schedule")
        if cls.needs_metric and (self.trainer is None or self.trainer.metric is None):
            raise ConfigError(f"trainer: the schedule {name!r} learns from a metric; pass trainer=nnc.Trainer(..., evaluate=...).")
        layers = {
            unit: Prunable(spec.amount, sum(self._channels[one] for one in names), sum(self._weights[one] for one in names))
            for unit, (spec, names, _) in self._units.items()
        }
        try:
            return cls(layers, rounds, self.seed, **options)
        except TypeError as error:
            raise ConfigError(f"schedule: {name!r} does not take {', '.join(options) or 'that'}: {error}.") from None

    def _load(self, folder: Path, number: int) -> Any:
        detach(self.adapter)
        return load(folder / _name(number), model=self.model)

    def _rewind(self, folder: Path, model: Any) -> None:
        """Give the layers their first weights again; masks stay."""
        masks = adapter_for(model).masks()
        load(folder / _name(0), model=model)
        adapter_for(model).set_masks(masks)

    def _parameters(self, adapter: Any) -> int:
        """Return how many parameters are left: those of the layers that no mask hides."""
        masks = adapter.masks()
        every = ((layer.name, name, shape) for layer in adapter.layers() for name, shape in layer.parameters.items())
        return sum(int(masks[layer][name].sum()) if name in masks.get(layer, {}) else prod(shape) for layer, name, shape in every)


#: What a task's entry says in place of the user's.
_REPLACED = {
    "algorithm",
    "op_types",
    "op_names",
    "op_partial_names",
    "op_names_re",
    "exclude_op_names",
    "exclude_op_types",
    "exclude_op_names_re",
    "sparsity",
    "sparsity_per_layer",
    "sparse_ratio",
    "total_sparsity",
}


def read_rounds(folder: Path, run: Mapping[str, Any] | None = None) -> list[Round]:
    """Return the finished rounds of a run; none where the folder is new. Raises `ConfigError` where it holds another run than `run`."""
    if not (folder / _RUN).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ConfigError(f"folder: {folder} holds other files and no run; choose a new or empty folder.")
        return []
    try:
        known = json.loads((folder / _RUN).read_text(encoding="utf-8"))
        rounds = folder / _ROUNDS
        finished = [Round.from_dict(one) for one in json.loads(rounds.read_text(encoding="utf-8"))] if rounds.is_file() else []
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{folder}: the run cannot be read: {error!r}.") from None
    if run is not None:
        _require_same(folder, known, json.loads(json.dumps(run)))
    return finished


def _require_same(folder: Path, known: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    other = [key for key in run if known.get(key) != run[key]]
    if other:
        key = other[0]
        found = f"{folder} holds a run with {key} {known.get(key)!r}, not {run[key]!r}"
        raise ConfigError(f"folder: {found}; choose another folder, or give the run what it began with.")


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


def _name(number: int) -> str:
    return f"round_{number:03}"


def _write(path: Path, data: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one."""
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(data, indent=1), encoding="utf-8")
    os.replace(scratch, path)
