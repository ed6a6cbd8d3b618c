"""A channel is worth what it tells the layers behind it, read from its activations.

apoz               1 - the fraction of zeros          silent channels leave
mean_activation    the mean                           weak channels leave
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnc.adapter import Layer
from nnc.arrays import to_numpy
from nnc.errors import ConfigError
from nnc.graph.follow import Activation, activation_of
from nnc.graph.ir import Array
from nnc.measured import ActivationPruner, Mean
from nnc.trainer import inputs_and_targets
from nnc.views import Site


class _AfterActivation(ActivationPruner):
    """Shows each layer's activation, after its BatchNorm and its nonlinearity, as `(samples, channels)`."""

    treated = "layers that have one activation for each channel, unlike recurrent ones"

    @staticmethod
    def treats(layer: Layer) -> bool:
        return layer.prunable and "recurrent_weight" not in layer.parameters

    def measure(self) -> None:
        self._mean = Mean()
        inputs = self.example_inputs
        if inputs is None:
            inputs = inputs_and_targets(next(iter(self.batches())))[0]
        graph = self.adapter.trace(inputs, {}).graph
        named = {layer.name for layer in self.adapter.layers()}
        found = {name: activation_of(graph, name, named) for name in self.layers}
        missing = [name for name, activation in found.items() if activation is None]
        if missing:
            raise ConfigError(f"{self.name}: {', '.join(missing)} did not run in the forward pass; exclude what the model does not use.")
        self._after: dict[str, Activation] = {name: activation for name, activation in found.items() if activation is not None}
        super().measure()

    def sites(self, layer: Layer) -> Sequence[Site]:
        return (Site(self._after[layer.name].layer, "output"),)

    def observe(self, layer: Layer, seen: Mapping[Site, Any]) -> None:
        after = self._after[layer.name]
        values = to_numpy(seen[self.sites(layer)[0]])
        for function in after.functions:
            values = function(values)
        channels = np.moveaxis(values, after.channel_axis, -1)
        samples = channels.reshape(-1, channels.shape[-1])
        self._mean.add(layer.name, self.worth(samples), len(samples))

    @abstractmethod
    def worth(self, activations: Array) -> Array:
        """Return what each channel is worth on one batch, `(channels,)`, from its activations `(samples, channels)`."""

    def score(self, layer: Layer) -> Any:
        """Return the worth of each output channel, mean over all samples, `(out,)`."""
        return self._mean[layer.name]


class APoZPruner(_AfterActivation):
    """Channels whose activation is zero most often leave first.

    Hu et al., Network Trimming, 2016, arXiv:1607.03250: the average percentage of zeros. Needs forward passes.
    """

    name = "apoz"

    def worth(self, activations: Array) -> Array:
        return np.asarray((activations != 0).mean(axis=0, dtype=np.float64))


class MeanActivationPruner(_AfterActivation):
    """Channels whose activation is smallest on average leave first.

    Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017, arXiv:1611.06440, section 2.2.
    """

    name = "mean_activation"

    def worth(self, activations: Array) -> Array:
        return np.asarray(activations.mean(axis=0, dtype=np.float64))
