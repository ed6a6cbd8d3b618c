"""What an algorithm is: one abstract verb, over a model that it sees through its adapter only.

    Pruner       score       what each channel, head or element is worth
    Distiller    objectives  what the student's loss gets from a teacher
    Quantizer    views       the grid that each tensor is seen on

Pruning = a score x an allocation. A pruner is a score and little else:

    L1 (Li et al. 2017)       sum|w| of each output channel      granularity "channel"
    magnitude (Han et al.)    |w| of each element                granularity "element"

The score is the one verb that an algorithm writes, over a `Layer` of any framework. How much leaves, and from which layers,
is the config_list's to say (select.py, allocation.py); the masks are the adapter's to hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from nnc.adapter import Layer, Masks
from nnc.allocation import Scored
from nnc.arrays import to_float64
from nnc.columns import by_channel, channel_axis, channels
from nnc.errors import ConfigError
from nnc.graph.ir import Array, Graph, Shape
from nnc.instruments import attach, detach, off, restored
from nnc.joint import granules, joint_masks
from nnc.masks import merge
from nnc.ranges import Ranges
from nnc.registry import adapter_for
from nnc.select import CHANNELED, resolve, spared
from nnc.ties import alone_masks, check_ties
from nnc.trainer import Trainer
from nnc_schemas import PruneSpec, Selector, SpecError, parse_config_list

if TYPE_CHECKING:
    from nnc.grid import Grids
    from nnc.objective import Objective
    from nnc.views import Learning, Site, Views


class Algorithm(ABC):
    """What `nnc.compress` asks of every algorithm. Constructing one checks everything and touches nothing.

    `name` is what a config_list calls it, `kind` what it does, `spec` the pydantic model of its entries, a `Selector` of layers.
    `adapter`, `model`, `specs` (its own entries), `example_inputs`, `trainer` and `seed` are there for the subclass.
    """

    name: ClassVar[str]
    kind: ClassVar[Literal["prune", "distill", "quantize"]]
    spec: ClassVar[type[Selector]] = Selector
    #: Whether training decides something, by `finish`.
    learns: ClassVar[bool] = False
    #: What `treats` asks of a layer, in words that follow "it works on".
    treated: ClassVar[str] = CHANNELED
    #: The model that it learns from, if it does.
    teacher: Any = None

    def __init__(
        self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, *, trainer: Trainer | None = None, seed: int = 0
    ) -> None:
        self.adapter = adapter_for(model)
        self.model = self.adapter.model  # what a path names is read once
        self.example_inputs = example_inputs
        if trainer is not None and not isinstance(trainer, Trainer):
            raise ConfigError(f"trainer: a {type(trainer).__name__} was given; it is to be nnc.Trainer(data, loss, optimizer, evaluate).")
        self.trainer = trainer
        self.seed = seed
        self.specs = self._own(config_list)

    @staticmethod
    def treats(layer: Layer) -> bool:
        """Tell whether the algorithm can work on a layer: what an entry selects from."""
        return layer.prunable

    def propose(self) -> Masks:
        """Return the masks that the model gets before training; nothing is touched."""
        return {}

    def rewrites(self) -> Mapping[Site, Array]:
        """Return weights that take the place of the model's own, asked after `propose`: what stays may make up for what left."""
        return {}

    def views(self) -> Views:
        """Return what the model is seen through in training, besides masks; nothing is touched."""
        return {}

    def objectives(self) -> Sequence[Objective]:
        """Return what is added to the loss of each training step; nothing is touched."""
        return ()

    def learning(self) -> Mapping[str, Learning]:
        """Return how the trained variables of its views and objectives learn, by group."""
        return {}

    def finish(self) -> Masks:
        """Return the masks that training has decided, read while the views are still on the model."""
        return {}

    @property
    def masks(self) -> Masks:
        """The masks that the model is seen through now, `{layer: {"weight": array, "bias": array}}`; True stays."""
        return self.adapter.masks()

    def compress(self) -> tuple[Any, Masks]:
        """Put the algorithm on the model and return it with its masks. What an earlier run masked stays masked.

        One that learns in training trains with its trainer first; without a trainer it is on the model afterwards, for a loop of the
        user's own. Raises `ConfigError` where the algorithm scores wrongly. After any exception the model is as it was.
        """
        masks = attach(self.adapter, [self], self.teacher)
        if self.trainer is not None and self.learns:
            with restored(self.adapter):
                self.trainer.train(self.model)
                masks = self.settle()
        return self.model, masks

    def settle(self) -> Masks:
        """Let training's result decide the masks, take views and objectives off, and return the masks."""
        with restored(self.adapter):
            masks = merge(self.adapter.masks(), self.finish())
            off(self.adapter)
            self.adapter.set_masks(masks)
        return masks

    def unwrap_model(self) -> Any:
        """Take everything off the model and return it: the user's own, with its own numbers."""
        detach(self.adapter)
        return self.model

    def _own(self, config_list: Any) -> tuple[Any, ...]:
        """Check the config_list, and that it asks for no other algorithm than this one."""
        try:
            specs = parse_config_list(config_list, spec_of=lambda name, place: type(self).spec)
        except SpecError as error:
            raise ConfigError(str(error)) from None
        for spec in specs:
            if spec.algorithm not in (None, self.name):
                asked = f"{spec.place}.algorithm: {spec.algorithm!r} was asked of {type(self).__name__}, which is {self.name!r}"
                raise ConfigError(f"{asked}. nnc.compress(model, config_list) takes entries of several algorithms.")
        return specs


class Distiller(Algorithm):
    """An algorithm that adds a teacher's knowledge to the student's loss. `teacher` is a model of the same framework."""

    kind = "distill"

    def __init__(self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, *, teacher: Any, **options: Any) -> None:
        super().__init__(model, config_list, example_inputs, **options)
        self.teacher = teacher

    @abstractmethod
    def objectives(self) -> Sequence[Objective]: ...


class Quantizer(Algorithm):
    """An algorithm that puts tensors on a grid of few bits, as views."""

    kind = "quantize"

    @abstractmethod
    def views(self) -> Views: ...

    @abstractmethod
    def grids(self) -> Grids:
        """Return the grids that the model is seen on now, for `nnc.export`; read while the views are on the model."""

    def calibrate(self, batches: Any = None) -> Any:
        """Measure what grids are chosen by, on batches of inputs or by default the trainer's; the next `views` stand on that.

        The model is then seen through no views. A quantizer that measures nothing need not have it.
        """

    def measured(self) -> Sequence[Site]:
        """Return the sites whose ranges it measures."""
        return ()

    def calibration(self) -> Ranges:
        """Return the ranges that `calibrate` measured, of all its sites."""
        return {}

    def take_calibration(self, ranges: Ranges) -> None:
        """Go by ranges that were measured before, of all its sites; the next `views` stand on them."""

    @abstractmethod
    def moved(self, model: Any, example_inputs: Any, grids: Grids) -> Quantizer:
        """Return this algorithm for the model that `nnc.ModelSpeedup` made of its own; `grids` are those that it had there.

        Of a weight with a scale for each output channel they are those of the channels that stayed.
        """


class Pruner(Algorithm):
    """An algorithm that says how little each channel, or each element, is worth.

        class MaxPruner(Pruner):
            \"\"\"The largest weight of each output channel; the lowest go first.\"\"\"

            name = "max"

            def score(self, layer):
                weight = layer.weight  # (out, in, *kernel)
                return layer.ops.max(layer.ops.abs(weight), axis=tuple(range(1, weight.ndim)))

    `name` is what a config_list calls it. With `example_inputs` a pruner of channels scores whole dependency groups (see joint.py);
    without them each layer chooses alone. `allow_inexact` lets it choose widths that a mean is taken over, as under a LayerNorm, too;
    `nnc.ModelSpeedup` removes them when told the same. `whole` are the shapes, by path, that parameters had in the larger model that a
    total counts in, where this is a small one of it: `total_sparsity` is then what shall have left of that. `ConfigError` and `ModelError`
    come from its constructor.
    """

    kind = "prune"
    spec = PruneSpec
    granularity: Literal["channel", "element"] = "channel"

    def __init__(
        self,
        model: Any,
        config_list: Sequence[Any],
        example_inputs: Any = None,
        *,
        allow_inexact: bool = False,
        whole: Mapping[str, Shape] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, config_list, example_inputs, **options)
        self.allow_inexact = allow_inexact
        self.whole = dict(whole or {})
        layers = self.adapter.layers()
        self._governed = resolve(self.specs, layers, type(self))
        self._spared = spared(self.specs, layers, type(self)) - self._governed.keys()
        self._layers = {layer.name: layer for layer in layers if layer.name in self._governed}
        check_ties(self._governed, self.specs, self._layers)

    @abstractmethod
    def score(self, layer: Layer) -> Any:
        """Return what each granule of the layer is worth; the lowest go first.

        A tensor of the framework or a NumPy array, of shape `(out,)` for the granularity "channel", of the weight's shape for
        "element". `layer.weight` is `(out, in, *kernel)`, of an embedding `(width, rows)`, and single elements are scored where they lie.
        """

    def ranked(self, scores: Array) -> Array:
        """Return a layer's scores as its granules are to be compared; the default compares the scores themselves."""
        return scores

    def measure(self) -> None:
        """Collect what scores need of the data, before the first `score`; the default needs none."""

    def propose(self) -> Masks:
        """Return the masks that `compress` would set; nothing is touched."""
        if self.learns:
            return self.adapter.masks()
        self.measure()
        return self.decide()

    def finish(self) -> Masks:
        return self.decide() if self.learns else {}

    def entry(self, layer: str) -> Any:
        """Return the entry that governs a layer."""
        return self.specs[self._governed[layer]]

    @property
    def layers(self) -> Mapping[str, Layer]:
        """The layers that the config_list selects, by name."""
        return self._layers

    def granules(self) -> list[tuple[Any, dict[str, Array]]]:
        """Return what can leave together: the entry, and which granule each output channel of a parameter belongs to (-1: none).

        With example inputs these are the graph's groups, without them each layer on its own.
        """
        if self.example_inputs is None:
            rows = {name: np.arange(channels(layer)) for name, layer in self._layers.items()}
            return [
                (self.entry(name), {f"{name}.{key}".lstrip("."): rows[name] for key in ("weight", "bias") if key in layer.parameters})
                for name, layer in self._layers.items()
            ]
        found = granules(self._graph, self._governed, self.specs, self.allow_inexact, self._spared)
        return [(self.specs[index], rows) for index, rows in found]

    def decide(self) -> Masks:
        """Return the masks that the scores of now decide."""
        earlier = self.adapter.masks()
        if self.example_inputs is not None and self.granularity == "channel":
            return merge(earlier, self._jointly(_OnDemand(self._layers, lambda layer: self._scored(layer, earlier))))
        scored = {name: self._scored(layer, earlier) for name, layer in self._layers.items()}
        if self.granularity == "channel":
            scored = {name: _by_unit(one, self._layers[name]) for name, one in scored.items()}
        return merge(earlier, alone_masks(self._layers, scored, self._governed, self.specs))

    def _jointly(self, scored: Mapping[str, Scored]) -> Masks:
        """Let layers that can only shrink together choose together: what is masked can then leave."""
        return joint_masks(
            self._graph, self.adapter.layers(), scored, self._governed, self.specs, self.allow_inexact, self._spared, self.whole
        )

    @cached_property
    def _graph(self) -> Graph:
        """The model's structure, which training does not change; recorded before views stand in front of the parameters."""
        return self.adapter.structure(self.example_inputs)

    def _scored(self, layer: Layer, earlier: Masks) -> Scored:
        shape = layer.parameters["weight"]
        seen = layer if self.granularity == "element" else by_channel(layer)
        whole = self.whole.get(f"{layer.name}.weight".lstrip("."), shape)
        axis = channel_axis(layer)
        granules, before = (shape, whole) if self.granularity == "element" else (shape[axis : axis + 1], whole[axis : axis + 1])
        scores = self.ranked(self._checked(to_float64(self.score(seen)), granules, layer.name))
        if layer.name in earlier:
            # What is masked already goes first, so that pruning twice is pruning once, whatever the score says of zeros.
            mask = earlier[layer.name]["weight"]
            gone = ~mask if self.granularity == "element" else _without_any(mask, axis)
            scores = np.where(gone, -np.inf, scores)
        return Scored(scores, prod(whole) // prod(before), before=prod(before))

    def _checked(self, scores: Array, granules: Shape, layer: str) -> Array:
        place = f"{type(self).__name__}.score({layer!r})"
        if scores.shape != tuple(granules):
            raise ConfigError(f"{place}: the scores have shape {scores.shape}; granularity {self.granularity!r} needs {tuple(granules)}.")
        if np.isnan(scores).any():
            count = int(np.isnan(scores).sum())
            ask = "the layer's weights" if self.trainer is None else "the layer's weights, and the data that it was measured on,"
            raise ConfigError(f"{place}: {count} of {scores.size} scores are NaN, so they have no order. Are {ask} finite?")
        return scores if self.granularity == "element" else _comparable(scores)

    def _own(self, config_list: Any) -> tuple[PruneSpec, ...]:
        specs = super()._own(config_list)
        for spec in specs:
            if spec.heads and self.example_inputs is None:
                raise ConfigError(f"{spec.place}.granularity: heads are found by running the model; pass example_inputs=.")
            if spec.ranking == "isomorphic" and (self.example_inputs is None or self.granularity == "element"):
                remedy = "it masks single elements" if self.granularity == "element" else "pass example_inputs="
                raise ConfigError(f"{spec.place}.ranking: isomorphic compares subgraphs, found by running the model; {remedy}.")
            if spec.round_to is not None and self.granularity == "element":
                raise ConfigError(f"{spec.place}.round_to: rounds channels, but {self.name!r} masks single elements.")
        return specs


class _OnDemand(Mapping[str, Scored]):
    """Scores by layer, each found when it is asked for: of what cannot leave, such as a large table, none is needed."""

    def __init__(self, layers: Mapping[str, Layer], score: Callable[[Layer], Scored]) -> None:
        self._layers, self._score = layers, score
        self._found: dict[str, Scored] = {}

    def __getitem__(self, name: str) -> Scored:
        if name not in self._found:
            self._found[name] = self._score(self._layers[name])
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def _without_any(mask: Array, axis: int) -> Array:
    """Return which indices of an axis are masked completely."""
    return np.asarray(~mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))


def _by_unit(scored: Scored, layer: Layer) -> Scored:
    """Let the rows that the gates of a recurrent layer have of one unit choose together."""
    if "recurrent_weight" not in layer.parameters:
        return scored
    units = layer.parameters["recurrent_weight"][1]
    gates = scored.scores.size // units
    before = None if scored.before is None else scored.before // gates
    return Scored(scored.scores.reshape(gates, units).sum(axis=0), scored.weights * gates, gates, before=before)


def _comparable(scores: Array) -> Array:
    """Return scores to 12 digits: two frameworks sum in different orders, and what differs by that counts as equal."""
    mantissa, exponent = np.frexp(scores)
    return np.asarray(np.ldexp(np.round(mantissa, 12), exponent))
