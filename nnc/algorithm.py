"""Pruning = a score x an allocation. A pruner is a score and little else.

    L1 (Li et al. 2017)       sum|w| of each output channel      granularity "channel"
    magnitude (Han et al.)    |w| of each element                granularity "element"

The score is the one verb that an algorithm writes, over a `Layer` of any framework. How much leaves, and from which layers,
is the config_list's to say (select.py, allocation.py); the masks are the adapter's to hold.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from nnc.adapter import Layer, Masks
from nnc.allocation import Scored, allocate
from nnc.arrays import to_float64
from nnc.errors import ConfigError
from nnc.graph.ir import Array, Shape
from nnc.joint import joint_masks
from nnc.masks import from_kept, merge, unmasked
from nnc.registry import adapter_for
from nnc.select import resolve
from nnc_schemas import PruneSpec, SpecError, parse_config_list


class Pruner(ABC):
    """An algorithm that says how little each channel, or each element, is worth.

        class MaxPruner(Pruner):
            \"\"\"The largest weight of each output channel; the lowest go first.\"\"\"

            name = "max"

            def score(self, layer):
                weight = layer.weight  # (out, in, *kernel)
                return layer.ops.max(layer.ops.abs(weight), axis=tuple(range(1, weight.ndim)))

    `name` is what a config_list calls it. With `example_inputs` a pruner of channels scores whole dependency groups (see joint.py);
    without them each layer chooses alone. Constructing it checks everything and touches nothing; `ConfigError` and `ModelError`
    come from here.
    """

    name: ClassVar[str]
    granularity: ClassVar[Literal["channel", "element"]] = "channel"

    def __init__(self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, *, seed: int = 0) -> None:
        self.adapter = adapter_for(model)
        self.model = self.adapter.model  # what a path names is read once
        self.example_inputs = example_inputs
        self.seed = seed
        self.specs = self._own(config_list)
        layers = self.adapter.layers()
        self._governed = resolve(self.specs, layers)
        self._layers = {layer.name: layer for layer in layers if layer.name in self._governed}

    @abstractmethod
    def score(self, layer: Layer) -> Any:
        """Return what each granule of the layer is worth; the lowest go first.

        A tensor of the framework or a NumPy array, of shape `(out,)` for the granularity "channel", of the weight's shape for
        "element". `layer.weight` is `(out, in, *kernel)`.
        """

    @property
    def masks(self) -> Masks:
        """The masks that the model is seen through now, `{layer: {"weight": array, "bias": array}}`; True stays."""
        return self.adapter.masks()

    def compress(self) -> tuple[Any, Masks]:
        """Mask the model and return it with its masks. What an earlier run masked stays masked.

        Raises `ConfigError` where the algorithm scores wrongly. After any exception the model is as it was.
        """
        masks = self.propose()
        self.adapter.set_masks(masks)
        return self.model, masks

    def unwrap_model(self) -> Any:
        """Take all masks from the model's forward path and return the model: the user's own, with its own numbers."""
        self.adapter.set_masks({})
        return self.model

    def propose(self) -> Masks:
        """Return the masks that `compress` would set; nothing is touched."""
        earlier = self.adapter.masks()
        scored = {name: self._scored(layer, earlier) for name, layer in self._layers.items()}
        if self.example_inputs is not None and self.granularity == "channel":
            return merge(earlier, self._jointly(scored))
        keep = allocate(scored, self._governed, self.specs)
        return merge(earlier, {name: from_kept(keep[name], layer) for name, layer in self._layers.items()})

    def _jointly(self, scored: Mapping[str, Scored]) -> Masks:
        """Let layers that can only shrink together choose together: what is masked can then leave."""
        with unmasked(self.adapter):
            graph = self.adapter.trace(self.example_inputs, {}).graph
        return joint_masks(graph, self.adapter.layers(), scored, self._governed, self.specs)

    def _scored(self, layer: Layer, earlier: Masks) -> Scored:
        shape = layer.parameters["weight"]
        granules = shape if self.granularity == "element" else shape[:1]
        scores = self._checked(to_float64(self.score(layer)), granules, layer.name)
        if layer.name in earlier:
            # What is masked already goes first, so that pruning twice is pruning once, whatever the score says of zeros.
            scores = np.where(_gone(earlier[layer.name]["weight"], granules), -np.inf, scores)
        return Scored(scores, int(np.prod(shape)) // int(np.prod(granules)))

    def _checked(self, scores: Array, granules: Shape, layer: str) -> Array:
        place = f"{type(self).__name__}.score({layer!r})"
        if scores.shape != tuple(granules):
            raise ConfigError(f"{place}: the scores have shape {scores.shape}; granularity {self.granularity!r} needs {tuple(granules)}.")
        if np.isnan(scores).any():
            count = int(np.isnan(scores).sum())
            raise ConfigError(f"{place}: {count} of {scores.size} scores are NaN, so they have no order. Are the layer's weights finite?")
        return scores if self.granularity == "element" else _comparable(scores)

    def _own(self, config_list: Any) -> tuple[PruneSpec, ...]:
        """Check the config_list, and that it asks for no other algorithm than this one."""
        try:
            specs = parse_config_list(config_list)
        except SpecError as error:
            raise ConfigError(str(error)) from None
        for index, spec in enumerate(specs):
            if spec.algorithm not in (None, self.name):
                asked = f"config_list[{index}].algorithm: {spec.algorithm!r} was asked of {type(self).__name__}, which is {self.name!r}"
                raise ConfigError(f"{asked}. nnc.compress(model, config_list) takes entries of several algorithms.")
            if spec.granularity == "head" and self.example_inputs is None:
                raise ConfigError(f"config_list[{index}].granularity: heads are found by running the model; pass example_inputs=.")
            if spec.round_to is not None and self.granularity == "element":
                raise ConfigError(f"config_list[{index}].round_to: rounds channels, but {self.name!r} masks single elements.")
        return specs


def _gone(mask: Array, granules: Shape) -> Array:
    """Return which granules are masked completely."""
    return np.asarray(~mask.reshape(*granules, -1).any(axis=-1))


def _comparable(scores: Array) -> Array:
    """Return scores to 12 digits: two frameworks sum in different orders, and what differs by that counts as equal."""
    mantissa, exponent = np.frexp(scores)
    return np.asarray(np.ldexp(np.round(mantissa, 12), exponent))
