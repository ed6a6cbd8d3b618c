"""A weight is worth what the loss would change by without it, read from gradients.

taylor_fo     (w * dL/dw)^2          first order
obd           1/2 * h * w^2          second order, h the diagonal of the empirical Fisher information
"""

from __future__ import annotations

from typing import Any

from nnc.adapter import Layer
from nnc.measured import GradientPruner, Mean


class TaylorFOPruner(GradientPruner):
    """Channels whose removal changes the loss least, by its first-order Taylor expansion, leave first.

    Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv:1906.10771, equation 8. Needs gradients.
    """

    name = "taylor_fo"

    def measure(self) -> None:
        self._mean = Mean()
        super().measure()

    def observe(self, layer: Layer, weight: Any, gradient: Any) -> None:
        ops = layer.ops
        importance = ops.square(ops.astype(weight * gradient, ops.float64))
        self._mean.add(layer.name, ops.sum(ops.reshape(importance, (weight.shape[0], -1)), axis=1))

    def score(self, layer: Layer) -> Any:
        """Return the sum of (w * dL/dw)^2 over each output channel, mean over the batches, `(out,)`."""
        return self._mean[layer.name]


class OBDPruner(GradientPruner):
    """Weights whose removal changes the loss least, by its second-order expansion with a diagonal Hessian, leave first.

    LeCun, Denker, Solla, Optimal Brain Damage, NIPS 1989. The Hessian's diagonal is the empirical Fisher information: the mean of squared
    gradients over the batches, exact per sample at batch size 1. Needs gradients.
    """

    name = "obd"
    granularity = "element"

    def measure(self) -> None:
        self._fisher = Mean()
        super().measure()

    def observe(self, layer: Layer, weight: Any, gradient: Any) -> None:
        self._fisher.add(layer.name, layer.ops.square(gradient))

    def score(self, layer: Layer) -> Any:
        """Return 1/2 * h * w^2 of each weight, `(out, in, *kernel)`."""
        return self._fisher[layer.name] * layer.ops.square(layer.weight) * 0.5
