"""What an algorithm, or an adapter, has promised once it is registered: contracts that plug-in authors run too.

    def test_the_pruner_keeps_the_contract():
        nnc.testing.check_pruner(MyPruner)

Each contract is one function and one promise, and runs on an example network of every framework that is installed. A broken
promise is an AssertionError that says, in a sentence, which one, of whom, and on which framework.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nnc.adapter import Adapter, Masks
from nnc.algorithm import Pruner
from nnc.allocation import count_of
from nnc.arrays import to_numpy
from nnc.errors import MissingFramework
from nnc.fuzz import check_rule
from nnc.graph.groups import Groups
from nnc.graph.ir import Array, Shape
from nnc.graph.plan import Group, Plan
from nnc.graph.propagate import propagate
from nnc.masks import complete, from_kept, normalise
from nnc.measured import MeasuringPruner
from nnc.registry import adapter_for, registry

__all__ = ["check_adapter", "check_pruner", "check_rule", "check_same_network"]

#: What the contracts ask of the example networks: a third of every layer, which divides few layers evenly.
CONFIG: list[dict[str, Any]] = [{"sparsity": 0.3}]

Build = Callable[[], tuple[Any, Any]]


def check_pruner(pruner: type[Pruner], *, config: list[dict[str, Any]] | None = None, **options: Any) -> None:
    """Run every contract of a pruner on every installed framework; `options` go to its constructor.

    `config` says where its sparsity is not for all layers; the sparsity is 0.3. One that learns or measures gets the trainer of the
    framework's example, unless `options` have one; a framework without such a trainer is left out. Raises AssertionError where a
    promise is broken, or where no framework is installed to try it on.
    """
    _require(bool((pruner.__doc__ or "").strip()), f"{pruner.__name__}: a docstring says what `nnc algorithms` is to list.")
    given = CONFIG if config is None else [{**CONFIG[0], **entry} for entry in config]
    for framework, build in _examples(needs_trainer(pruner) and "trainer" not in options):
        more = {"trainer": registry().trainers[framework]()} if needs_trainer(pruner) and "trainer" not in options else {}
        trial = Trial(pruner, build, given, {**more, **options})
        for contract in PRUNER_CONTRACTS:
            _run(f"{pruner.__name__} on {framework}", contract, trial)


def needs_trainer(pruner: type[Pruner]) -> bool:
    """Tell whether a pruner decides by what a trainer shows it."""
    return pruner.learns or issubclass(pruner, MeasuringPruner)


def check_adapter(build: Build) -> None:
    """Run every contract of an adapter on the network that `build() -> (model, example_inputs)` gives."""
    for contract in ADAPTER_CONTRACTS:
        model, inputs = build()
        adapter = adapter_for(model)
        _run(f"{type(adapter).__name__}", contract, adapter, inputs)


def check_same_network(build: Build, reference: Build) -> None:
    """Check that two adapters see one network alike, given in two frameworks under the same names and with the same numbers.

    nnc's own reference is an ONNX file, on which all is NumPy. Raises AssertionError that says in what the first one differs.
    """
    for contract in SAME_NETWORK_CONTRACTS:
        (model, inputs), (other, others) = build(), reference()
        adapter, expected = adapter_for(model), adapter_for(other)
        _run(f"{type(adapter).__name__} beside {type(expected).__name__}", contract, (adapter, inputs), (expected, others))


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
    _require(found == expected, f"score({layer.name!r}) has shape {found}; granularity {pruner.granularity!r} needs {expected}.")


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
        _require(name in first.masks, f"{name!r} has no masks, though the config names it.")
        weight = first.masks[name]["weight"]
        stays = weight if first.pruner.granularity == "element" else weight.reshape(len(weight), -1).any(axis=1)
        gone, exact = stays.size - int(stays.sum()), count_of(stays.size, CONFIG[0]["sparsity"])
        _require(gone == exact, f"of {stays.size} granules of {name!r}, {gone} are masked at sparsity 0.3; exact are {exact}.")


def masks_survive_json(trial: Trial) -> None:
    masks = trial.first.masks
    text = json.dumps({name: {key: mask.tolist() for key, mask in given.items()} for name, given in masks.items()})
    again = normalise(json.loads(text), adapter_for(trial.first.pruner.model).layers())
    _require(_same_masks(masks, again), "masks that were written as JSON and read again are other masks.")


def a_config_from_json_gives_the_same_masks(trial: Trial) -> None:
    _, parsed = trial.make(trial.build()[0], json.loads(json.dumps(trial.config))).compress()
    _require(_same_masks(trial.first.masks, parsed), "two runs with one seed and one config, the second from JSON, give different masks.")


def pruning_twice_is_pruning_once(trial: Trial) -> None:
    _, twice = trial.make(trial.first.pruner.model).compress()
    _require(_same_masks(trial.first.masks, twice), "pruning the masked model again with the same config changes its masks.")


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
        _require(not seen[~stays].any(), f"after training, masked weights of {layer.name!r} are seen as other than 0.")
        _require(bool(np.isfinite(seen).all()), f"after training, weights of {layer.name!r} are not finite.")


def an_exception_leaves_the_model_as_it_was(trial: Trial) -> None:
    model, _ = trial.build()
    before = State.of(model)
    pruner = trial.make(model)
    score, decide, scored = pruner.score, pruner.decide, []

    def failing(layer: Any) -> Any:
        scored.append(layer.name)
        if len(scored) > 1:
            raise _Deliberate
        return score(layer)

    def decided() -> Masks:
        decide()
        raise _Deliberate

    pruner.score, pruner.decide = failing, decided
    try:
        pruner.compress()
    except _Deliberate:
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


def layers_have_names_of_their_own(adapter: Adapter, _: Any) -> None:
    names = [layer.name for layer in adapter.layers()]
    _require(len(names) == len(set(names)), f"two layers share a name: {names}.")
    _require(any(layer.prunable for layer in adapter.layers()), "the example network has no layer that can be pruned.")


def weights_are_canonical(adapter: Adapter, _: Any) -> None:
    for layer in adapter.layers():
        if layer.prunable:
            found, promised = to_numpy(layer.weight).shape, tuple(layer.parameters["weight"])
            _require(found == promised, f"{layer.name}.weight has shape {found}; `parameters` promises {promised}.")


def masked_weights_are_exactly_zero(adapter: Adapter, _: Any) -> None:
    masks = half_masked(adapter)
    adapter.set_masks(masks)
    _require(_same_masks(adapter.masks(), masks), "masks() returns other masks than were set.")
    for layer in adapter.layers():
        if layer.name in masks:
            seen = to_numpy(layer.weight)[~masks[layer.name]["weight"]]
            _require(not seen.any(), f"masked weights of {layer.name!r} are seen as other than 0.")


def masks_leave_no_trace(adapter: Adapter, inputs: Any) -> None:
    before, outputs = State.of(adapter.model), adapter.run(inputs)
    adapter.set_masks(half_masked(adapter))
    State.of(adapter.model).require_numbers(before, "setting masks")
    adapter.set_masks({})
    State.of(adapter.model).require_same(before, "setting masks and taking them away")
    _require_equal(adapter.run(inputs), outputs, "the outputs, after masks were set and taken away,")


def a_trace_sees_what_the_masked_model_computes(adapter: Adapter, inputs: Any) -> None:
    masks = half_masked(adapter)
    before = State.of(adapter.model)
    traced = adapter.trace(inputs, masks)
    State.of(adapter.model).require_same(before, "tracing")
    adapter.set_masks(masks)
    _require_equal(traced.outputs, adapter.run(inputs), "the outputs of trace() with masks")


def a_structure_is_the_graph_of_a_trace(adapter: Adapter, inputs: Any) -> None:
    before = State.of(adapter.model)
    found, expected = adapter.structure(inputs), adapter.trace(inputs, {}).graph
    State.of(adapter.model).require_same(before, "structure()")
    for left, right in zip(found.nodes, expected.nodes, strict=False):
        same = left.kind == right.kind and [tensor.shape for tensor in left.outputs] == [tensor.shape for tensor in right.outputs]
        _require(same, f"structure() has {left.place} where trace() has {right.place}.")
    _require(len(found.nodes) == len(expected.nodes), f"structure() has {len(found.nodes)} nodes, trace() {len(expected.nodes)}.")


def tensors_survive_a_round_trip(adapter: Adapter, inputs: Any) -> None:
    before, outputs = State.of(adapter.model), adapter.run(inputs)
    adapter.load_tensors({name: array.copy() for name, array in adapter.tensors().items()})
    State.of(adapter.model).require_same(before, "loading the model's own tensors")
    _require_equal(adapter.run(inputs), outputs, "the outputs, after the model's own tensors were loaded,")


ADAPTER_CONTRACTS: tuple[Callable[[Adapter, Any], None], ...] = (
    layers_have_names_of_their_own,
    weights_are_canonical,
    masked_weights_are_exactly_zero,
    masks_leave_no_trace,
    a_trace_sees_what_the_masked_model_computes,
    a_structure_is_the_graph_of_a_trace,
    tensors_survive_a_round_trip,
)


Given = tuple[Adapter, Any]


def layers_have_the_same_names_and_numbers(found: Given, expected: Given) -> None:
    ours, theirs = ({layer.name: layer for layer in adapter.layers() if layer.prunable} for adapter, _ in (found, expected))
    _require(ours.keys() == theirs.keys(), f"the layers are {sorted(ours)}, not {sorted(theirs)}.")
    for name, layer in ours.items():
        left, right = to_numpy(layer.weight), to_numpy(theirs[name].weight)
        _require(left.shape == right.shape, f"{name}.weight has shape {left.shape}, not {right.shape}.")
        _require(bool(np.allclose(left, right, rtol=1e-6, atol=0)), f"{name}.weight holds other numbers.")


def masked_networks_compute_the_same(found: Given, expected: Given) -> None:
    outputs = [adapter.trace(inputs, half_masked(adapter)).outputs for adapter, inputs in (found, expected)]
    _require_equal(outputs[0], outputs[1], "the outputs with masks")


def the_same_channels_leave_together(found: Given, expected: Given) -> None:
    ours, theirs = (_groups(adapter, inputs) for adapter, inputs in (found, expected))
    _require(ours == theirs, f"the groups are {ours}, not {theirs}.")


def the_same_indices_leave(found: Given, expected: Given) -> None:
    ours, theirs = (_leaving(adapter, inputs) for adapter, inputs in (found, expected))
    for path in sorted(ours.keys() | theirs.keys()):
        _require(ours.get(path) == theirs.get(path), f"of {path}, {ours.get(path)} stay, not {theirs.get(path)}.")


SAME_NETWORK_CONTRACTS: tuple[Callable[[Given, Given], None], ...] = (
    layers_have_the_same_names_and_numbers,
    masked_networks_compute_the_same,
    the_same_channels_leave_together,
    the_same_indices_leave,
)


def _groups(adapter: Adapter, inputs: Any) -> list[tuple[list[str], int]]:
    """Return (layers, granules) of every group that may leave."""
    return sorted((sorted(shared.layers), len(shared.classes)) for shared in Groups(adapter.trace(inputs, {}).graph).shared)


def _leaving(adapter: Adapter, inputs: Any) -> dict[tuple[str, int], list[int]]:
    """Return which indices of each weight's axes stay, with half of each layer masked."""
    masks = half_masked(adapter)
    plan = propagate(adapter.trace(inputs, masks).graph, masks).plan
    shapes = {f"{layer.name}.weight".lstrip("."): layer.parameters["weight"] for layer in adapter.layers() if layer.prunable}
    cut = Plan(groups=tuple(Group(tuple(m for m in group.members if m.tensor in shapes)) for group in plan.groups))
    return {(path, axis): index.tolist() for path, axes in cut.kept_indices(shapes).items() for axis, index in axes.items()}


def half_masked(adapter: Adapter) -> Masks:
    """Return masks that leave every second channel of each prunable layer."""
    prunable = [layer for layer in adapter.layers() if layer.prunable]
    return {layer.name: complete(from_kept(np.arange(layer.parameters["weight"][0]) % 2 == 0, layer), layer) for layer in prunable}


@dataclass(frozen=True)
class State:
    """What must be as it was: the model's class, its stored numbers, its masks, its views by site and name."""

    kind: type
    tensors: dict[str, Array]
    masks: Masks
    views: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, model: Any) -> State:
        adapter = adapter_for(model)
        seen: Any = adapter.views() if hasattr(adapter, "views") else {}
        views = frozenset((str(site), view.name) for site, given in seen.items() for view in given)
        return cls(type(model), {name: array.copy() for name, array in adapter.tensors().items()}, dict(adapter.masks()), views)

    def require_same(self, before: State, event: str, numbers: bool = True) -> None:
        if numbers:
            self.require_numbers(before, event)
        _require(self.tensors.keys() == before.tensors.keys(), f"{event} adds or removes tensors.")
        _require(self.views == before.views, f"{event} leaves other views on the model.")
        _require(self.kind is before.kind, f"{event} changes the model's class.")
        _require(_same_masks(self.masks, before.masks), f"{event} changes the model's masks.")

    def require_numbers(self, before: State, event: str) -> None:
        _require(self.tensors.keys() == before.tensors.keys(), f"{event} adds or removes tensors.")
        for name, array in self.tensors.items():
            _require(
                np.array_equal(array, before.tensors[name], equal_nan=array.dtype.kind == "f"), f"{event} changes the numbers of {name!r}."
            )


class _Deliberate(Exception):
    """Thrown by a contract to see what an exception leaves behind."""


def _examples(trained: bool) -> Iterator[tuple[str, Build]]:
    """Yield the example networks of the frameworks that are installed; if `trained`, of those with a trainer for it."""
    known = registry()
    found = [(name, build) for name, build in known.examples.items() if (not trained or name in known.trainers) and _installed(name)]
    what = "an example network and a trainer of it" if trained else "an example network"
    _require(bool(found), f"no framework with {what} is installed, so no contract can be tried.")
    yield from found


def _installed(name: str) -> bool:
    try:
        return any(framework.adapter() for framework in registry().frameworks if framework.name == name)
    except MissingFramework:
        return False


def _run(who: str, contract: Callable[..., None], *given: Any) -> None:
    promise = contract.__name__.replace("_", " ")
    try:
        contract(*given)
    except AssertionError as error:
        raise AssertionError(f"{who}: broken promise: {promise}: {error}") from None


def _require(holds: bool, sentence: str) -> None:
    # Not `assert`: python -O would turn the contracts off.
    if not holds:
        raise AssertionError(sentence)


def _same_masks(left: Masks, right: Masks) -> bool:
    same = {name: given.keys() for name, given in left.items()} == {name: given.keys() for name, given in right.items()}
    return same and all(np.array_equal(mask, right[name][key]) for name, given in left.items() for key, mask in given.items())


def _require_equal(found: tuple[Array, ...], expected: tuple[Array, ...], what: str) -> None:
    _require(len(found) == len(expected), f"{what} are {len(found)} arrays, not {len(expected)}.")
    for left, right in zip(found, expected, strict=True):
        scale = float(np.abs(right).max(initial=1.0))
        _require(left.shape == right.shape, f"{what} have shape {left.shape}, not {right.shape}.")
        _require(float(np.abs(left - right).max(initial=0.0)) <= 1e-5 * scale, f"{what} differ by more than 1e-5 of their scale.")
