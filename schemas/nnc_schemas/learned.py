"""Entries of pruners that look at data: how much of it they see, and how they learn from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, model_validator

from nnc_schemas.prune import PruneSpec
from nnc_schemas.values import Batches, Count

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class MeasuredSpec(PruneSpec):
    """An entry of a pruner that measures on batches of the trainer's data."""

    batches: Batches = Field(16, description="On how many batches of the trainer's data the scores are measured.")


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
    block: tuple[Count, Count] | None = Field(
        None, description="[rows, columns]: blocks of a weight have one score each. granularity: [rows, columns] means the same."
    )
    score_rate: Positive = Field(1.0, description="The learning rate of the scores.")
    warm_up: Annotated[int, Field(ge=0)] = Field(0, description="Steps before anything is masked.")
    cool_down: Count = Field(1000, description="The step at which the sparsity is the final one; it rises by a cubic until then.")
    regular_scale: NotNegative = Field(1.0, description="soft: the factor of the mean of sigmoid(score) in the training loss.")

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_a_block(cls, given: Any) -> Any:
        """Read NNI's list of sizes as the block that it means."""
        sizes = given.get("granularity") if isinstance(given, Mapping) else None
        if isinstance(sizes, str) or not isinstance(sizes, Sequence):
            return given
        return {**{key: value for key, value in given.items() if key != "granularity"}, "block": sizes}

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        tau = self.threshold
        asked = [f"{name}" for name in ("element", "block") if getattr(self, name)] + ["granularity: head"] * self.heads
        if len(asked) > 1:
            yield f"{' and '.join(asked)} contradict each other: what has one score is one of them"
        if self.block and self.total is not None:
            yield "blocks are chosen in each layer by itself: give sparsity, and not a total"
        if self.mode == "hard" and self.warm_up > self.cool_down:
            yield f"warm_up {self.warm_up} is after cool_down {self.cool_down}: the sparsity rises between the two"
        if self.mode == "soft" and not self.exclude and (tau is None or not 0 < tau < 1):
            yield "mode soft needs sparse_threshold between 0 and 1: what has sigmoid(score) below it leaves"
        if self.mode == "hard" and tau is not None:
            yield "sparse_threshold needs mode soft: hard movement removes a fraction, sparsity"


class AdmmSpec(PruneSpec):
    """An entry of ADMM pruning."""

    rho: Positive = Field(1e-2, description="The weight of the distance to the sparse weights, rho / 2 * |W - Z + U|^2.")
    iterations: Count = Field(3, description="How often Z and U are updated; the trainer trains once between two updates.")
