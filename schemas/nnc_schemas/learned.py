"""Entries of pruners that look at data: how much of it they see, and how they learn from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, StrictBool

from nnc_schemas.prune import PruneSpec
from nnc_schemas.values import Count

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=False)]


class MeasuredSpec(PruneSpec):
    """An entry of a pruner that measures on batches of the trainer's data."""

    batches: Count = Field(16, description="On how many batches of the trainer's data the scores are measured.")


class DampedSpec(MeasuredSpec):
    """An entry of a pruner that inverts a layer's Hessian."""

    damping: Positive = Field(0.01, description="What is added to the Hessian's diagonal, as a fraction of its mean.")
    block: Count = Field(128, description="How many columns are pruned before the rest is updated.")


class SlimSpec(PruneSpec):
    """An entry of network slimming."""

    scale: NotNegative = Field(1e-4, description="The factor of sum |gamma| in the training loss.")


class MovementSpec(PruneSpec):
    """An entry of movement pruning."""

    mode: Literal["hard", "soft"] = Field(
        "hard", description="hard: the lowest scores are masked. soft: what has sigmoid(score) below sparse_threshold."
    )
    element: StrictBool = Field(False, description="True: each weight has a score of its own, in place of each channel or head.")
    score_rate: Positive = Field(1.0, description="The learning rate of the scores.")
    warm_up: Annotated[int, Field(ge=0)] = Field(0, description="Steps before anything is masked.")
    cool_down: Count = Field(1000, description="The step at which the sparsity is the final one; it rises by a cubic until then.")
    regular_scale: NotNegative = Field(1.0, description="soft: the factor of the mean of sigmoid(score) in the training loss.")

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        tau = self.threshold
        if self.mode == "soft" and not self.exclude and (tau is None or not 0 < tau < 1):
            yield "mode soft needs sparse_threshold between 0 and 1: what has sigmoid(score) below it leaves"
        if self.mode == "hard" and tau is not None:
            yield "sparse_threshold needs mode soft: hard movement removes a fraction, sparsity"


class AdmmSpec(PruneSpec):
    """An entry of ADMM pruning."""

    rho: Positive = Field(1e-2, description="The weight of the distance to the sparse weights, rho / 2 * |W - Z + U|^2.")
    iterations: Count = Field(3, description="How often Z and U are updated; the trainer trains once between two updates.")
