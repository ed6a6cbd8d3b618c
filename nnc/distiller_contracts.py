"""What a distiller promises, each promise a function that is run on a student, a teacher and a trainer of every framework.

A first run is trained for some steps, and its state is written down in the middle. Others begin there: with a config_list that has been
JSON, with the distiller applied twice. None of that may make a difference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nnc.algorithm import Distiller
from nnc.contract_runs import Course, Snapshot, require_alike, train
from nnc.instruments import trainable
from nnc.promises import Deliberate, State, require
from nnc.registry import adapter_for
from nnc.trainer import Trainer

#: What a contract needs: () -> (student, teacher, trainer of the student); the same numbers at each call.
Pair = Callable[[], tuple[Any, Any, Trainer]]


@dataclass(frozen=True)
class Run:
    """A student that was trained with what a distiller put on it.

    `after` and `left` are the student and the terms on it once the distiller was taken off; `taught` is the teacher before and after.
    """

    before: State
    after: State
    taught: tuple[State, State]
    course: Course
    left: Mapping[str, float]


@dataclass(frozen=True)
class DistillTrial:
    """A distiller on one framework's student and teacher. Contracts share the first run."""

    distiller: type[Distiller]
    pair: Pair
    config: list[dict[str, Any]]
    options: Mapping[str, Any]

    def make(self, student: Any, teacher: Any, trainer: Trainer, config: Any = None) -> Any:
        """Return the distiller of a student, by default by the trial's own config_list."""
        return self.distiller(student, self.config if config is None else config, teacher=teacher, trainer=trainer, **self.options)

    @cached_property
    def first(self) -> Run:
        return self.run()

    def run(self, start: Snapshot | None = None, config: Any = None, times: int = 1) -> Run:
        """Train from the beginning, or from a snapshot on."""
        student, teacher, trainer = self.pair()
        distiller = self.make(student, teacher, trainer, config)
        before, untaught = State.of(student), State.of(teacher)
        for _ in range(times):
            distiller.compress()
        adapter = trainable(adapter_for(student), self.distiller.name)
        course = train(adapter, trainer, start)
        distiller.unwrap_model()
        return Run(before, State.of(student), (untaught, State.of(teacher)), course, adapter.terms())


def constructing_touches_nothing(trial: DistillTrial) -> None:
    student, teacher, trainer = trial.pair()
    before, taught = State.of(student), State.of(teacher)
    trial.make(student, teacher, trainer)
    State.of(student).require_same(before, "constructing the distiller")
    State.of(teacher).require_same(taught, "constructing the distiller, on the teacher,")


def the_student_trains_and_the_teacher_does_not(trial: DistillTrial) -> None:
    first = trial.first
    terms, losses = first.course.terms, first.course.losses
    own = {name: value for name, value in terms.items() if name.startswith(f"{trial.distiller.name}.")}
    require(bool(own), f"a training step reports {sorted(terms)}; a term {trial.distiller.name!r} is none of them.")
    require(bool(np.isfinite([*losses, *own.values()]).all()), f"the losses {losses} with the terms {own} are not all finite.")
    moved = any(not np.array_equal(array, first.before.tensors[name]) for name, array in first.after.tensors.items())
    require(moved, "training has not changed the student.")
    first.taught[1].require_same(first.taught[0], "training, on the teacher,")


def a_run_goes_on_from_its_state(trial: DistillTrial) -> None:
    """Also with a config_list that has been JSON."""
    again = trial.run(trial.first.course.halfway, config=json.loads(json.dumps(trial.config)))
    require_alike(again.course, trial.first.course, "a run that went on from the state of another, its config_list from JSON,")


def applying_twice_is_applying_once(trial: DistillTrial) -> None:
    again = trial.run(trial.first.course.halfway, times=2)
    require_alike(again.course, trial.first.course, "a run with the distiller applied twice")


def unwrapping_gives_the_student_back(trial: DistillTrial) -> None:
    first = trial.first
    first.after.require_same(first.before, "unwrap_model()", numbers=False)
    require(not first.left, f"unwrap_model() leaves the terms {sorted(first.left)} on the student.")


def an_exception_leaves_the_student_as_it_was(trial: DistillTrial) -> None:
    student, teacher, trainer = trial.pair()
    before = State.of(student)
    distiller = trial.make(student, teacher, trainer)
    own = distiller.objectives

    def failing() -> Iterator[Any]:
        yield from own()
        raise Deliberate

    distiller.objectives = failing
    try:
        distiller.compress()
    except Deliberate:
        State.of(student).require_same(before, "an exception in objectives()")
    else:
        require(False, "compress() swallows an exception in objectives(), or never calls it.")


DISTILLER_CONTRACTS: tuple[Callable[[DistillTrial], None], ...] = (
    constructing_touches_nothing,
    the_student_trains_and_the_teacher_does_not,
    a_run_goes_on_from_its_state,
    applying_twice_is_applying_once,
    unwrapping_gives_the_student_back,
    an_exception_leaves_the_student_as_it_was,
)
