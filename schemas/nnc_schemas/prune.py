"""One entry of a config_list: which layers, and how much of them leaves.

    {"op_types": ["Linear", "Conv2d"], "sparsity": 0.5}      half of each layer
    {"op_types": "Conv2d", "total_sparsity": 0.5, "max_sparsity_per_layer": 0.8}      half of all of them together
    {"op_names": ["fc2"], "exclude": True}                   left alone

The keys are those of NNI 2.10 and of NNI 3; where both have a word for one idea, both words are valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from nnc_schemas.problems import problem
from nnc_schemas.selector import Selector
from nnc_schemas.values import Cap, Count, Sparsity

_PER_LAYER = ("sparsity", "sparsity_per_layer", "sparse_ratio")
_CAPS = ("max_sparsity_per_layer", "max_sparse_ratio")


class PruneSpec(Selector):
    """One entry of a config_list. Read the amounts through `per_layer`, `total_sparsity` and `cap`: they know every spelling."""

    sparsity: Sparsity | None = Field(None, description="The fraction of each layer's channels to REMOVE.")
    sparsity_per_layer: Sparsity | None = Field(None, description="NNI 2's word for `sparsity`.")
    sparse_ratio: Sparsity | None = Field(None, description="NNI 3's word for `sparsity`.")
    total_sparsity: Sparsity | None = Field(None, description="The fraction of all the entry's weights to REMOVE.")
    max_sparsity_per_layer: Cap | None = Field(None, description="With total_sparsity: the most that one layer may lose.")
    max_sparse_ratio: Cap | None = Field(None, description="NNI 3's word for `max_sparsity_per_layer`.")
    granularity: Literal["default", "head"] | None = Field(
        None, description="head: only whole attention heads leave; needs example_inputs. Default: what can leave together."
    )
    round_to: Count | None = Field(None, description="Keep a multiple of so many channels; fast kernels like 8 or 16.")

    @property
    def per_layer(self) -> float | None:
        """The fraction to remove from each layer, whichever word the user has for it."""
        return self._first(_PER_LAYER)

    @property
    def cap(self) -> float | None:
        """The largest fraction that one layer may lose under `total_sparsity`."""
        return self._first(_CAPS)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> PruneSpec:
        contradictions = list(self._contradictions())
        if contradictions:
            raise problem("; ".join(contradictions) + ".")
        return self

    def _contradictions(self) -> Iterator[str]:
        amounts = self._given((*_PER_LAYER, "total_sparsity"))
        caps = self._given(_CAPS)
        if len(amounts) > 1:
            yield f"{' and '.join(amounts)} contradict each other: give one"
        if len(caps) > 1:
            yield f"{' and '.join(caps)} are two words for one thing: give one"
        if caps and "total_sparsity" not in amounts:
            yield f"{caps[0]} needs total_sparsity: `sparsity` is already a layer's own"
        if self.exclude and (amounts or caps):
            yield f"exclude contradicts {(amounts + caps)[0]}: an excluded layer is left alone"
        if self.exclude and self.round_to is not None:
            yield "exclude contradicts round_to: an excluded layer is left alone"
        if self.exclude and not self.selects:
            yield "exclude needs op_types, op_names, op_partial_names or op_names_re: it would exclude every layer"
        if not self.exclude and not amounts:
            yield "sparsity, total_sparsity or exclude is missing: it says what to do with the layers"

    def _given(self, keys: tuple[str, ...]) -> list[str]:
        return [key for key in keys if getattr(self, key) is not None]

    def _first(self, keys: tuple[str, ...]) -> float | None:
        return next((getattr(self, key) for key in self._given(keys)), None)
