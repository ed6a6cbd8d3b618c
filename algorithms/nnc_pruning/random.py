"""The baseline that every other score has to beat."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import numpy as np

from nnc.adapter import Layer
from nnc.algorithm import Pruner


class RandomPruner(Pruner):
    """Channels leave by lot. The seed and the layer's name decide, so both frameworks draw the same lots."""

    name = "random"

    def score(self, layer: Layer) -> Any:
        """Return a uniform number for each output channel, shape `(out,)`."""
        generator = np.random.default_rng([self.seed, crc32(layer.name.encode())])
        return generator.random(layer.parameters["weight"][0])
