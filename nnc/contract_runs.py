"""A training that contracts repeat: its state is written down in the middle, and another run begins there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np

from nnc.adapter import TrainableAdapter, TrainStep
from nnc.graph.ir import Array
from nnc.promises import require
from nnc.trainer import Trainer

#: Steps before the state is written down, and after it.
STEPS = 3


@dataclass(frozen=True)
class Snapshot:
    """A run in the middle: the model's tensors, the numbers of views and objectives, the optimizers' states."""

    tensors: Mapping[str, Array]
    numbers: Any
    state: Mapping[str, Array]


@dataclass(frozen=True)
class Course:
    """How a model was trained; `losses` are those of all steps that were made, `terms` those of the last one."""

    halfway: Snapshot
    losses: list[float]
    terms: Mapping[str, float]


def train(adapter: TrainableAdapter, trainer: Trainer, start: Snapshot | None = None) -> Course:
    """Train for twice `STEPS` steps, or from a snapshot on for the second half of them."""
    adapter.seed(0)
    step = adapter.trainer(trainer.loss, trainer.optimizer, trainer.precision, trainer.accumulate)
    batches = cycle(list(trainer.batches()))
    try:
        first = _trained(step, batches) if start is None else _skipped(adapter, step, batches, start)
        halfway = Snapshot({name: array.copy() for name, array in adapter.tensors().items()}, adapter.numbers(), step.state())
        return Course(halfway, [*first, *_trained(step, batches)], adapter.terms())
    finally:
        step.close()


def require_alike(found: Course, expected: Course, what: str) -> None:
    """Require the losses of a run that went on from another's snapshot to be those of that other one."""
    losses = expected.losses[STEPS:]
    alike = np.allclose(found.losses, losses, rtol=1e-4, atol=1e-6)
    require(alike, f"{what} has the losses {found.losses}, not {losses}.")


def _trained(step: TrainStep, batches: Iterator[Any]) -> list[float]:
    """Train for `STEPS` steps; return their losses."""
    return [step(batch) for batch in islice(batches, STEPS)]


def _skipped(adapter: TrainableAdapter, step: TrainStep, batches: Iterator[Any], start: Snapshot) -> list[float]:
    """Begin where another run had trained for `STEPS` steps; no losses are known of them."""
    for _ in islice(batches, STEPS):
        pass
    adapter.load_tensors(start.tensors)
    adapter.set_numbers(start.numbers)
    step.load_state(start.state)
    return []
