"""NNI 3's `target_settings`: what an entry says of one parameter of its layers.

    {"weight": {"sparse_ratio": 0.5, "granularity": "out_channel", "global_group_id": "stage1"}}

The weight is what is scored, and a bias goes with its rows, so that settings of a bias have nothing to say but that. What stands
here overrides the same word in the entry itself, as in NNI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, WithJsonSchema, model_validator

from nnc_schemas.problems import nearest_key, problem, short
from nnc_schemas.values import Cap, Floor, GroupId, Sparsity, Threshold

_TARGETS = ("weight", "bias")
_WORDS = ("default", "out_channel", "head")


def _granularity(value: Any) -> Any:
    if value in ("in_channel", "per_channel") or (isinstance(value, Sequence) and not isinstance(value, str)):
        others = "single elements by an algorithm of elements, and blocks by movement"
        raise problem(f"{short(value)} is not offered: output channels are scored, {others}.")
    if value not in _WORDS:
        raise problem(f"{short(value)} is none of {', '.join(_WORDS)}{nearest_key(str(value), _WORDS)}.")
    return value


Granularity = Annotated[Literal["default", "out_channel", "head"], BeforeValidator(_granularity)]


def _rows_only(value: Any) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or list(value) != [0]:
        raise problem(f"{short(value)} is not [0]: masks are aligned along the output channels, axis 0.")
    return (0,)


class Align(BaseModel):
    """Whose mask a layer takes over: that of the weight of layer `module_name`, channel by channel."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    module_name: StrictStr | None = Field(None, description="The layer whose mask is taken; none means the layer itself.")
    target_name: Literal["weight"] = Field("weight", description="The parameter whose mask is taken.")
    dims: Annotated[tuple[int, ...], BeforeValidator(_rows_only), WithJsonSchema({"const": [0]})] = Field(
        (0,), description="The axes that are aligned: [0], the output channels."
    )


class WeightSetting(BaseModel):
    """What NNI 3 lets a user say of a layer's weight; each key means what the entry's own key of that name means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sparse_ratio: Sparsity | None = Field(None, description="The fraction of the channels to REMOVE.")
    sparse_threshold: Threshold | None = Field(None, description="Channels that score below it leave.")
    max_sparse_ratio: Cap | None = Field(None, description="The most that one layer may lose.")
    min_sparse_ratio: Floor | None = Field(None, description="The least that each layer loses.")
    granularity: Granularity | None = Field(None, description="out_channel or default: what can leave together; head: whole heads.")
    global_group_id: GroupId | None = Field(None, description="Layers with the same id are ranked together.")
    dependency_group_id: GroupId | None = Field(None, description="Layers with the same id lose the same channels.")
    align: Align | None = Field(None, description="The layer whose mask is taken over, instead of an amount of its own.")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> WeightSetting:
        if self.align is not None and self.align.module_name is None:
            raise problem("align.module_name is missing: a weight takes over the mask of another layer.")
        given = [key for key in ("sparse_ratio", "sparse_threshold", "align") if getattr(self, key) is not None]
        if len(given) > 1:
            raise problem(f"{' and '.join(given)} contradict each other: give one.")
        return self


class BiasSetting(BaseModel):
    """A bias is masked with the rows of its weight: the one thing that its settings can say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    align: Align | None = Field(None, description="The bias goes with the rows of its own weight; nothing else is offered.")

    @model_validator(mode="after")
    def _goes_with_its_weight(self) -> BiasSetting:
        if self.align is not None and self.align.module_name is not None:
            raise problem("align.module_name: a bias goes with the rows of its own layer's weight; leave the key out.")
        return self


class TargetSettings(BaseModel):
    """The settings by parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: WeightSetting | None = Field(None, description="What to do with the weight.")
    bias: BiasSetting | None = Field(None, description="The bias goes with its weight's rows.")

    @model_validator(mode="before")
    @classmethod
    def _parameters_only(cls, value: Any) -> Any:
        for target in value if isinstance(value, Mapping) else ():
            refuse_activation(target)
        return value


def refuse_activation(target: Any) -> None:
    """Raise the problem with a target that is no parameter but what flows in or out of a layer."""
    if isinstance(target, str) and target.startswith(("_input_", "_output_")):
        raise problem(f"{target!r} is what flows through a layer; masks stand over its weight and bias.")


def _target_names(value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names:
        raise problem(f"{short(value)} is not a list of parameters; masks stand over weight and bias.")
    for name in names:
        refuse_activation(name)
        if name not in _TARGETS:
            raise problem(f"{short(name)} is neither weight nor bias.")
    if "weight" not in names:
        raise problem(f"{short(value)} lacks weight: it is what is scored, and a bias goes with its rows.")
    return tuple(names)


TargetNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_target_names),
    WithJsonSchema({"type": "array", "items": {"enum": list(_TARGETS)}, "contains": {"const": "weight"}}),
]
