"""Entries that quantise: which tensors of a layer, on which grid, found or learned how.

    {"algorithm": "ptq", "op_types": ["Linear", "Conv2d"]}                             int8 weights and inputs
    {"algorithm": "qat_lsq", "quant_types": ["weight"], "quant_bits": 4}               4-bit weights, scales learned
    {"algorithm": "qat_ste", "int4_layers": "1_2"}                                     layers 1 and 2 in 4 bits, the others in 8
    {"algorithm": "ptq", "quant_dtype": "int4", "target_names": ["weight"]}            NNI 3's shortcuts

The keys are those of NNI 2.10 and of NNI 3; where both have a word for one idea, both words are valid.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from nnc_schemas.problems import nearest_key, problem, short
from nnc_schemas.selector import Selector
from nnc_schemas.values import Batches, Sharing

TENSORS = ("weight", "input", "output", "bias")
#: What an entry quantises that does not say.
_USUAL = ("weight", "input")
#: The keys of an entry that may have a value for each tensor.
_BY_TENSOR = ("quant_bits", "quant_dtype", "quant_scheme", "observer", "target_settings")
#: Paddle's word for what weights do by default: the largest |w| of each output channel.
CHANNELWISE = "channel_wise_abs_max"
DTYPES = ("int", "uint", *(f"{sign}int{bits}" for bits in range(8, 1, -1) for sign in ("", "u")))
SCHEMES = ("per_tensor_symmetric", "per_tensor_affine", "per_channel_symmetric", "per_group_symmetric", "symmetric", "affine")
_NNI3 = {"_input_": "input", "_output_": "output"}
_GRANULARITIES = {"per_tensor": "per_tensor", "out_channel": "per_channel", "per_channel": "per_channel"}
_WITHIN = ("op_types", "op_names", "op_partial_names", "op_names_re")


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
        raise problem(f"{short(value)} is outside 2 to 8; it is how many bits a number has (1: weights of qat_bnn and qat_dorefa).")
    return value


def _each(value: Any, read: Any) -> Any:
    """Read one value for all tensors, or one for each."""
    return {_tensor(key): read(item) for key, item in value.items()} if isinstance(value, Mapping) else read(value)


def _scheme(value: Any) -> str:
    if value not in SCHEMES:
        raise problem(f"{short(value)} is no scheme{nearest_key(str(value), SCHEMES)}. Known are {', '.join(SCHEMES)}.")
    return str(value)


def _dtype(value: Any) -> str:
    if value not in DTYPES:
        raise problem(f"{short(value)} is no type of whole numbers{nearest_key(str(value), DTYPES)}. Known are {', '.join(DTYPES)}.")
    return str(value)


def _granularity(value: Any) -> str | None:
    known = ("default", *_GRANULARITIES)
    if value is not None and value not in known:
        reason = f"is none of {', '.join(known)}{nearest_key(str(value), known)}; integer kernels have a scale for each tensor or output"
        raise problem(f"{short(value)} {reason}.")
    return None if value == "default" else value


def _int4(value: Any) -> Any:
    """Accept "1_2", [1, 2], parts of layers' names, and a selector."""
    if isinstance(value, Mapping):
        return _selector(value)
    parts = [value] if isinstance(value, str | int) else value
    if isinstance(value, str) and re.fullmatch(r"\d+(_\d+)*", value):
        parts = value.split("_")
    known = isinstance(parts, Sequence) and all(isinstance(part, int | str) and not isinstance(part, bool) for part in parts)
    if not known or not parts or "" in parts:
        raise problem(f'{short(value)} names no layers; write "1_2", [1, 2], parts of names, or a selector as {{"op_types": ["Linear"]}}.')
    return tuple(str(part) for part in parts)


def _selector(value: Mapping[str, Any]) -> Selector:
    unknown = next((key for key in value if key not in _WITHIN), None)
    if unknown is not None:
        raise problem(f"{unknown!r} selects no layers{nearest_key(str(unknown), _WITHIN)}. Known are {', '.join(_WITHIN)}.")
    if not value:
        raise problem(f"the selector is empty; write one of {', '.join(_WITHIN)}.")
    try:
        return Selector(**value)
    except ValidationError as error:
        found = error.errors()[0]
        raise problem(f"{found['loc'][0]}: {found['msg']}") from None


Tensors = Annotated[tuple[str, ...], BeforeValidator(_tensors)]
Bits = Annotated[int | dict[str, int], BeforeValidator(lambda value: _each(value, _bits))]
Scheme = Annotated[str | dict[str, str], BeforeValidator(lambda value: _each(value, _scheme))]
Word = Annotated[str | dict[str, str], BeforeValidator(lambda value: _each(value, str))]
Dtype = Annotated[str | dict[str, str], BeforeValidator(lambda value: _each(value, _dtype))]
Granularity = Annotated[Literal["per_tensor", "out_channel", "per_channel"] | None, BeforeValidator(_granularity)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _range(value: Any) -> Any:
    """Accept True and False beside the keys of a range."""
    return ({} if value else None) if isinstance(value, bool) else value


def _listed(value: Any) -> Any:
    """Accept one where a list is meant."""
    return (value,) if isinstance(value, str | int) else value


class SearchRange(BaseModel):
    """What a search tries: every observer on every number of batches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    observers: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_listed)] = ("minmax", "avg", "percentile", "mse", "kl")
    calib_steps: Annotated[tuple[Batches, ...], Field(min_length=1), BeforeValidator(_listed)] = (1, 4, 16)


class QuantTarget(BaseModel):
    """NNI 3's settings of one tensor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quant_dtype: Annotated[str, BeforeValidator(_dtype)] | None = Field(
        None, description='"int8", "uint8", "int4": the bits; whether signed follows from the tensor.'
    )
    quant_scheme: Annotated[str, BeforeValidator(_scheme)] | None = Field(None, description="symmetric or affine.")
    granularity: Granularity = Field(None, description="What shares a scale.")


class QuantSpec(Selector):
    """One entry that quantises. Read a tensor's settings through `bits`, `scheme` and `observes`: they know every spelling."""

    quant_types: Tensors | None = Field(
        None, description="The tensors to quantise: weight, input, output, bias. Default: weight, input, and what else has settings here."
    )
    target_names: Tensors | None = Field(None, description="NNI 3's word for quant_types: weight, _input_, _output_, bias.")
    quant_bits: Bits = Field(8, description="2 to 8, or a number for each tensor: {weight: 4, input: 8}.")
    quant_dtype: Dtype | None = Field(
        None, description='NNI 3\'s "int8" or "uint4" says the bits; whether signed, as in NNI 2\'s "int", integer kernels decide.'
    )
    quant_scheme: Scheme | None = Field(None, description="Default: weights per_channel_symmetric, activations per_tensor_affine.")
    granularity: Granularity = Field(None, description="NNI 3's word for what shares a scale: per_tensor, out_channel.")
    target_settings: dict[str, QuantTarget] | None = Field(None, description="NNI 3's settings by tensor: weight, _input_, _output_.")
    group_size: Sharing | None = Field(None, description="per_group_symmetric: how many inputs of a weight share a scale.")
    observer: Word | None = Field(
        None, description="Of activations: minmax, abs_max, moving_average_abs_max, avg, percentile, mse, kl; {weight: mse} of weights."
    )
    calib_steps: Batches = Field(2, description="On how many batches ranges are measured before training, or once and for all.")
    int4_layers: Annotated[tuple[str, ...] | Selector, BeforeValidator(_int4)] | None = Field(
        None, description='Layers whose weights have 4 bits: "1_2", a list of numbers, parts of names, or a selector.'
    )
    lr_weight: Rate = Field(1e-3, description="The learning rate of weights' scales, where they learn, relative to the scales.")
    lr_input: Rate = Field(1e-3, description="The learning rate of activations' scales, where they learn, relative to the scales.")
    alpha_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="pact: the factor of alpha^2 in the training loss.")

    @property
    def tensors(self) -> tuple[str, ...]:
        """The tensors to quantise, however they were named."""
        named = self.quant_types or self.target_names
        return named or (*_USUAL, *(tensor for tensor in TENSORS if tensor in self._set_by() and tensor not in _USUAL))

    def bits(self, tensor: str, int4: bool = False) -> int:
        """Return how many bits a tensor has; `int4` says that its layer is among `int4_layers`."""
        if tensor == "weight" and int4:
            return 4
        target = self._target(tensor)
        by_type = _bits_of(target.quant_dtype if target is not None else None) or _bits_of(_of(self.quant_dtype, tensor))
        return by_type or _of(self.quant_bits, tensor) or 8

    def scheme(self, tensor: str) -> str:
        """Return how a tensor's scales are shared, and whether zero is in the middle."""
        default = "per_channel_symmetric" if tensor == "weight" else "per_tensor_affine"
        target = self._target(tensor)
        by_target = target.quant_scheme if target is not None else None
        given = by_target or _of(self.quant_scheme, tensor) or default
        sharing, _, zero = given.rpartition("_")
        # NNI 3 shares one scale where it says no more than "symmetric" of a target.
        sharing = sharing or ("per_tensor" if by_target else default.rpartition("_")[0])
        granularity = (target.granularity if target is not None else None) or self.granularity
        return f"{_GRANULARITIES.get(str(granularity), sharing)}_{zero}"

    @property
    def block(self) -> int:
        """How many inputs of a weight share a scale, 0 where its output or all of it has one."""
        return (self.group_size or 32) if self.scheme("weight") == "per_group_symmetric" else 0

    def observes(self, tensor: str) -> str | None:
        """Return the observer that is asked for a tensor, if any.

        A plain name means activations, and weights only where they alone are quantised; one that says channel means weights always.
        """
        if isinstance(self.observer, dict):
            return self.observer.get(tensor)
        of_weights = self.observer == CHANNELWISE or self.tensors == ("weight",)
        return self.observer if of_weights == (tensor == "weight") else None

    def _names_tensors_once(self) -> None:
        named, again = self.quant_types, self.target_names
        if named is not None and again is not None and set(named) != set(again):
            raise problem(f"target_names: {list(again)} are not quant_types, {list(named)}; name the tensors once.")
        for tensor, key in self._set_by().items():
            if tensor not in self.tensors:
                word = "quant_types" if again is None else "target_names"
                raise problem(f"{key}: it sets {tensor}, which {word}, {list(self.tensors)}, leaves alone; name it there, or leave it out.")
        if "bias" in self.tensors and not {"weight", "input"} <= set(self.tensors):
            raise problem("quant_types: a bias is a whole number on the grid of weight times input; name weight and input with it.")
        for tensor in self.tensors:
            by_type, bits = _bits_of(_of(self.quant_dtype, tensor)), _of(self.quant_bits, tensor)
            if by_type and bits and "quant_bits" in self.model_fields_set and by_type != bits:
                raise problem(f"quant_dtype: {_of(self.quant_dtype, tensor)!r} of {tensor} has not the {bits} bits of quant_bits; say one.")

    def _set_by(self) -> dict[str, str]:
        """Return the tensors that have settings of their own, each with the last key that has one."""
        return {
            _NNI3.get(name, name): key
            for key in _BY_TENSOR
            for name in (getattr(self, key) if isinstance(getattr(self, key), dict) else ())
        }

    def _target(self, tensor: str) -> QuantTarget | None:
        settings = self.target_settings or {}
        return next((setting for name, setting in settings.items() if _NNI3.get(name, name) == tensor), None)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> QuantSpec:
        for name in self.target_settings or {}:
            _tensor(name)
        self._names_tensors_once()
        for tensor in self.tensors:
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

    @model_validator(mode="after")
    def _rounds_weights(self) -> PTQSpec:
        asked = "rounding" if self.rounding != "nearest" else "bias_correction"
        if "weight" not in self.tensors and (self.rounding != "nearest" or self.bias_correction):
            raise problem(f"{asked}: it is about rounded weights, and the entry quantises {list(self.tensors)}; name weight there too.")
        return self

    @property
    def improves(self) -> bool:
        """Whether anything is done to weights but to round them."""
        return self.rounding != "nearest" or self.bias_correction or self.equalise or self.smooth is not None


def _of(values: Any, tensor: str) -> Any:
    """Return a tensor's own of values that are one for each, else what is for all."""
    return values.get(tensor) if isinstance(values, dict) else values


def _bits_of(dtype: str | None) -> int:
    """Return how many bits a type has, 0 where it leaves them open."""
    return int(re.sub(r"\D", "", dtype or "") or 0)


def in_name(part: str, layer: str) -> bool:
    """A number is a layer's place among others, a word of its path; anything else a part of its name."""
    return part in re.split(r"[._/]", layer) if part.isdigit() else part in layer
