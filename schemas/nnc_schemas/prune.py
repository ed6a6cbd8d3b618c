"""One entry of a config_list: which layers, and how much of them leaves.

    {"op_types": ["Linear", "Conv2d"], "sparsity": 0.5}      half of each layer
    {"op_types": "Conv2d", "total_sparsity": 0.5, "max_sparsity_per_layer": 0.8}      half of all of them together
    {"op_names": ["fc2"], "exclude": True}                   left alone

The keys are those of NNI 2.10 and of NNI 3; where both have a word for one idea, both words are valid. With `global_group_id` an
amount is that of all the layers that share the id, as `total_sparsity` is that of an entry's layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from nnc_schemas.problems import problem
from nnc_schemas.selector import Selector
from nnc_schemas.targets import Align, Granularity, TargetNames, TargetSettings
from nnc_schemas.values import Block, Cap, Floor, GroupId, Sparsity, Threshold

_PER_LAYER = ("sparsity", "sparsity_per_layer", "sparse_ratio")
_AMOUNTS = (*_PER_LAYER, "total_sparsity", "sparse_threshold")
_CAPS = ("max_sparsity_per_layer", "max_sparse_ratio")
_LIMITS = (*_CAPS, "min_sparse_ratio")


class PruneSpec(Selector):
    """One entry of a config_list. Read the amounts through `per_layer`, `total`, `cap` ...: they know every spelling."""

    sparsity: Sparsity | None = Field(None, description="The fraction of each layer's channels to REMOVE.")
    sparsity_per_layer: Sparsity | None = Field(None, description="NNI 2's word for `sparsity`.")
    sparse_ratio: Sparsity | None = Field(None, description="NNI 3's word for `sparsity`.")
    total_sparsity: Sparsity | None = Field(None, description="The fraction of all the entry's weights to REMOVE.")
    max_sparsity_per_layer: Cap | None = Field(None, description="With total_sparsity: the most that one layer may lose.")
    max_sparse_ratio: Cap | None = Field(None, description="NNI 3's word for `max_sparsity_per_layer`.")
    min_sparse_ratio: Floor | None = Field(None, description="With total_sparsity: the least that each layer loses.")
    sparse_threshold: Threshold | None = Field(None, description="In place of a fraction: what scores below it leaves.")
    granularity: Granularity | None = Field(
        None, description="head: only whole attention heads leave; needs example_inputs. Default, out_channel: what can leave together."
    )
    round_to: Block | None = Field(None, description="Keep a multiple of so many channels; fast kernels like 8 or 16.")
    ranking: Literal["global", "isomorphic"] | None = Field(
        None, description="With total_sparsity. isomorphic: only groups of one shape of subgraph are ranked against each other."
    )
    global_group_id: GroupId | None = Field(None, description="Layers with the same id are ranked together, over entries.")
    dependency_group_id: GroupId | None = Field(None, description="Layers with the same id lose the same output channels.")
    group_score: Literal["sum", "mean", "max"] | None = Field(
        None, description="What channels that leave together score: the sum (default), mean or max over them."
    )
    target_names: TargetNames | None = Field(None, description="The parameters to mask; without bias, biases stay alive.")
    target_settings: TargetSettings | None = Field(None, description="NNI 3's settings by parameter: weight, bias.")

    @property
    def per_layer(self) -> float | None:
        """The fraction to remove from each layer, whichever word the user has for it."""
        return None if self.global_group is not None else self._ratio

    @property
    def total(self) -> float | None:
        """The fraction to remove from all the layers that are ranked together."""
        return self.total_sparsity if self.global_group is None or self._ratio is None else self._ratio

    @property
    def threshold(self) -> float | None:
        """The score below which channels leave."""
        found: float | None = self._word("sparse_threshold")
        return None if self._set("sparse_ratio") is not None else found

    @property
    def amount(self) -> float:
        """The fraction to remove, of each layer or of all; 0 where there is none."""
        return self.per_layer or self.total or 0.0

    @property
    def removes(self) -> bool:
        """Whether the entry asks for anything to leave at all."""
        return self.amount > 0 or self.threshold is not None or self.align is not None

    @property
    def cap(self) -> float | None:
        """The largest fraction that one layer may lose."""
        own: float | None = self._set("max_sparse_ratio")
        return self._first(_CAPS) if own is None else own

    @property
    def floor(self) -> float | None:
        """The smallest fraction that each layer loses."""
        found: float | None = self._word("min_sparse_ratio")
        return found

    @property
    def heads(self) -> bool:
        """Whether only whole attention heads are meant."""
        return bool(self._word("granularity") == "head")

    @property
    def global_group(self) -> int | str | None:
        """The id under which layers are ranked together."""
        found: int | str | None = self._word("global_group_id")
        return found

    @property
    def dependency_group(self) -> int | str | None:
        """The id under which layers lose the same channels."""
        found: int | str | None = self._word("dependency_group_id")
        return found

    @property
    def align(self) -> Align | None:
        """Whose mask the entry's layers take over."""
        found: Align | None = self._set("align")
        return found

    @property
    def masks_bias(self) -> bool:
        """Whether the bias is masked with the rows of its weight."""
        return self.target_names is None or "bias" in self.target_names

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> PruneSpec:
        contradictions = list(self._contradictions())
        if contradictions:
            raise problem("; ".join(contradictions) + ".")
        return self

    def _contradictions(self) -> Iterator[str]:
        amounts, caps = self._given(_AMOUNTS), self._given(_CAPS)
        if len(amounts) > 1:
            yield f"{' and '.join(amounts)} contradict each other: give one"
        if len(caps) > 1:
            yield f"{' and '.join(caps)} are two words for one thing: give one"
        yield from self._excluding_contradicts() if self.exclude else (*self._lacks(), *self._impossible())

    def _excluding_contradicts(self) -> Iterator[str]:
        own = (name for name in type(self).model_fields if name not in Selector.model_fields)
        given = self._given(tuple(name for name in own if name in self.model_fields_set))
        if given:
            yield f"exclude contradicts {given[0]}: an excluded layer is left alone"
        if not self.selects:
            yield "exclude needs op_types, op_names, op_partial_names or op_names_re: it would exclude every layer"

    def _lacks(self) -> Iterator[str]:
        """Yield the keys that need another key beside them."""
        if self._ratio is None and self.total is None and self.threshold is None and self.align is None:
            yield "sparsity, total_sparsity or exclude is missing: it says what to do with the layers"
        limit = next((key for key in _LIMITS if self._word(key) is not None), None)
        if limit and self.total is None and self.threshold is None:
            yield f"{limit} needs total_sparsity: `sparsity` is already a layer's own"
        if self.ranking and self.total is None:
            yield "ranking needs total_sparsity: with `sparsity` each layer is ranked alone"

    def _impossible(self) -> Iterator[str]:
        """Yield the keys whose numbers contradict each other."""
        if self.global_group is not None and self.threshold is not None:
            yield "global_group_id contradicts sparse_threshold: a threshold asks nothing of the other layers"
        if self.floor is not None and self.cap is not None and self.floor > self.cap:
            yield f"min_sparse_ratio {self.floor} is above the most that a layer may lose, {self.cap}"
        if self.floor is not None and self.total is not None and self.floor > self.total:
            yield f"min_sparse_ratio {self.floor} is above what leaves in total, {self.total}"

    @property
    def _ratio(self) -> float | None:
        """The fraction under a layer's own words; what the weight's setting says comes first, whatever it is."""
        if any(self._set(key) is not None for key in ("sparse_ratio", "sparse_threshold", "align")):
            own: float | None = self._set("sparse_ratio")
            return own
        return self._first(_PER_LAYER)

    def _set(self, key: str) -> Any:
        """Return what the setting of the weight says under a key."""
        setting = self.target_settings.weight if self.target_settings else None
        return getattr(setting, key, None)

    def _word(self, key: str) -> Any:
        """Return what stands under a key, in the setting of the weight or else in the entry itself."""
        own = self._set(key)
        return getattr(self, key) if own is None else own

    def _given(self, keys: tuple[str, ...]) -> list[str]:
        return [key for key in keys if getattr(self, key) is not None]

    def _first(self, keys: tuple[str, ...]) -> float | None:
        return next((getattr(self, key) for key in self._given(keys)), None)
