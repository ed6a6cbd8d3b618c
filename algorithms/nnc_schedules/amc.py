"""An agent learns from trials which layers can lose how much."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nnc.arguments import number
from nnc.graph.ir import Array
from nnc.schedules import Prunable, Round, Schedule, Task
from nnc_schedules.annealing import balanced
from nnc_schedules.ddpg import Agent

#: No layer loses more than this.
_MOST = 0.95


class AMCSchedule(Schedule):
    """An agent (DDPG) chooses each layer's sparsity, and is rewarded with the metric; the best choice is trained in the last round.

    He et al., AMC: AutoML for Model Compression, ECCV 2018, arXiv:1802.03494. A state is a layer's place, channels and weights, and what
    the layers before it were given; the sparsities are moved together until they remove the weights that the config_list asks for (the
    paper's resource constraint). Noise of standard deviation `noise`, falling to a tenth, lets it explore. Needs `evaluate`.
    """

    name = "amc"
    needs_metric = True

    def __init__(self, layers: Mapping[str, Prunable], rounds: int, seed: int = 0, *, noise: float = 0.25) -> None:
        super().__init__(layers, rounds, seed)
        self.noise = number("noise", noise, 0.0, np.inf, "it is the standard deviation of what is added to the agent's sparsities")
        self.agent = Agent(5, np.random.default_rng([seed, 0]))
        self.best: dict[str, float] | None = None
        self.best_metric = -np.inf

    def propose(self) -> Task | None:
        if len(self.done) > self.rounds:
            return None
        if len(self.done) == self.rounds:
            return Task(self.best or {name: layer.sparsity for name, layer in self.layers.items()}, start=0)
        _, actions = self._walk(self.random())
        chosen = balanced(actions * _MOST, self.layers)
        return Task({name: float(value) for name, value in zip(self.layers, chosen, strict=True)}, start=0, train=False)

    def observe(self, result: Round) -> None:
        if len(self.done) < self.rounds and result.metric is not None:
            actions = np.array(list(result.task.sparsity.values())) / _MOST
            self.agent.learn(self._states(actions), actions, result.metric)
            if result.metric > self.best_metric:
                self.best, self.best_metric = dict(result.task.sparsity), result.metric
        super().observe(result)

    def _walk(self, random: np.random.Generator) -> tuple[Array, Array]:
        """Go through the layers in their order, and return the states met and the actions chosen, with noise."""
        actions = np.zeros(len(self.layers))
        spread = self.noise * 0.1 ** (len(self.done) / self.rounds)
        for index in range(len(actions)):
            wished = self.agent.act(self._states(actions)[index : index + 1])[0]
            actions[index] = np.clip(wished + random.normal(0, spread), 0.0, 1.0)
        return self._states(actions), actions

    def _states(self, actions: Array) -> Array:
        """Return each layer's state, given the actions before it, `(layers, 5)`, all in [0, 1]."""
        channels = np.array([layer.channels for layer in self.layers.values()], float)
        weights = np.array([layer.weights for layer in self.layers.values()], float)
        share = weights / weights.sum()
        removed = np.concatenate([[0.0], np.cumsum(share * actions)[:-1]])
        before = np.concatenate([[0.0], actions[:-1]])
        place = np.linspace(0, 1, len(actions))
        return np.column_stack([place, channels / channels.max(), share, removed, before])
