"""Search over the sparsities of layers by simulated annealing: the same share of weights leaves, but from which layers?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnc.arguments import TINY, number, whole_number
from nnc.graph.ir import Array
from nnc.schedules import Prunable, Round, Schedule, Task

#: No layer loses more than this in a trial.
_MOST = 0.95


class SimulatedAnnealingSchedule(Schedule):
    """Each round tries other sparsities of the layers, near the last accepted ones; the best ones are trained in the last round.

    Liu et al., AutoCompress, AAAI 2020, arXiv:1907.03141, section 4.2. A worse trial is accepted with probability exp(difference / T);
    the temperature T falls by `cool_down` each round, and with it how far a trial goes. Needs `evaluate`.
    """

    name = "simulated_annealing"
    needs_metric = True

    def __init__(
        self,
        layers: Mapping[str, Prunable],
        rounds: int,
        seed: int = 0,
        *,
        temperature: float = 1.0,
        cool_down: float = 0.9,
        reach: float = 0.35,
    ) -> None:
        super().__init__(layers, rounds, seed)
        self.temperature = number("temperature", temperature, TINY, np.inf, "a worse trial is accepted the sooner the higher it is")
        self.cool_down = number("cool_down", cool_down, TINY, 1.0, "it is what the temperature is multiplied by after each round")
        self.reach = number("reach", reach, TINY, np.inf, "it is how far a trial's sparsities go from the last ones")
        self.accepted = self.best = np.array([layer.sparsity for layer in layers.values()])
        self.metric = self.best_metric = -np.inf

    def propose(self) -> Task | None:
        if len(self.done) > self.rounds:
            return None
        if len(self.done) == self.rounds:
            return self.last(self._named(self.best))
        return self.trial(self._named(self.accepted if not self.done else self._neighbour()))

    def trial(self, sparsity: Mapping[str, float]) -> Task:
        return Task(sparsity, start=0, train=False)

    def last(self, sparsity: Mapping[str, float]) -> Task:
        return Task(sparsity, start=0)

    def observe(self, result: Round) -> None:
        if len(self.done) < self.rounds and result.metric is not None:
            self._judge(np.array(list(result.task.sparsity.values())), result.metric)
        super().observe(result)

    def _judge(self, sparsity: Array, metric: float) -> None:
        if metric > self.best_metric:
            self.best, self.best_metric = sparsity, metric
        # Drawn whether or not it is needed, so that the draws do not depend on the metric.
        luck = self.random().random()
        if metric > self.metric or luck < np.exp((metric - self.metric) / self._now()):
            self.accepted, self.metric = sparsity, metric

    def _now(self) -> float:
        return float(self.temperature * self.cool_down ** len(self.done))

    def _neighbour(self) -> Array:
        """Return sparsities near the accepted ones that remove as many weights in all."""
        reach = self.reach * self._now() / self.temperature
        draw = self.random().spawn(1)[0].uniform(-reach, reach, len(self.accepted))
        return balanced(np.clip(self.accepted + draw, 0.0, _MOST), self.layers)

    def _named(self, sparsity: Array) -> dict[str, Any]:
        return {name: float(value) for name, value in zip(self.layers, sparsity, strict=True)}


def balanced(sparsity: Array, layers: Mapping[str, Prunable]) -> Array:
    """Return sparsities moved by one common amount, within [0, 0.95], until they remove the weights that the layers' own would."""
    weights = np.array([layer.weights for layer in layers.values()], float)
    wanted = float(weights @ np.array([layer.sparsity for layer in layers.values()]))
    low, high = -1.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if weights @ np.clip(sparsity + middle, 0.0, _MOST) < wanted else (low, middle)
    return np.asarray(np.clip(sparsity + high, 0.0, _MOST))


class AutoCompressSchedule(SimulatedAnnealingSchedule):
    """Simulated annealing finds the sparsities, ADMM trains towards them: in each of `steps` stages a part of the whole.

    Liu et al., AutoCompress, AAAI 2020, arXiv:1907.03141, figure 1. `rounds` trials make one stage; the last round of a stage prunes with
    "admm". Needs `evaluate`.
    """

    name = "auto_compress"

    def __init__(self, layers: Mapping[str, Prunable], rounds: int, seed: int = 0, *, steps: int = 2, **options: Any) -> None:
        self.final = dict(layers)
        self.given = options
        self.steps = whole_number("steps", steps, 1, "it is in how many stages the sparsity is reached")
        self.stage = 0
        super().__init__(self._part(), rounds, seed, **options)

    def _part(self) -> dict[str, Prunable]:
        """Return the layers with the sparsities that are due at the end of this stage."""
        t = (self.stage + 1) / self.steps
        return {name: Prunable(1 - (1 - layer.sparsity) ** t, layer.channels, layer.weights) for name, layer in self.final.items()}

    def propose(self) -> Task | None:
        if len(self.done) > self.rounds and self.stage + 1 < self.steps:
            self.stage += 1
            super().__init__(self._part(), self.rounds, self.seed, **self.given)
        return super().propose()

    def last(self, sparsity: Mapping[str, float]) -> Task:
        return Task(sparsity, start=self._base(), algorithm="admm")

    def trial(self, sparsity: Mapping[str, float]) -> Task:
        return Task(sparsity, start=self._base(), train=False)

    def _base(self) -> int:
        """Return the round that the stage starts from: the last of the stage before."""
        return self.stage * (self.rounds + 1)

    def random(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.stage, len(self.done)])
