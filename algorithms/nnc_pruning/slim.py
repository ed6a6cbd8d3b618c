"""A channel is worth the scale of its BatchNorm, which training drives towards zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnc.adapter import Layer, Ops
from nnc.algorithm import Pruner
from nnc.errors import ConfigError
from nnc.graph.follow import norm_of
from nnc.objective import Objective, Seen
from nnc.views import Site
from nnc_schemas.learned import SlimSpec


class SlimPruner(Pruner):
    """Channels whose BatchNorm has the smallest scale leave first; training adds `scale` * sum |gamma| to the loss.

    Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017, arXiv:1708.06519. Needs training; without
    any it prunes by the scales as they are. Name the BatchNorm layers or, with example inputs, the layers before them.
    """

    name = "slim"
    spec = SlimSpec
    treated = "BatchNorms that have a scale, and layers that one follows"
    learns = True

    @staticmethod
    def treats(layer: Layer) -> bool:
        return is_norm(layer) or layer.prunable

    def __init__(self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, **options: Any) -> None:
        super().__init__(model, config_list, example_inputs, **options)
        self._norms = self._find()

    def _find(self) -> dict[str, Layer]:
        """Return the BatchNorm of each layer that the config_list selects."""
        every = {layer.name: layer for layer in self.adapter.layers()}
        found = {name: layer for name, layer in self.layers.items() if is_norm(layer)}
        others = [name for name in self.layers if name not in found]
        if others and self.example_inputs is None:
            remedy = 'Name BatchNorm layers ({"op_types": ["BatchNorm2d"]}), or pass example_inputs=.'
            raise ConfigError(
                f"{self.entry(others[0]).place}: {others[0]!r} is no BatchNorm; the one behind it is found by running. {remedy}"
            )
        graph = None
        for name in others:
            if graph is None:
                graph = self.adapter.structure(self.example_inputs)
            norm = norm_of(graph, name)
            if norm is None or norm not in every or "weight" not in every[norm].parameters:
                raise ConfigError(
                    f"{self.entry(name).place}: no BatchNorm with a scale follows {name!r}; exclude it, or select by op_names."
                )
            found[name] = every[norm]
        return found

    def objectives(self) -> Sequence[Objective]:
        scales = {self._norms[name].name: self.entry(name).scale for name in self.layers}
        return (SparseScales({Site(name, "weight"): scale for name, scale in scales.items()}),)

    def score(self, layer: Layer) -> Any:
        """Return |gamma| of each output channel, `(out,)`."""
        norm = self._norms[layer.name]
        return norm.ops.abs(norm.weight)


class SparseScales(Objective):
    """sum of scale * |gamma|."""

    name = "slim"

    def __init__(self, scales: Mapping[Site, float]) -> None:
        self.scales = dict(scales)
        self.student = tuple(scales)

    def terms(self, seen: Seen, ops: Ops) -> Mapping[str, Any]:
        return {"scales": sum(ops.sum(ops.abs(seen.student[site])) * scale for site, scale in self.scales.items())}


def is_norm(layer: Layer) -> bool:
    """Tell whether a layer is a BatchNorm that has a scale."""
    return any(kind.startswith("BatchNorm") for kind in layer.op_types) and "weight" in layer.parameters
