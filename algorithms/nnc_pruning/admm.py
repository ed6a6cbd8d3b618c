"""Weights are trained towards the nearest sparse ones, so that little is lost when they are cut.

minimise loss + rho/2 * |W - Z + U|^2     by training
Z = the sparse weights nearest to W + U   by projection
U = U + W - Z                             what W still lacks, added up
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnc.adapter import Layer, Masks, Ops
from nnc.algorithm import Pruner
from nnc.arrays import to_float64
from nnc.columns import channel_axis
from nnc.graph.ir import Array
from nnc.instruments import attach, restored, trainable
from nnc.objective import Objective, Seen
from nnc.views import Site, Variable
from nnc_schemas.learned import AdmmSpec


class ADMMPruner(Pruner):
    """Channels that are smallest after training with the alternating direction method of multipliers leave.

    Zhang et al., A Systematic DNN Weight Pruning Framework using ADMM, ECCV 2018, arXiv:1804.03294; of channels, as in AutoCompress
    (Liu et al., AAAI 2020). Needs training: with a trainer `compress` alternates by itself; in a loop of your own call `update()` every
    few epochs.
    """

    name = "admm"
    spec = AdmmSpec
    learns = True

    def __init__(self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, **options: Any) -> None:
        super().__init__(model, config_list, example_inputs, **options)
        self._multipliers: dict[str, Array] = {}  # U, by layer
        self._targets: dict[str, Array] = {}  # Z

    def objectives(self) -> Sequence[Objective]:
        if not self._targets:
            self._start()
        targets = {Site(name, "weight"): (self.entry(name).rho, target) for name, target in self._targets.items()}
        return (NearTargets(targets),)

    def compress(self) -> tuple[Any, Masks]:
        """Train towards sparse weights as often as `iterations` says, and mask what has become small."""
        if self.trainer is None:
            return self.model, attach(self.adapter, [self])
        attach(self.adapter, [self])
        with restored(self.adapter):
            for _ in range(max(self.entry(name).iterations for name in self.layers)):
                self.trainer.train(self.model, label=self.name)
                self.update()
        return self.model, self.settle()

    def update(self) -> None:
        """Update Z and U by the weights of now; the model must be in training with this pruner."""
        adapter = trainable(self.adapter, self.name)
        self._project()
        for name, layer in self.layers.items():
            self._multipliers[name] = self._lifted(layer) - self._targets[name]
        pulls = [(self._targets[name] - self._multipliers[name]).astype(np.float32) for name in self.layers]
        adapter.set_numbers({(self.name, ""): {f"target{index}": pull for index, pull in enumerate(pulls)}})

    def finish(self) -> Masks:
        # What is cut is small in W; U, which has grown for just that, would speak against it.
        self._multipliers, self._targets = {}, {}
        return super().finish()

    def score(self, layer: Layer) -> Any:
        """Return the L1 norm of each output channel, `(out,)`: while training lasts of W + U, in the end of W."""
        rows = np.moveaxis(self._lifted(self.layers[layer.name]), channel_axis(layer), 0)
        return np.abs(rows).reshape(len(rows), -1).sum(axis=1)

    def _lifted(self, layer: Layer) -> Array:
        return np.asarray(to_float64(layer.weight) + self._multipliers.get(layer.name, 0.0))

    def _start(self) -> None:
        self._multipliers = {name: np.zeros(layer.parameters["weight"]) for name, layer in self.layers.items()}
        self._project()

    def _project(self) -> None:
        """Set Z to W + U without what the config_list would remove of it."""
        masks = self.decide()
        for name, layer in self.layers.items():
            lifted = self._lifted(layer)
            self._targets[name] = np.where(masks[name]["weight"], lifted, 0.0) if name in masks else lifted


class NearTargets(Objective):
    """rho / 2 * |W - (Z - U)|^2, summed over layers."""

    name = "admm"

    def __init__(self, targets: Mapping[Site, tuple[float, Array]]) -> None:
        self.student = tuple(targets)
        self.targets = targets

    def variables(self) -> Mapping[str, Variable]:
        return {f"target{index}": Variable(target.astype(np.float32)) for index, (_, target) in enumerate(self.targets.values())}

    def terms(self, seen: Seen, ops: Ops) -> Mapping[str, Any]:
        terms = [
            ops.sum(ops.square(seen.student[site] - seen.state[f"target{index}"])) * (rho / 2)
            for index, (site, (rho, _)) in enumerate(self.targets.items())
        ]
        return {"distance": sum(terms[1:], terms[0])}
