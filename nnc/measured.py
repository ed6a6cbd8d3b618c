"""Pruners that look at data before they score: streaming statistics of what passes the layers, or of gradients.

    apoz, mean_activation     activations    one forward pass a batch
    wanda, sparsegpt          inputs         the same
    taylor_fo, obd            gradients      one backward pass a batch

Each batch is folded into a small statistic and forgotten, so memory does not grow with the number of batches.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import isfinite, isnan
from typing import Any

from nnc.adapter import Layer, TrainableAdapter
from nnc.algorithm import Pruner
from nnc.columns import turned
from nnc.errors import ConfigError, TrainingError
from nnc.instruments import trainable
from nnc.trainer import Trainer
from nnc.views import Site
from nnc_schemas.learned import MeasuredSpec


class MeasuringPruner(Pruner):
    """A pruner that needs a trainer for its data."""

    spec = MeasuredSpec

    def __init__(self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, **options: Any) -> None:
        super().__init__(model, config_list, example_inputs, **options)
        self.source = self._source()

    def _source(self) -> Trainer:
        if self.trainer is None:
            raise ConfigError(f"trainer: {self.name!r} measures on data; pass trainer=nnc.Trainer(data=..., loss=...).")
        return self.trainer

    def batches(self) -> Iterator[Any]:
        """Yield as many batches as the entries ask for. Raises `TrainingError` where the data has none."""
        wanted = max(self.entry(name).batches for name in self.layers)
        empty = True
        for batch in islice(self.source.batches(), wanted):
            empty = False
            yield batch
        if empty:
            raise TrainingError(f"Trainer.data: has no batches, and {self.name!r} measures on {wanted}.")


class ActivationPruner(MeasuringPruner):
    """A pruner whose scores come from tensors that pass the layers, in inference mode."""

    @abstractmethod
    def sites(self, layer: Layer) -> Sequence[Site]:
        """Return what `observe` is shown of a layer."""

    @abstractmethod
    def observe(self, layer: Layer, seen: Mapping[Site, Any]) -> None:
        """Fold one batch into the layer's statistic. Tensors are the framework's, in its own layout."""

    def measure(self) -> None:
        adapter = trainable(self.adapter, self.name)
        sites = {name: tuple(self.sites(layer)) for name, layer in self.layers.items()}
        every = tuple(dict.fromkeys(site for mine in sites.values() for site in mine))
        for batch in self.batches():
            _, seen = adapter.forward(self.source.given(batch), every, through=self.source.through)
            for name, layer in self.layers.items():
                self.observe(layer, {site: seen[site] for site in sites[name]})


class GradientPruner(MeasuringPruner):
    """A pruner whose scores come from the gradient of the loss by each weight."""

    @abstractmethod
    def observe(self, layer: Layer, weight: Any, gradient: Any) -> None:
        """Fold the gradient of one batch's loss by the effective weight, both as `score` sees the weight, into the layer's statistic."""

    def measure(self) -> None:
        adapter = trainable(self.adapter, self.name)
        sites = {name: Site(name, "weight") for name in self.layers}
        loss = BatchLoss(adapter, self.source.loss)
        for number, batch in enumerate(self.batches(), 1):
            value, gradients = adapter.gradients(loss, tuple(sites.values()), batch)
            if not isfinite(value):
                what, where = "NaN" if isnan(value) else "infinite", adapter.blame(loss, batch)
                raise TrainingError(f"Trainer.loss: is {what} on batch {number}, on which {self.name!r} measures; {where}.")
            for name, layer in self.layers.items():
                weight, gradient = layer.weight, gradients[sites[name]]
                if self.granularity == "channel":
                    weight, gradient = turned(layer, weight), turned(layer, gradient)
                self.observe(layer, weight, gradient)


class BatchLoss:
    """The user's loss of one batch. Those of one loss are equal, so that what an adapter compiled for one serves the next pruner."""

    def __init__(self, adapter: TrainableAdapter, loss: Any) -> None:
        self.adapter, self.loss = adapter, loss

    def __call__(self, _: Any, batch: Any) -> Any:
        return self.adapter.batch_loss(self.loss, batch)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BatchLoss) and other.loss is self.loss

    def __hash__(self) -> int:
        return id(self.loss)


class Mean:
    """Means over batches, by layer: sums of the framework's tensors, each times its weight, and the sums of the weights."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._weights: dict[str, int] = {}

    def add(self, name: str, value: Any, weight: int = 1) -> None:
        weighted = value * weight
        self._sums[name] = self._sums[name] + weighted if name in self._sums else weighted
        self._weights[name] = self._weights.get(name, 0) + weight

    def __getitem__(self, name: str) -> Any:
        return self._sums[name] / self._weights[name]
