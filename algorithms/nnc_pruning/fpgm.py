"""A channel near the middle of its layer is replaceable: the others can say what it says."""

from __future__ import annotations

from typing import Any

from nnc.adapter import Layer
from nnc.algorithm import Pruner
from nnc_pruning.norms import filters

#: Rows of the distance matrix that are held at once: 1024 x 4096 float64 are 32 MiB.
_BLOCK = 1024
#: Squared distances below this fraction of the squared norms are what rounding leaves of 0.
_NOISE = 1e-14


class FPGMPruner(Pruner):
    """Channels with the smallest sum of distances to all the others of their layer leave first.

    These lie nearest to the geometric median of the filters. He et al., CVPR 2019, arXiv:1811.00250, section 3.3. Needs no data.
    """

    name = "fpgm"

    def score(self, layer: Layer) -> Any:
        """Return the sum of Euclidean distances from each output channel to every other, shape `(out,)`."""
        ops = layer.ops
        rows = filters(layer)  # (out, in * kernel)
        # Distances do not change with the origin, and small numbers cancel less.
        rows = rows - ops.mean(rows, axis=0, keepdims=True)
        norms = ops.sum(ops.square(rows), axis=1)
        blocks = range(0, rows.shape[0], _BLOCK)
        return ops.concat([_distances(ops, rows[i : i + _BLOCK], norms[i : i + _BLOCK], rows, norms) for i in blocks], axis=0)


def _distances(ops: Any, block: Any, block_norms: Any, rows: Any, norms: Any) -> Any:
    """Return, for each row of the block, the sum of its distances to all rows: |a - b|^2 = |a|^2 + |b|^2 - 2ab."""
    scale = ops.reshape(block_norms, (-1, 1)) + ops.reshape(norms, (1, -1))
    squares = scale - 2 * ops.matmul(block, ops.matrix_transpose(rows))
    return ops.sum(ops.sqrt(ops.where(squares > _NOISE * scale, squares, ops.zeros_like(squares))), axis=1)
