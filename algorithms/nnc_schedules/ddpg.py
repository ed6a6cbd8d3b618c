"""A small deterministic policy gradient agent: two networks of one hidden layer, in NumPy.

    actor     a = sigmoid(W2 relu(W1 s + b1) + b2)       what to do in a state
    critic    q = W2 relu(W1 [s, a] + b1) + b2           what that is worth

Lillicrap et al., Continuous control with deep reinforcement learning, ICLR 2016, arXiv:1509.02971. Of its parts are left out the target
networks: rewards come at the end of an episode and are the same for all of its steps, so nothing is bootstrapped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nnc.graph.ir import Array


@dataclass
class Net:
    """A network of one hidden layer, trained by Adam."""

    weights: list[Array]
    moments: list[tuple[Array, Array]] = field(default_factory=list)
    steps: int = 0

    @staticmethod
    def fresh(inputs: int, hidden: int, random: np.random.Generator) -> Net:
        first = random.standard_normal((inputs, hidden)) * np.sqrt(2 / inputs)
        second = random.standard_normal((hidden, 1)) * 1e-2
        weights = [first, np.zeros(hidden), second, np.zeros(1)]
        return Net(weights, [(np.zeros_like(w), np.zeros_like(w)) for w in weights])

    def __call__(self, x: Array) -> Array:
        """Return the output for each row of `x`, `(rows,)`."""
        return np.asarray((np.maximum(x @ self.weights[0] + self.weights[1], 0) @ self.weights[2] + self.weights[3])[:, 0])

    def backward(self, x: Array, gradient: Array) -> tuple[list[Array], Array]:
        """Return the gradients by the weights and by `x`, given that by the output, `(rows,)`."""
        before = x @ self.weights[0] + self.weights[1]
        hidden = np.maximum(before, 0)
        back = (gradient[:, None] @ self.weights[2].T) * (before > 0)
        by_weights = [x.T @ back, back.sum(axis=0), hidden.T @ gradient[:, None], gradient.sum(keepdims=True)]
        return by_weights, back @ self.weights[0].T

    def step(self, gradients: list[Array], rate: float) -> None:
        """Take one step of Adam (Kingma, Ba 2015) against the gradients."""
        self.steps += 1
        for weight, gradient, (first, second) in zip(self.weights, gradients, self.moments, strict=True):
            first += 0.1 * (gradient - first)
            second += 0.001 * (gradient**2 - second)
            weight -= rate * (first / (1 - 0.9**self.steps)) / (np.sqrt(second / (1 - 0.999**self.steps)) + 1e-8)


class Agent:
    """Chooses an action in [0, 1] for a state, and learns from what episodes were worth."""

    def __init__(self, state_size: int, random: np.random.Generator, hidden: int = 32, updates: int = 40, rate: float = 1e-2) -> None:
        self.actor = Net.fresh(state_size, hidden, random)
        self.critic = Net.fresh(state_size + 1, hidden, random)
        self.updates, self.rate = updates, rate
        self._states: list[Array] = []
        self._actions: list[Array] = []
        self._rewards: list[Array] = []

    def act(self, states: Array) -> Array:
        """Return the action for each state, `(rows,)`."""
        return _sigmoid(self.actor(states))

    def learn(self, states: Array, actions: Array, reward: float) -> None:
        """Remember an episode, and improve critic and actor on all that are remembered."""
        self._states.append(states)
        self._actions.append(actions)
        self._rewards.append(np.full(len(actions), reward))
        known, done, worth = np.concatenate(self._states), np.concatenate(self._actions), np.concatenate(self._rewards)
        worth = (worth - worth.mean()) / (worth.std() + 1e-8)  # an advantage: the baseline is the mean episode
        pairs = np.column_stack([known, done])
        for _ in range(self.updates):
            gradients, _ = self.critic.backward(pairs, (self.critic(pairs) - worth) * (2 / len(worth)))
            self.critic.step(gradients, self.rate)
            self._improve(known)

    def _improve(self, states: Array) -> None:
        """Move the actor's actions to where the critic sees more worth."""
        actions = self.act(states)
        _, by_inputs = self.critic.backward(np.column_stack([states, actions]), np.full(len(states), -1.0 / len(states)))
        gradients, _ = self.actor.backward(states, by_inputs[:, -1] * actions * (1 - actions))
        self.actor.step(gradients, self.rate)


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))))
