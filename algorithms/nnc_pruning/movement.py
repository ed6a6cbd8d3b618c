"""A weight is worth what training does with it: what moves away from zero stays.

    hard     keep the highest scores, so many as a cubic schedule says        S <- S - rate * sum w * dL/dw
    soft     keep what has sigmoid(S) above a threshold, with a penalty on sigmoid(S)

The score belongs to what can leave: a channel or a head with example inputs, else a row of the weight; or to a block of weights, or to
each of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from nnc.adapter import Layer, Masks
from nnc.algorithm import Algorithm, Pruner
from nnc.columns import channel_axis
from nnc.errors import ConfigError
from nnc.instruments import trainable
from nnc.objective import Objective
from nnc.views import Learning, Site, View
from nnc_pruning.movement_scores import STEP, Movement, Part, Progress, blocks
from nnc_schemas.learned import MovementSpec

_VIEW = Movement.name


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
        chosen = {spec.element or spec.block is not None for spec in Algorithm._own(self, config_list) if not spec.exclude}
        if len(chosen) > 1:
            asked = "one entry scores weights or blocks of them, and another what can leave"
            raise ConfigError(f"config_list: {asked}; give all entries one granularity.")
        self.granularity = "element" if chosen == {True} else "channel"
        return super()._own(config_list)

    def _by_element(self) -> dict[Site, Movement]:
        made = {}
        for name, layer in self.layers.items():
            shape, entry = layer.parameters["weight"], self.entry(name)
            scores = shape if entry.block is None else blocks(shape, entry, name)
            made[Site(name, "weight")] = Movement(entry, (Part(name, None, scores, 1.0, entry.block),), self._due(entry))
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
                found[site] = Movement(entry, (*(found[site].parts if site in found else ()), part), self._due(entry))
        return found

    def _due(self, entry: MovementSpec) -> float:
        """Return which part of the scores is masked in the end: a total counts in the larger model, of which something has left."""
        if entry.total is None or not self.whole:
            return entry.amount
        before, now = 0.0, 0.0
        for name, layer in self.layers.items():
            if self.entry(name) is entry or (entry.global_group is not None and self.entry(name).global_group == entry.global_group):
                shape = self.whole[f"{name}.weight".lstrip(".")]
                before += prod(shape)
                now += prod(shape) * layer.parameters["weight"][0] / shape[0]
        return max(0.0, 1 - (1 - entry.amount) * before / now)

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
        step = max((float(given[STEP]) for (_, view), given in numbers.items() if view == _VIEW), default=0.0)
        if not step:
            remedy = "train with nnc.Trainer or fit, or call loss = compressed.loss(loss) in your loop"
            raise ConfigError(f"{self.name}: no training step has been made, so nothing has moved; {remedy}.")
        late = [view.entry for view in self._views.values() if view.entry.mode == "hard" and step < view.entry.cool_down]
        if late:
            ended = f"training ended at step {step:.0f}, before cool_down {late[0].cool_down}"
            warnings.warn(f"{late[0].place}: {ended}: what was still due leaves at once, untrained.", UserWarning, stacklevel=2)
        return super().finish()

    def decide(self) -> Masks:
        """Return the masks of now; blocks leave whole, which a fraction of the weights would not see to."""
        found = super().decide()
        for site, view in self._views.items():
            if view.entry.block is not None:
                scores = trainable(self.adapter, self.name).numbers()[str(site), _VIEW]["scores0"]
                shape = self.layers[site.layer].parameters["weight"]
                whole = view.spread(view.parts[0], view.highest(scores), shape).astype(bool)
                earlier = self.adapter.masks().get(site.layer, {}).get("weight")
                found[site.layer] = {**found[site.layer], "weight": whole if earlier is None else whole & earlier}
        return found

    def score(self, layer: Layer) -> Any:
        """Return the learned score of each output channel, `(out,)`, or of each element; soft: its sigmoid.

        A granule's score is spread over its channels, so that their sum is the granule's.
        """
        view = self._views.get(Site(layer.name, "weight"))
        shape = layer.parameters["weight"]
        if view is None:  # in no group that can leave
            return np.zeros(shape[:1])
        numbers = trainable(self.adapter, self.name).numbers()[str(Site(layer.name, "weight")), _VIEW]
        return sum(view.spread(part, view.worth(numbers[f"scores{index}"]), shape) for index, part in enumerate(view.parts))


def _is_norm_of(norm: Layer, before: Layer) -> bool:
    fits = before.prunable and any(shape == before.parameters["weight"][:1] for shape in norm.parameters.values())
    return fits and any(kind.startswith("BatchNorm") for kind in norm.op_types)
