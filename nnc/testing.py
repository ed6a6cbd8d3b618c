"""What an algorithm, or an adapter, has promised once it is registered: contracts that plug-in authors run too.

    def test_the_pruner_keeps_the_contract():
        nnc.testing.check_pruner(MyPruner)

Each contract is one function and one promise, and runs on an example network of every framework that is installed. A broken
promise is an AssertionError that says, in a sentence, which one, of whom, and on which framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from nnc.adapter import Adapter, Masks
from nnc.algorithm import Distiller, Pruner, Quantizer
from nnc.arrays import to_numpy
from nnc.columns import channels
from nnc.distiller_contracts import DISTILLER_CONTRACTS, DistillTrial, Pair
from nnc.errors import MissingFramework
from nnc.fuzz import check_rule
from nnc.graph.groups import Groups
from nnc.graph.plan import Group, Plan
from nnc.graph.propagate import propagate
from nnc.masks import complete, from_kept
from nnc.measured import MeasuringPruner
from nnc.promises import State, require, require_equal, same_masks
from nnc.pruner_contracts import CONFIG, PRUNER_CONTRACTS, Build, Trial
from nnc.quantizer_contracts import QUANTIZER_CONTRACTS, QuantTrial
from nnc.registry import adapter_for, registry

__all__ = ["check_adapter", "check_distiller", "check_pruner", "check_quantizer", "check_rule", "check_same_network"]


def check_pruner(pruner: type[Pruner], *, config: list[dict[str, Any]] | None = None, **options: Any) -> None:
    """Run every contract of a pruner on every installed framework; `options` go to its constructor.

    `config` says where its sparsity is not for all layers; the sparsity is 0.3. One that learns or measures gets the trainer of the
    framework's example, unless `options` have one; a framework without such a trainer is left out. Raises AssertionError where a
    promise is broken, or where no framework is installed to try it on.
    """
    require(bool((pruner.__doc__ or "").strip()), f"{pruner.__name__}: a docstring says what `nnc algorithms` is to list.")
    given = CONFIG if config is None else [{**CONFIG[0], **entry} for entry in config]
    for framework, build in _examples(needs_trainer(pruner) and "trainer" not in options):
        more = {"trainer": registry().trainers[framework]()} if needs_trainer(pruner) and "trainer" not in options else {}
        trial = Trial(pruner, build, given, {**more, **options})
        for contract in PRUNER_CONTRACTS:
            _run(f"{pruner.__name__} on {framework}", contract, trial)


def needs_trainer(pruner: type[Pruner]) -> bool:
    """Tell whether a pruner decides by what a trainer shows it."""
    return pruner.learns or issubclass(pruner, MeasuringPruner)


def check_distiller(
    distiller: type[Distiller], *, config: dict[str, Any] | None = None, on: Mapping[str, Pair] | None = None, **options: Any
) -> None:
    """Run every contract of a distiller on every installed framework; `options` go to its constructor.

    `config` is what its entry says besides the algorithm. The student is the framework's example, the teacher the same network with other
    numbers; a method that needs others, as a transformer's attention, gives them: `on={"torch": lambda: (student, teacher, trainer)}`,
    with the same numbers at each call. Raises AssertionError where a promise is broken, or where no framework that trains is installed.
    """
    require(bool((distiller.__doc__ or "").strip()), f"{distiller.__name__}: a docstring says what `nnc algorithms` is to list.")
    for framework, pair in (_example_pairs() if on is None else on).items():
        trial = DistillTrial(distiller, pair, [{"algorithm": distiller.name, **(config or {})}], options)
        for contract in DISTILLER_CONTRACTS:
            _run(f"{distiller.__name__} on {framework}", contract, trial)


def check_quantizer(quantizer: type[Quantizer], *, config: dict[str, Any] | None = None, **options: Any) -> None:
    """Run every contract of a quantizer on the example of every installed framework that trains; `options` go to its constructor.

    `config` is what its entry says besides the algorithm. Raises AssertionError where a promise is broken, or where no framework that
    trains is installed.
    """
    require(bool((quantizer.__doc__ or "").strip()), f"{quantizer.__name__}: a docstring says what `nnc algorithms` is to list.")
    for framework, build in _examples(trained=True):
        trial = QuantTrial(quantizer, build, registry().trainers[framework], [{"algorithm": quantizer.name, **(config or {})}], options)
        for contract in QUANTIZER_CONTRACTS:
            _run(f"{quantizer.__name__} on {framework}", contract, trial)


def _example_pairs() -> dict[str, Pair]:
    """Return the example of each framework that trains as a student, beside a twin whose numbers are a tenth larger."""

    def pair(build: Build, trainer: Callable[[], Any]) -> tuple[Any, Any, Any]:
        teacher = build()[0]
        adapter = adapter_for(teacher)
        adapter.load_tensors({name: array * 1.1 if array.dtype.kind == "f" else array for name, array in adapter.tensors().items()})
        return build()[0], teacher, trainer()

    return {name: partial(pair, build, registry().trainers[name]) for name, build in _examples(trained=True)}


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


def layers_have_names_of_their_own(adapter: Adapter, _: Any) -> None:
    names = [layer.name for layer in adapter.layers()]
    require(len(names) == len(set(names)), f"two layers share a name: {names}.")
    require(any(layer.prunable for layer in adapter.layers()), "the example network has no layer that can be pruned.")


def weights_are_canonical(adapter: Adapter, _: Any) -> None:
    for layer in adapter.layers():
        if layer.prunable:
            found, promised = to_numpy(layer.weight).shape, tuple(layer.parameters["weight"])
            require(found == promised, f"{layer.name}.weight has shape {found}; `parameters` promises {promised}.")


def masked_weights_are_exactly_zero(adapter: Adapter, _: Any) -> None:
    masks = half_masked(adapter)
    adapter.set_masks(masks)
    require(same_masks(adapter.masks(), masks), "masks() returns other masks than were set.")
    for layer in adapter.layers():
        if layer.name in masks:
            seen = to_numpy(layer.weight)[~masks[layer.name]["weight"]]
            require(not seen.any(), f"masked weights of {layer.name!r} are seen as other than 0.")


def masks_leave_no_trace(adapter: Adapter, inputs: Any) -> None:
    before, outputs = State.of(adapter.model), adapter.run(inputs)
    adapter.set_masks(half_masked(adapter))
    State.of(adapter.model).require_numbers(before, "setting masks")
    adapter.set_masks({})
    State.of(adapter.model).require_same(before, "setting masks and taking them away")
    require_equal(adapter.run(inputs), outputs, "the outputs, after masks were set and taken away,")


def a_trace_sees_what_the_masked_model_computes(adapter: Adapter, inputs: Any) -> None:
    masks = half_masked(adapter)
    before = State.of(adapter.model)
    traced = adapter.trace(inputs, masks)
    State.of(adapter.model).require_same(before, "tracing")
    adapter.set_masks(masks)
    require_equal(traced.outputs, adapter.run(inputs), "the outputs of trace() with masks")


def a_structure_is_the_graph_of_a_trace(adapter: Adapter, inputs: Any) -> None:
    before = State.of(adapter.model)
    found, expected = adapter.structure(inputs), adapter.trace(inputs, {}).graph
    State.of(adapter.model).require_same(before, "structure()")
    for left, right in zip(found.nodes, expected.nodes, strict=False):
        same = left.kind == right.kind and [tensor.shape for tensor in left.outputs] == [tensor.shape for tensor in right.outputs]
        require(same, f"structure() has {left.place} where trace() has {right.place}.")
    require(len(found.nodes) == len(expected.nodes), f"structure() has {len(found.nodes)} nodes, trace() {len(expected.nodes)}.")


def tensors_survive_a_round_trip(adapter: Adapter, inputs: Any) -> None:
    before, outputs = State.of(adapter.model), adapter.run(inputs)
    adapter.load_tensors({name: array.copy() for name, array in adapter.tensors().items()})
    State.of(adapter.model).require_same(before, "loading the model's own tensors")
    require_equal(adapter.run(inputs), outputs, "the outputs, after the model's own tensors were loaded,")


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
    require(ours.keys() == theirs.keys(), f"the layers are {sorted(ours)}, not {sorted(theirs)}.")
    for name, layer in ours.items():
        left, right = to_numpy(layer.weight), to_numpy(theirs[name].weight)
        require(left.shape == right.shape, f"{name}.weight has shape {left.shape}, not {right.shape}.")
        require(bool(np.allclose(left, right, rtol=1e-6, atol=0)), f"{name}.weight holds other numbers.")


def masked_networks_compute_the_same(found: Given, expected: Given) -> None:
    outputs = [adapter.trace(inputs, half_masked(adapter)).outputs for adapter, inputs in (found, expected)]
    require_equal(outputs[0], outputs[1], "the outputs with masks")


def the_same_channels_leave_together(found: Given, expected: Given) -> None:
    ours, theirs = (_groups(adapter, inputs) for adapter, inputs in (found, expected))
    require(ours == theirs, f"the groups are {ours}, not {theirs}.")


def the_same_indices_leave(found: Given, expected: Given) -> None:
    ours, theirs = (_leaving(adapter, inputs) for adapter, inputs in (found, expected))
    for path in sorted(ours.keys() | theirs.keys()):
        require(ours.get(path) == theirs.get(path), f"of {path}, {ours.get(path)} stay, not {theirs.get(path)}.")


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
    return {layer.name: complete(from_kept(np.arange(channels(layer)) % 2 == 0, layer), layer) for layer in prunable}


def _examples(trained: bool) -> Iterator[tuple[str, Build]]:
    """Yield the example networks of the frameworks that are installed; if `trained`, of those with a trainer for it."""
    known = registry()
    found = [(name, build) for name, build in known.examples.items() if (not trained or name in known.trainers) and _installed(name)]
    what = "an example network and a trainer of it" if trained else "an example network"
    require(bool(found), f"no framework with {what} is installed, so no contract can be tried.")
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
