"""A channel is worth the norm of its weights.

Sums run in float64: the ranking is then the same in every framework, whatever the order of its additions.
"""

from __future__ import annotations

from typing import Any

from nnc.adapter import Layer
from nnc.algorithm import Pruner


class L1NormPruner(Pruner):
    """Channels with the smallest sum of absolute weights leave first.

    Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, arXiv:1608.08710, section 3.1. Needs no data.
    """

    name = "l1_norm"

    def score(self, layer: Layer) -> Any:
        """Return the L1 norm of each output channel, shape `(out,)`."""
        ops = layer.ops
        return ops.sum(ops.abs(filters(layer)), axis=1)


class L2NormPruner(Pruner):
    """Channels with the smallest Euclidean norm leave first.

    The L2 variant of Li et al., ICLR 2017, arXiv:1608.08710, section 4.4. Needs no data.
    """

    name = "l2_norm"

    def score(self, layer: Layer) -> Any:
        """Return the L2 norm of each output channel, shape `(out,)`."""
        ops = layer.ops
        return ops.sqrt(ops.sum(ops.square(filters(layer)), axis=1))


def filters(layer: Layer) -> Any:
    """Return each output channel's weights as one row, `(out, in * kernel)`, in float64."""
    ops = layer.ops
    weight = layer.weight  # (out, in, *kernel)
    return ops.astype(ops.reshape(weight, (weight.shape[0], -1)), ops.float64)
