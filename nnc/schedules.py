"""Scheduled pruning = a schedule x a pruner x optional speedup x optional training, round by round.

    linear               s_t = s t/n                           each round prunes on and trains
    agp                  s_t = s (1 - (1 - t/n)^3)             the same, most of it early
    lottery_ticket       s_t = 1 - (1 - s)^(t/n)               each round trains from the first weights again
    simulated_annealing  sparsities of layers at random        rounds are trials from the first weights; the best one is trained
    amc                  an agent's sparsities of layers       the same

A schedule gives the next `Task` and is told how each `Round` went. It is a function of those rounds and its seed alone, so that a run
that was killed goes on from its last finished round to the same result (rounds.py).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from nnc.arguments import whole_number
from nnc.errors import ConfigError, nearest


@dataclass(frozen=True)
class Prunable:
    """A layer that the config_list selects: its sparsity in the end, its output channels, its weights."""

    sparsity: float
    channels: int
    weights: int


@dataclass(frozen=True)
class Task:
    """What one round does: prune each layer to a sparsity, in fractions of the user's model.

    `start` is the round whose model it starts from, 0 the user's own, None the one before. `algorithm` is the pruner's name where it is not
    the run's own. `rewind` is whether the weights are the first ones again after pruning; `train` whether the round ends with training.
    """

    sparsity: Mapping[str, float]
    start: int | None = None
    algorithm: str | None = None
    rewind: bool = False
    train: bool = True


@dataclass(frozen=True)
class Round:
    """A finished round: its number from 1, its task, the metric (None without `evaluate`), parameters that are left, and seconds.

    `data` is where random numbers of the trainer's data stood after it (`Trainer.data_state`).
    """

    number: int
    task: Task
    metric: float | None
    parameters: int
    seconds: float
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sparsity(self) -> float:
        """The mean sparsity that the round asked for."""
        return float(np.mean(list(self.task.sparsity.values())))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Round:
        return Round(**{**data, "task": Task(**data["task"])})


class Schedule(ABC):
    """What to prune next, given what has happened. `name` is what recipes call it.

    `layers` are those that the config_list selects, `rounds` how many rounds there shall be. Subclasses take options of their own as
    keyword arguments. `needs_metric` says that it learns from the metric of each round, `rewinds` that its tasks give back the first
    weights.
    """

    name: ClassVar[str]
    needs_metric: ClassVar[bool] = False
    rewinds: ClassVar[bool] = False

    def __init__(self, layers: Mapping[str, Prunable], rounds: int, seed: int = 0) -> None:
        self.layers = dict(layers)
        self.rounds = whole_number("rounds", rounds, 1, f"it is how many rounds the schedule {self.name!r} has")
        self.seed = whole_number("seed", seed, 0, "random numbers are drawn by it")
        self.done: list[Round] = []

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Return the names of its own options: the keywords of its constructor, and of those that this one hands the rest to."""
        found: dict[str, None] = {}
        for each in cls.__mro__:
            made = vars(each).get("__init__")
            parameters = () if made is None else tuple(inspect.signature(made).parameters.values())
            found.update(dict.fromkeys(one.name for one in parameters if one.kind is one.KEYWORD_ONLY))
            if parameters and all(one.kind is not one.VAR_KEYWORD for one in parameters):
                break
        return tuple(found)

    @classmethod
    def require_options(cls, given: Iterable[str]) -> None:
        """Raise `ConfigError` for an option that it does not take."""
        known = cls.options()
        for name in given:
            if name not in known:
                takes = f"its options are {', '.join(known)}" if known else "it has no options"
                raise ConfigError(f"schedule: {cls.name!r} does not take {name}{nearest(name, known)}; {takes}.")

    @abstractmethod
    def propose(self) -> Task | None:
        """Return the next round's task, or None after the last."""

    def observe(self, result: Round) -> None:
        """Take note of a finished round."""
        self.done.append(result)

    def random(self) -> np.random.Generator:
        """Return random numbers for the next round: the same ones whether or not the run was interrupted."""
        return np.random.default_rng([self.seed, len(self.done)])


class Gradual(Schedule):
    """A schedule that is a formula: `fraction(t)` of the final sparsity at the time t in (0, 1]."""

    def propose(self) -> Task | None:
        if len(self.done) == self.rounds:
            return None
        t = (len(self.done) + 1) / self.rounds
        return self.task({name: self.at(layer.sparsity, t) for name, layer in self.layers.items()})

    def task(self, sparsity: Mapping[str, float]) -> Task:
        return Task(sparsity)

    @abstractmethod
    def at(self, final: float, t: float) -> float:
        """Return the sparsity at the time t on the way to the final one."""
