"""A weight is worth what training does with it: what moves away from zero stays.

    hard     keep the highest scores, so many as a cubic schedule says        S <- S - rate * sum w * dL/dw
    soft     keep what has sigmoid(S) above a threshold, with a penalty on sigmoid(S)

The score belongs to what can leave: a channel or a head with example inputs, else a row of the weight; or to each element.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nnc.adapter import Layer, Masks, Ops
from nnc.algorithm import Algorithm, Pruner
from nnc.columns import channel_axis
from nnc.errors import ConfigError
from nnc.graph.ir import Array
from nnc.instruments import trainable
from nnc.objective import Objective, Seen
from nnc.views import Learning, Site, State, Variable, View
from nnc_schemas.learned import MovementSpec

_VIEW = "movement"
_STEP = "step"


class MovementPruner(Pruner):
    """Weights that training moves towards zero leave; scores are learned beside the weights.

    Sanh et al., Movement Pruning, NeurIPS 2020, arXiv:2005.07683, sections 3 and 4; blocks and heads: Lagunas et al., 2021,
    arXiv:2109.04838. Needs training.
    """

    name = "movement"
    spec = MovementSpec
    treated = "layers whose whole weight takes part in every step, unlike that of an embedding"
    learns = True

    def __init__(self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, **options: Any) -> None:
        super().__init__(model, config_list, example_inputs, **options)
        self._views = self._by_element() if self.granularity == "element" else self._by_granule()

    @staticmethod
    def treats(layer: Layer) -> bool:
        return layer.prunable and not channel_axis(layer)

    def _own(self, config_list: Any) -> tuple[Any, ...]:
        chosen = {spec.element for spec in Algorithm._own(self, config_list) if not spec.exclude}
        if len(chosen) > 1:
            raise ConfigError("config_list: element is true in one entry and false in another; give all entries one granularity.")
        self.granularity = "element" if chosen == {True} else "channel"
        return super()._own(config_list)

    def _by_element(self) -> dict[Site, Movement]:
        made = {}
        for name, layer in self.layers.items():
            shape = layer.parameters["weight"]
            made[Site(name, "weight")] = Movement(self.entry(name), (Part(name, None, shape, 1.0),))
        return made

    def _by_granule(self) -> dict[Site, Movement]:
        if self.example_inputs is None:
            self._warn_of_norms()
        found: dict[Site, Movement] = {}
        for number, (entry, rows) in enumerate(self.granules()):
            count = 1 + max(int(vector.max()) for vector in rows.values())
            scored = sum(int((vector >= 0).sum()) for path, vector in rows.items() if path.endswith("weight"))
            for path, vector in rows.items():
                layer, _, parameter = path.rpartition(".")
                site = Site(layer, parameter)
                part = Part(f"group {number}", vector, (count,), count / scored)
                # A parameter may belong to several groups, as that of a concatenation's reader does.
                found[site] = Movement(entry, (*(found[site].parts if site in found else ()), part))
        return found

    def _warn_of_norms(self) -> None:
        """Warn of layers that a BatchNorm follows in the model's order: without a graph their channels are scored without it."""
        normed = {before.name for before, norm in pairwise(self.adapter.layers()) if _is_norm_of(norm, before)}
        alone = [name for name in self.layers if name in normed]
        if alone:
            why = "a BatchNorm undoes the scale of a channel, so the loss does not say what the channel is worth, and its score is noise"
            listed = f"{', '.join(alone[:6])}{' ...' if len(alone) > 6 else ''}"
            remedy = "pass example_inputs=, and channels are scored together with their BatchNorm"
            warnings.warn(f"{self.name}: {listed}: {why}; {remedy}.", UserWarning, stacklevel=2)

    def views(self) -> Mapping[Site, tuple[View, ...]]:
        return {site: (view,) for site, view in self._views.items()}

    def learning(self) -> Mapping[str, Learning]:
        return {view.group: Learning(view.entry.score_rate, "sgd") for view in self._views.values()}

    def objectives(self) -> Sequence[Objective]:
        return (Progress(self._views),)

    def finish(self) -> Masks:
        numbers = trainable(self.adapter, self.name).numbers()
        step = max((float(given[_STEP]) for (_, view), given in numbers.items() if view == _VIEW), default=0.0)
        if not step:
            remedy = "train with nnc.Trainer or fit, or call loss = compressed.loss(loss) in your loop"
            raise ConfigError(f"{self.name}: no training step has been made, so nothing has moved; {remedy}.")
        late = [view.entry for view in self._views.values() if view.entry.mode == "hard" and step < view.entry.cool_down]
        if late:
            ended = f"training ended at step {step:.0f}, before cool_down {late[0].cool_down}"
            warnings.warn(f"{late[0].place}: {ended}: what was still due leaves at once, untrained.", UserWarning, stacklevel=2)
        return super().finish()

    def score(self, layer: Layer) -> Any:
        """Return the learned score of each output channel, `(out,)`, or of each element; soft: its sigmoid.

        A granule's score is spread over its channels, so that their sum is the granule's.
        """
        view = self._views.get(Site(layer.name, "weight"))
        shape = layer.parameters["weight"]
        if view is None:  # in no group that can leave
            return np.zeros(shape[:1])
        numbers = trainable(self.adapter, self.name).numbers()[str(Site(layer.name, "weight")), _VIEW]
        return sum(view.spread(part, numbers[f"scores{index}"], shape) for index, part in enumerate(view.parts))


def _is_norm_of(norm: Layer, before: Layer) -> bool:
    fits = before.prunable and any(shape == before.parameters["weight"][:1] for shape in norm.parameters.values())
    return fits and any(kind.startswith("BatchNorm") for kind in norm.op_types)


@dataclass(frozen=True)
class Part:
    """Scores of one group: which of them each row has (-1: none), or None where each element has its own.

    `shared` names them, so that all members of the group learn the same; `share` is a row's part of its granule's score.
    """

    shared: str
    rows: Array | None
    shape: tuple[int, ...]
    share: float


class Movement(View):
    """Shows a parameter times a mask of its scores' making; the mask's gradient goes to the scores as if they were the mask."""

    name = _VIEW

    def __init__(self, entry: MovementSpec, parts: tuple[Part, ...]) -> None:
        self.entry = entry
        self.parts = parts
        self.group = f"movement scores at {entry.score_rate:g}"

    def variables(self) -> Mapping[str, Variable]:
        zeros = ((f"scores{index}", part, np.zeros(part.shape, np.float32)) for index, part in enumerate(self.parts))
        scores = {name: Variable(zero, True, self.group, f"movement of {part.shared}") for name, part, zero in zeros}
        return {**scores, _STEP: Variable(np.zeros((), np.float32), shared="movement's step")}

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        for index, part in enumerate(self.parts):
            scores = state[f"scores{index}"]
            if part.rows is not None:
                mask = ops.stop_gradient(ops.astype(self._keep(scores, part, state, ops), ops.float32) - scores) + scores
                x = x * _of_rows(mask, part.rows, len(x.shape), ops)
            elif self.entry.mode == "soft":
                x = _of_elements(x, scores, self._keep(scores, part, state, ops), ops)
            else:
                x = ops.only_highest(x, scores, self._leaving(part, state, ops))
        return x

    def _keep(self, scores: Any, part: Part, state: State, ops: Ops) -> Any:
        """Return True for what stays, False for what is masked, in the scores' shape."""
        scores = ops.stop_gradient(scores)
        if self.entry.mode == "soft":
            return ops.sigmoid(scores) > self.entry.threshold
        return ops.without_lowest(scores, self._leaving(part, state, ops))

    def _leaving(self, part: Part, state: State, ops: Ops) -> Any:
        """Return how many of a part's scores are masked at this step."""
        (count,) = ops.few(lambda ops, step: (self._due(step, int(np.prod(part.shape)), ops),), state[_STEP])
        return ops.astype(count, ops.int32)

    def _due(self, step: Any, size: int, ops: Ops) -> Any:
        """Return how many of `size` are due at a step: amount * (1 - (1 - t)^3) between warm-up and cool-down (arXiv:1710.01878)."""
        length = max(1, self.entry.cool_down - self.entry.warm_up)
        left = 1.0 - ops.clip((step - self.entry.warm_up) / length, 0.0, 1.0)
        return ops.floor(self.entry.amount * size * (1.0 - left * left * left) + 1e-6)

    def spread(self, part: Part, scores: Array, shape: tuple[int, ...]) -> Array:
        """Return the scores as a layer's granules have them."""
        worth = 1 / (1 + np.exp(-scores.astype(np.float64))) if self.entry.mode == "soft" else scores.astype(np.float64)
        if part.rows is None:
            return worth
        return np.where(part.rows >= 0, worth[part.rows], 0.0) * part.share


class Progress(Objective):
    """Counts the steps, on which the views' sparsity depends, and pulls soft scores down: regular_scale * mean of sigmoid(scores)."""

    name = _VIEW

    def __init__(self, views: Mapping[Site, Movement]) -> None:
        self.clock = next(iter(views))
        self.soft: dict[str, tuple[Site, str, float]] = {}
        for site, view in views.items():
            for index, part in enumerate(view.parts if view.entry.mode == "soft" else ()):
                self.soft[part.shared] = (site, f"scores{index}", view.entry.regular_scale)

    def terms(self, seen: Seen, ops: Ops) -> Mapping[str, Any]:
        clock = seen.views[self.clock, _VIEW]
        clock.assign(_STEP, clock[_STEP] + 1.0)
        means = [ops.mean(ops.sigmoid(seen.views[site, _VIEW][name])) * scale for site, name, scale in self.soft.values()]
        return {"scores": sum(means[1:], means[0]) / len(means)} if means else {}


def _of_elements(x: Any, scores: Any, keep: Any, ops: Ops) -> Any:
    """Return a parameter without the elements that are masked; the scores get the gradient of a mask by which it was multiplied."""

    def forward(x: Any, _: Any) -> Any:
        return ops.only(x, keep), (x, keep)

    return ops.with_gradient(forward, lambda gradient, x, keep: (ops.only(gradient, keep), gradient * x), x, scores)


def _of_rows(mask: Any, rows: Array, ndim: int, ops: Ops) -> Any:
    """Return a mask over granules as one over rows, shaped to multiply a parameter; rows without a granule have 1."""
    if np.array_equal(rows, np.arange(mask.shape[0])):
        return ops.reshape(mask, (len(rows), *(1,) * (ndim - 1)))
    one = ops.ones_like(mask[:1])
    index = ops.asarray(np.where(rows >= 0, rows, mask.shape[0]).astype(np.int32))
    return ops.reshape(ops.take(ops.concat([mask, one], axis=0), index, axis=0), (len(rows), *(1,) * (ndim - 1)))
