"""The contracts of a pruner: each is one function and one promise, and runs on a framework's example network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nnc.adapter import Masks
from nnc.algorithm import Pruner
from nnc.allocation import count_of
from nnc.arrays import to_numpy
from nnc.graph.ir import Shape
from nnc.masks import normalise
from nnc.promises import Deliberate, State, require, same_masks
from nnc.registry import adapter_for

#: What the contracts ask of the example networks: a third of every layer, which divides few layers evenly.
CONFIG: list[dict[str, Any]] = [{"sparsity": 0.3}]

Build = Callable[[], tuple[Any, Any]]


@dataclass(frozen=True)
class Trial:
    """A pruner on a framework's example network. Contracts that only look share the first run; it is trained in the last of them."""

    pruner: type[Pruner]
    build: Build
    config: list[dict[str, Any]]
    options: Mapping[str, Any]

    def make(self, model: Any, config: Any = None) -> Any:
        """Return the pruner of `model`, by default by the trial's own config_list."""
        return self.pruner(model, self.config if config is None else config, **self.options)

    @cached_property
    def first(self) -> FirstRun:
        model, _ = self.build()
        before = State.of(model)
        pruner = self.make(model)
        constructed = State.of(model)
        shapes = _noting_shapes(pruner)
        _, masks = pruner.compress()
        return FirstRun(pruner, before, constructed, shapes, masks)

    def require_same(self, before: State, model: Any, event: str) -> None:
        """Require the model to be as it was; what a pruner that learns has trained stays trained."""
        State.of(model).require_same(before, event, numbers=not self.pruner.learns)


@dataclass(frozen=True)
class FirstRun:
    """A pruner that has pruned: the model before and after its construction, the shapes of its scores by layer, its masks."""

    pruner: Any
    before: State
    constructed: State
    shapes: Mapping[str, Shape]
    masks: Masks


def _noting_shapes(pruner: Any) -> dict[str, Shape]:
    """Return the shapes of the scores by layer, filled in when the pruner scores."""
    score, shapes = pruner.score, {}

    def noting(layer: Any) -> Any:
        found = score(layer)
        shapes[layer.name] = to_numpy(found).shape
        _require_shape(pruner, layer, shapes[layer.name])
        return found

    pruner.score = noting
    return shapes


def _require_shape(pruner: Any, layer: Any, found: Shape) -> None:
    shape = layer.parameters["weight"]
    expected = tuple(shape if pruner.granularity == "element" else shape[:1])
    require(found == expected, f"score({layer.name!r}) has shape {found}; granularity {pruner.granularity!r} needs {expected}.")


def scores_have_one_number_a_granule(trial: Trial) -> None:
    first = trial.first
    if not first.shapes:  # a pruner that decides in another way, as by solving for the weights that stay
        for layer in first.pruner.layers.values():
            first.pruner.score(layer)


def constructing_touches_nothing(trial: Trial) -> None:
    trial.first.constructed.require_same(trial.first.before, "constructing the pruner")


def the_ratio_is_exact(trial: Trial) -> None:
    first = trial.first
    for name in first.pruner.layers:
        require(name in first.masks, f"{name!r} has no masks, though the config names it.")
        weight = first.masks[name]["weight"]
        stays = weight if first.pruner.granularity == "element" else weight.reshape(len(weight), -1).any(axis=1)
        gone, exact = stays.size - int(stays.sum()), count_of(stays.size, CONFIG[0]["sparsity"])
        require(gone == exact, f"of {stays.size} granules of {name!r}, {gone} are masked at sparsity 0.3; exact are {exact}.")


def masks_survive_json(trial: Trial) -> None:
    masks = trial.first.masks
    text = json.dumps({name: {key: mask.tolist() for key, mask in given.items()} for name, given in masks.items()})
    again = normalise(json.loads(text), adapter_for(trial.first.pruner.model).layers())
    require(same_masks(masks, again), "masks that were written as JSON and read again are other masks.")


def a_config_from_json_gives_the_same_masks(trial: Trial) -> None:
    _, parsed = trial.make(trial.build()[0], json.loads(json.dumps(trial.config))).compress()
    require(same_masks(trial.first.masks, parsed), "two runs with one seed and one config, the second from JSON, give different masks.")


def pruning_twice_is_pruning_once(trial: Trial) -> None:
    _, twice = trial.make(trial.first.pruner.model).compress()
    require(same_masks(trial.first.masks, twice), "pruning the masked model again with the same config changes its masks.")


def unwrapping_gives_the_model_back(trial: Trial) -> None:
    trial.first.pruner.unwrap_model()
    trial.require_same(trial.first.before, trial.first.pruner.model, "unwrap_model()")


def what_is_masked_stays_masked_in_training(trial: Trial) -> None:
    trainer = trial.options.get("trainer")
    if trainer is None:  # a framework that does not train, or a pruner that needs no training
        return
    model, masks = trial.first.pruner.model, trial.first.masks
    adapter_for(model).set_masks(masks)
    trainer.train(model)
    for layer in filter(lambda layer: layer.name in masks, adapter_for(model).layers()):
        seen, stays = to_numpy(layer.weight), masks[layer.name]["weight"]
        require(not seen[~stays].any(), f"after training, masked weights of {layer.name!r} are seen as other than 0.")
        require(bool(np.isfinite(seen).all()), f"after training, weights of {layer.name!r} are not finite.")


def an_exception_leaves_the_model_as_it_was(trial: Trial) -> None:
    model, _ = trial.build()
    before = State.of(model)
    pruner = trial.make(model)
    score, decide, scored = pruner.score, pruner.decide, []

    def failing(layer: Any) -> Any:
        scored.append(layer.name)
        if len(scored) > 1:
            raise Deliberate
        return score(layer)

    def decided() -> Masks:
        decide()
        raise Deliberate

    pruner.score, pruner.decide = failing, decided
    try:
        pruner.compress()
    except Deliberate:
        trial.require_same(before, model, "an exception in score()")


PRUNER_CONTRACTS: tuple[Callable[[Trial], None], ...] = (
    scores_have_one_number_a_granule,
    constructing_touches_nothing,
    the_ratio_is_exact,
    masks_survive_json,
    a_config_from_json_gives_the_same_masks,
    pruning_twice_is_pruning_once,
    unwrapping_gives_the_model_back,
    what_is_masked_stays_masked_in_training,
    an_exception_leaves_the_model_as_it_was,
)
