"""A weight is worth its share of what would be left: magnitudes that can be compared between layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnc.adapter import Layer
from nnc.algorithm import Pruner
from nnc.arrays import to_float64


class LAMPPruner(Pruner):
    """Weights with the smallest layer-adaptive magnitude leave first; rank them globally, with `total_sparsity`.

    Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021, arXiv:2010.07611, equation 3. Needs no data.
    """

    name = "lamp"
    granularity = "element"

    def score(self, layer: Layer) -> Any:
        """Return w^2 over the sum of the layer's squares that are not smaller, `(out, in, *kernel)`; equal ones by index."""
        squares = to_float64(layer.weight) ** 2
        order = np.argsort(squares, axis=None, kind="stable")
        rising = squares.ravel()[order]
        left = np.cumsum(rising[::-1])[::-1]
        scores = np.empty_like(rising)
        scores[order] = np.divide(rising, left, out=np.zeros_like(rising), where=left > 0)
        return scores.reshape(squares.shape)
