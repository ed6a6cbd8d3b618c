"""What holds for every architecture: pruned at 50 % L1 over groups, the small model computes what the masked one does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import nnc
from nnc.registry import adapter_for
from nnc_pruning import L1NormPruner


@dataclass
class Case:
    model: Any
    x: Any
    speed: Any
    small: Any
    moved: float

    @property
    def left(self):
        """The part of the parameters that stays."""
        return self.small.count_params() / self.model.count_params()


def run(model, x):
    return adapter_for(model).run(x)


def difference(expected, found):
    """Return the largest difference relative to the largest number."""
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(expected, found, strict=True))


def pruned(model, x, sparsity=0.5):
    """Mask and shrink a model; the model stays masked."""
    before = run(model, x)
    _, masks = L1NormPruner(model, [{"sparsity": sparsity}], example_inputs=x).compress()
    speed = nnc.ModelSpeedup(model, x, masks)
    small = speed.speedup_model()
    return Case(model, x, speed, small, difference(before, run(model, x)))


def assert_exact(case, left):
    """Check that parameters left, that this changed nothing, and that the masks changed something."""
    assert case.left <= left
    assert difference(run(case.model, case.x), run(case.small, case.x)) <= 1e-5
    assert case.moved > 1e-3
    assert case.speed.plan.groups
