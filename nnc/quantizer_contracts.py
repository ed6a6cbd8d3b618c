"""What a quantizer promises, each promise a function that is run on the example network of every framework that trains."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nnc.algorithm import Quantizer
from nnc.arrays import to_numpy
from nnc.contract_runs import Course, Snapshot, require_alike, train
from nnc.instruments import trainable
from nnc.promises import Deliberate, State, require
from nnc.pruner_contracts import Build
from nnc.registry import adapter_for
from nnc.trainer import Trainer


@dataclass(frozen=True)
class Run:
    """A model that was trained on the grids of a quantizer, before and after, once they were taken off."""

    before: State
    after: State
    course: Course


@dataclass(frozen=True)
class QuantTrial:
    """A quantizer on one framework's example network. Contracts share the first run."""

    quantizer: type[Quantizer]
    build: Build
    trainer: Callable[[], Trainer]
    config: list[dict[str, Any]]
    options: Mapping[str, Any]

    def made(self, config: Any = None) -> tuple[Any, Any, State]:
        """Return a fresh quantizer, by default by the trial's own config_list, its example inputs, and its model as it was before."""
        model, inputs = self.build()
        before = State.of(model)
        given = self.config if config is None else config
        return self.quantizer(model, given, inputs, trainer=self.trainer(), **self.options), inputs, before

    @cached_property
    def first(self) -> Run:
        return self.run()

    def run(self, start: Snapshot | None = None, config: Any = None, times: int = 1) -> Run:
        """Train on the grids from the beginning, or from a snapshot on."""
        quantizer, _, before = self.made(config)
        for _ in range(times):
            quantizer.compress()
        course = train(trainable(adapter_for(quantizer.model), quantizer.name), self.trainer(), start)
        quantizer.unwrap_model()
        return Run(before, State.of(quantizer.model), course)


def constructing_touches_nothing(trial: QuantTrial) -> None:
    quantizer, _, before = trial.made()
    State.of(quantizer.model).require_same(before, "constructing the quantizer")


def the_model_is_seen_on_the_grids_that_it_names(trial: QuantTrial) -> None:
    quantizer, inputs, _ = trial.made()
    quantizer.compress()
    grids = quantizer.grids()
    require(bool(grids), "grids() names no tensor that is quantised.")
    _, seen = trainable(adapter_for(quantizer.model), quantizer.name).forward(inputs, tuple(grids))
    for site, grid in grids.items():
        found = to_numpy(seen[site])
        step = float(np.max(grid.scale))
        require(float(np.abs(grid(found) - found).max(initial=0)) < 1e-3 * step, f"{site} is seen as numbers that are not on its grid.")


def the_model_trains_on_the_grids(trial: QuantTrial) -> None:
    first = trial.first
    require(bool(np.isfinite(first.course.losses).all()), f"the losses {first.course.losses} are not all finite.")
    moved = any(not np.array_equal(array, first.before.tensors[name]) for name, array in first.after.tensors.items())
    require(moved, "training has not changed the model.")


def a_run_goes_on_from_its_state(trial: QuantTrial) -> None:
    """Also with a config_list that has been JSON."""
    again = trial.run(trial.first.course.halfway, config=json.loads(json.dumps(trial.config)))
    require_alike(again.course, trial.first.course, "a run that went on from the state of another, its config_list from JSON,")


def applying_twice_is_applying_once(trial: QuantTrial) -> None:
    again = trial.run(trial.first.course.halfway, times=2)
    require_alike(again.course, trial.first.course, "a run with the quantizer applied twice")


def unwrapping_gives_the_model_back(trial: QuantTrial) -> None:
    quantizer, _, before = trial.made()
    quantizer.compress()
    quantizer.unwrap_model()
    State.of(quantizer.model).require_same(before, "unwrap_model()")
    trial.first.after.require_same(trial.first.before, "unwrap_model() after training", numbers=False)


def an_exception_leaves_the_model_as_it_was(trial: QuantTrial) -> None:
    quantizer, _, before = trial.made()
    own = quantizer.views

    def failing() -> Iterator[Any]:
        own()
        raise Deliberate

    quantizer.views = failing
    try:
        quantizer.compress()
    except Deliberate:
        State.of(quantizer.model).require_same(before, "an exception in views()")
    else:
        require(False, "compress() swallows an exception in views(), or never calls it.")


QUANTIZER_CONTRACTS: tuple[Callable[[QuantTrial], None], ...] = (
    constructing_touches_nothing,
    the_model_is_seen_on_the_grids_that_it_names,
    the_model_trains_on_the_grids,
    a_run_goes_on_from_its_state,
    applying_twice_is_applying_once,
    unwrapping_gives_the_model_back,
    an_exception_leaves_the_model_as_it_was,
)
