"""Entries that quantise: which tensors of a layer, on which grid, found or learned how.

    {"algorithm": "ptq", "op_types": ["Linear", "Conv2d"]}                             int8 weights and inputs
    {"algorithm": "qat_lsq", "quant_types": ["weight"], "quant_bits": 4}               4-bit weights, scales learned
    {"algorithm": "qat_ste", "int4_layers": "1_2"}                                     layers 1 and 2 in 4 bits, the others in 8

The keys are those of NNI 2.10 and of NNI 3; where both have a word for one idea, both words are valid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from nnc_schemas.problems import nearest_key, problem, short
from nnc_schemas.selector import Selector
from nnc_schemas.values import Count

TENSORS = ("weight", "input", "output", "bias")
SCHEMES = ("per_tensor_symmetric", "per_tensor_affine", "per_channel_symmetric", "per_group_symmetric", "symmetric", "affine")
_NNI3 = {"_input_": "input", "_output_": "output"}


def _tensor(value: Any) -> str:
    name = _NNI3.get(value, value) if isinstance(value, str) else value
    if name not in TENSORS:
        raise problem(f"{short(value)} is none of {', '.join(TENSORS)}{nearest_key(str(value), TENSORS)}.")
    return str(name)


def _tensors(value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names:
        raise problem(f"{short(value)} is no list of tensors; name some of {', '.join(TENSORS)}.")
    return tuple(dict.fromkeys(_tensor(name) for name in names))


def _bits(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 8:
        raise problem(f"{short(value)} is outside 2 to 8; it is how many bits a number has (1: with qat_bnn and qat_dorefa).")
    return value


def _each(value: Any, read: Any) -> Any:
    """Read one value for all tensors, or one for each."""
    return {_tensor(key): read(item) for key, item in value.items()} if isinstance(value, Mapping) else read(value)


def _scheme(value: Any) -> str:
    if value not in SCHEMES:
        raise problem(f"{short(value)} is no scheme{nearest_key(str(value), SCHEMES)}. Known are {', '.join(SCHEMES)}.")
    return str(value)


def _int4(value: Any) -> tuple[str, ...]:
    """Accept "1_2", [1, 2], and parts of layers' names."""
    parts = [value] if isinstance(value, str) else value
    if isinstance(value, str) and re.fullmatch(r"\d+(_\d+)*", value):
        parts = value.split("_")
    known = isinstance(parts, Sequence) and all(isinstance(part, (int, str)) and not isinstance(part, bool) for part in parts)
    if not known or not parts:
        raise problem(f'{short(value)} names no layers; write "1_2", [1, 2], or parts of names.')
    return tuple(str(part) for part in parts)


Tensors = Annotated[tuple[str, ...], BeforeValidator(_tensors)]
Bits = Annotated[int | dict[str, int], BeforeValidator(lambda value: _each(value, _bits))]
Scheme = Annotated[str | dict[str, str], BeforeValidator(lambda value: _each(value, _scheme))]
Word = Annotated[str | dict[str, str], BeforeValidator(lambda value: _each(value, str))]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _range(value: Any) -> Any:
    """Accept True and False beside the keys of a range."""
    return ({} if value else None) if isinstance(value, bool) else value


class SearchRange(BaseModel):
    """What a search tries: every observer on every number of batches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    observers: Annotated[tuple[str, ...], Field(min_length=1)] = ("minmax", "avg", "percentile", "mse", "kl")
    calib_steps: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 4, 16)


class QuantTarget(BaseModel):
    """NNI 3's settings of one tensor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quant_dtype: str | None = Field(None, description='"int8", "uint8", "int4": the bits; whether signed follows from the tensor.')
    quant_scheme: Annotated[str, BeforeValidator(_scheme)] | None = Field(None, description="symmetric or affine.")
    granularity: Literal["default", "per_tensor", "out_channel", "per_channel"] | None = Field(None, description="What shares a scale.")


class QuantSpec(Selector):
    """One entry that quantises. Read a tensor's settings through `bits`, `scheme` and `observes`: they know every spelling."""

    quant_types: Tensors = Field(("weight", "input"), description="The tensors to quantise: weight, input, output, bias.")
    quant_bits: Bits = Field(8, description="2 to 8, or a number for each tensor: {weight: 4, input: 8}.")
    quant_dtype: Word | None = Field(None, description="NNI's int or uint: integer kernels decide, so it is read and not needed.")
    quant_scheme: Scheme | None = Field(None, description="Default: weights per_channel_symmetric, activations per_tensor_affine.")
    target_settings: dict[str, QuantTarget] | None = Field(None, description="NNI 3's settings by tensor: weight, _input_, _output_.")
    group_size: Count | None = Field(None, description="per_group_symmetric: how many inputs of a weight share a scale.")
    observer: Word | None = Field(None, description="minmax, abs_max, moving_average_abs_max, avg, percentile, mse, kl.")
    calib_steps: Count = Field(2, description="On how many batches ranges are measured before training, or once and for all.")
    int4_layers: Annotated[tuple[str, ...], BeforeValidator(_int4)] | None = Field(
        None, description='Layers whose weights have 4 bits: "1_2", a list of numbers, or parts of names.'
    )
    lr_weight: Rate = Field(1e-3, description="The learning rate of weights' scales, where they learn, relative to the scales.")
    lr_input: Rate = Field(1e-3, description="The learning rate of activations' scales, where they learn, relative to the scales.")
    alpha_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="pact: the factor of alpha^2 in the training loss.")

    def bits(self, tensor: str, layer: str) -> int:
        """Return how many bits a tensor of a layer has."""
        if tensor == "weight" and self.int4_layers and any(_in_name(part, layer) for part in self.int4_layers):
            return 4
        target = self._target(tensor)
        if target is not None and target.quant_dtype is not None:
            return int(re.sub(r"\D", "", target.quant_dtype))
        return self.quant_bits.get(tensor, 8) if isinstance(self.quant_bits, dict) else self.quant_bits

    def scheme(self, tensor: str) -> str:
        """Return how a tensor's scales are shared, and whether zero is in the middle."""
        default = "per_channel_symmetric" if tensor == "weight" else "per_tensor_affine"
        target = self._target(tensor)
        if target is not None and target.quant_scheme is not None:
            shared = "per_channel" if target.granularity in ("out_channel", "per_channel") else "per_tensor"
            return f"{shared}_{target.quant_scheme.rpartition('_')[2]}"
        given = self.quant_scheme.get(tensor) if isinstance(self.quant_scheme, dict) else self.quant_scheme
        if given in ("symmetric", "affine"):
            return f"{default.rpartition('_')[0]}_{given}"
        return given or default

    def observes(self, tensor: str) -> str | None:
        """Return the observer that is asked for a tensor, if any."""
        return self.observer.get(tensor) if isinstance(self.observer, dict) else self.observer

    def _target(self, tensor: str) -> QuantTarget | None:
        settings = self.target_settings or {}
        return next((setting for name, setting in settings.items() if _NNI3.get(name, name) == tensor), None)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> QuantSpec:
        for name, setting in (self.target_settings or {}).items():
            _tensor(name)
            if setting.quant_dtype is not None and not re.fullmatch(r"u?int[2-8]", setting.quant_dtype):
                raise problem(f"target_settings.{name}.quant_dtype: {short(setting.quant_dtype)} is no type such as int8 or uint4.")
        for tensor in self.quant_types:
            scheme = self.scheme(tensor)
            if tensor != "weight" and not scheme.startswith("per_tensor"):
                raise problem(f"quant_scheme: {scheme!r} of {tensor}: integer kernels take one scale; use per_tensor_affine.")
            if tensor == "weight" and scheme.endswith("affine"):
                raise problem(f"quant_scheme: {scheme!r} of weights: integer kernels need zero in the middle; use per_channel_symmetric.")
        if self.group_size is not None and self.scheme("weight") != "per_group_symmetric":
            raise problem("group_size needs quant_scheme: {weight: per_group_symmetric}.")
        if self.exclude and self.model_fields_set - Selector.model_fields.keys():
            raise problem("exclude contradicts what the entry says else: an excluded layer is left alone.")
        return self


class PTQSpec(QuantSpec):
    """One entry of post-training quantisation, with what it may do to weights before it rounds them."""

    rounding: Literal["nearest", "gptq", "adaround"] = Field(
        "nearest", description="How weights are rounded; gptq and adaround look at the inputs of linear layers."
    )
    bias_correction: bool = Field(False, description="Correct biases by what rounding takes from the mean output.")
    equalise: bool = Field(False, description="Give layers that follow one another through a ReLU one range in each channel.")
    smooth: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="SmoothQuant's alpha: how much of inputs' outliers moves through a LayerNorm into the weights behind; 0.5."
    )

    search: Annotated[SearchRange | None, BeforeValidator(_range)] = Field(
        None, description="true, or {observers: [...], calib_steps: [...]}: try each pair, and keep what the trainer's metric is best with."
    )

    @property
    def improves(self) -> bool:
        """Whether anything is done to weights but to round them."""
        return self.rounding != "nearest" or self.bias_correction or self.equalise or self.smooth is not None


def _in_name(part: str, layer: str) -> bool:
    """A number is a layer's place among others, a word of its path; anything else a part of its name."""
    return part in re.split(r"[._/]", layer) if part.isdigit() else part in layer
