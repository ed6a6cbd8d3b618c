"""A weight is worth its size."""

from __future__ import annotations

from typing import Any

from nnc.adapter import Layer
from nnc.algorithm import Pruner


class LevelPruner(Pruner):
    """Single weights with the smallest magnitude leave first, wherever they stand; biases stay.

    Han et al., Learning both Weights and Connections, NeurIPS 2015, arXiv:1506.02626, section 3. Needs no data.
    """

    name = "level"
    granularity = "element"

    def score(self, layer: Layer) -> Any:
        """Return the magnitude of each weight, shape `(out, in, *kernel)`."""
        return layer.ops.abs(layer.weight)
