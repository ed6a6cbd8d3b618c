"""A channel is worth the norm of its weights.

Sums run in float64: the ranking is then the same in every framework, whatever the order of its additions.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        return ops.concat([ops.sum(ops.abs(rows), axis=1, dtype=ops.float64) for rows in blocks_of_filters(layer)], axis=0)


class L2NormPruner(Pruner):
    """Channels with the smallest Euclidean norm leave first.

    The L2 variant of Li et al., ICLR 2017, arXiv:1608.08710, section 4.4. Needs no data.
    """

    name = "l2_norm"

    def score(self, layer: Layer) -> Any:
        """Return the L2 norm of each output channel, shape `(out,)`."""
        ops = layer.ops
        blocks = (ops.astype(rows, ops.float64) for rows in blocks_of_filters(layer))
        return ops.sqrt(ops.concat([ops.sum(ops.square(rows), axis=1) for rows in blocks], axis=0))


#: Numbers that are held at once: as float64 they take 2 MiB, which stay in a core's cache, where a copy of a whole layer would not.
_BLOCK = 2**18


def blocks_of_filters(layer: Layer) -> Iterator[Any]:
    """Yield each output channel's weights as one row, some rows at a time, in the weight's own type."""
    ops = layer.ops
    weight = layer.weight
    rows = ops.reshape(weight, (weight.shape[0], -1))
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    for start in range(0, rows.shape[0], step):
        yield rows[start : start + step]


def filters(layer: Layer) -> Any:
    """Return each output channel's weights as one row, `(out, in * kernel)`, in float64."""
    ops = layer.ops
    weight = layer.weight  # (out, in, *kernel)
    return ops.astype(ops.reshape(weight, (weight.shape[0], -1)), ops.float64)
