"""One entry of a config_list that distils: what of the teacher the student learns, and how much it counts.

    {"algorithm": "kl", "temperature": 2, "weight": 10}
    {"algorithm": "mse_hidden_states", "layer_map": [1, 3, 5], "weight": 1}
    {"algorithm": "minilm", "teacher_layer": -1}

    total = task_weight * the user's loss + sum over entries of weight * term

Where the tensors lie is found out (docs/distillation.md), or said: `outputs` of the model, `pairs` of layers, `student_qkv`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StrictStr, WithJsonSchema, model_validator

from nnc_schemas.problems import problem, short
from nnc_schemas.selector import Selector
from nnc_schemas.values import Names


def _positive(meaning: str) -> BeforeValidator:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value) or value <= 0:
            raise problem(f"{short(value)} is not above 0; {meaning}.")
        return float(value)

    return BeforeValidator(check)


def _factor(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not isfinite(value) or value < 0:
        raise problem(f"{short(value)} is not a number of 0 or more; it multiplies a term of the loss.")
    return float(value)


def _outputs(value: Any) -> Any:
    """Accept numbers of outputs beside names, and one alone where a list is meant."""
    given = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [str(key) if isinstance(key, int) and not isinstance(key, bool) else key for key in given]


def _pair(value: Any) -> tuple[str, str]:
    """Accept `["layer1", "layer3"]`, and BMCook's `"[post]layer1:[pre]layer3"`; one name stands for both models."""
    both = value.split(":") if isinstance(value, str) else value
    both = [both[0], both[0]] if isinstance(both, Sequence) and len(both) == 1 else both
    if not isinstance(both, Sequence) or len(both) != 2 or not all(isinstance(name, str) and name for name in both):
        raise problem(f'{short(value)} is no pair; write ["student\'s layer", "teacher\'s layer"] or "[post]student:[pre]teacher".')
    for name in both:
        if name.startswith("[") and not name.startswith(("[post]", "[pre]")):
            raise problem(f"{short(name)}: before a name there may stand [post], its output (the default), or [pre], its input.")
    return both[0], both[1]


def _pairs(value: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):
        value = [value]
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, Sequence) or not pairs:
        raise problem(f'{short(value)} is not a list of pairs such as [["student\'s layer", "teacher\'s layer"]].')
    return tuple(_pair(pair) for pair in pairs)


def _layer_map(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("skip", "last"):
            raise problem(f"{value!r} is neither 'skip' nor 'last' nor a list of layers.")
        return value
    entries = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(entries, Sequence) or not entries or not all(_is_layer(entry) for entry in entries):
        raise problem(f"{short(value)} is no layer map; write the teacher's layer for each of the student's, [1, 3, 5], or pairs.")
    return tuple(entry if isinstance(entry, int) else tuple(entry) for entry in entries)


def _is_layer(entry: Any) -> bool:
    if isinstance(entry, Sequence) and not isinstance(entry, str):
        return len(entry) == 2 and all(isinstance(layer, int) and not isinstance(layer, bool) for layer in entry)
    return isinstance(entry, int) and not isinstance(entry, bool)


_NUMBER = {"type": "number", "exclusiveMinimum": 0}
_KEY = {"type": ["string", "integer"]}
_KEYS = {"anyOf": [_KEY, {"type": "array", "items": _KEY, "minItems": 1}]}
_PAIR = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}]}
_INTEGERS = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
_INTEGER_PAIRS = {"type": "array", "items": {**_INTEGERS, "minItems": 2, "maxItems": 2}, "minItems": 1}

Temperature = Annotated[float, _positive("it divides the logits, or the scores"), WithJsonSchema(_NUMBER)]
Rate = Annotated[float, _positive("it is a learning rate"), WithJsonSchema(_NUMBER)]
Steps = Annotated[float, _positive("it is a number of training steps"), WithJsonSchema(_NUMBER)]
Factor = Annotated[float, BeforeValidator(_factor), WithJsonSchema({"type": "number", "minimum": 0})]
Outputs = Annotated[Names, BeforeValidator(_outputs), WithJsonSchema(_KEYS)]
Pairs = Annotated[tuple[tuple[str, str], ...], BeforeValidator(_pairs), WithJsonSchema({"type": "array", "items": _PAIR, "minItems": 1})]
LayerMap = Annotated[
    tuple[int | tuple[int, int], ...] | Literal["skip", "last"],
    BeforeValidator(_layer_map),
    WithJsonSchema({"anyOf": [{"enum": ["skip", "last"]}, _INTEGERS, _INTEGER_PAIRS]}),
]


class DistillSpec(Selector):
    """What every entry that distils may say."""

    weight: Factor = Field(1.0, description="What the term counts beside the others.")
    task_weight: Factor = Field(1.0, description="What the user's own loss counts; 0: no labels. Several entries' multiply.")
    mask: StrictStr | None = Field(
        None, description="The model's input that is 1 at valid tokens; attention_mask and padding_mask are known by their names."
    )

    @model_validator(mode="after")
    def _selects_no_layers(self) -> DistillSpec:
        given = [key for key in Selector.model_fields if key != "algorithm" and getattr(self, key) is not None]
        if given:
            raise problem(f"{given[0]}: an entry that distils selects no layers; `pairs`, `layer_map` or `outputs` say what it compares.")
        return self


class AnnealedSpec(DistillSpec):
    """An entry whose temperature may fall while training goes on."""

    temperature: Temperature = Field(1.0, description="What logits, or attention scores, are divided by.")
    annealing_T: Temperature | None = Field(  # noqa: N815 - the word that users of such a schedule know
        None, description="The temperature to begin with; in epoch e it is max(1, annealing_T - e)."
    )
    steps_per_epoch: Steps | None = Field(None, description="With annealing_T: the training steps of an epoch.")

    @model_validator(mode="after")
    def _knows_its_epochs(self) -> AnnealedSpec:
        if (self.annealing_T is None) != (self.steps_per_epoch is None):
            raise problem("annealing_T and steps_per_epoch belong together: the temperature falls by 1 in each epoch.")
        if self.annealing_T is not None and "temperature" in self.model_fields_set:
            raise problem("temperature and annealing_T contradict each other: give one.")
        return self


class SoftTargetSpec(AnnealedSpec):
    """kl, reverse_kl, ce_logits: the outputs as probabilities."""

    t2_scaling: StrictBool | None = Field(None, description="Whether T^2 multiplies the term; kl and reverse_kl do so by default.")
    reduction: Literal["batchmean", "mean", "sum"] = Field("batchmean", description="mean divides also by the number of classes.")
    binary: StrictBool = Field(False, description="Whether each logit is a yes or no of its own; a single logit always is.")
    outputs: Outputs | None = Field(None, description="The outputs that are compared, by key or number; none means the logits.")
    teacher_outputs: Outputs | None = Field(None, description="The teacher's outputs, where they are called otherwise.")


class LogitsSpec(DistillSpec):
    """mse_logits: the outputs as numbers."""

    outputs: Outputs | None = Field(None, description="The outputs that are compared, by key or number; none means the logits.")
    teacher_outputs: Outputs | None = Field(None, description="The teacher's outputs, where they are called otherwise.")


class StatesSpec(DistillSpec):
    """An entry that compares vectors of tokens, projected to the teacher's width where it is another."""

    pairs: Pairs | None = Field(None, description='Layers of both models: [["student", "teacher"]] or "[post]student:[pre]teacher".')
    projection: Literal["auto", "shared", "per_layer", "none"] = Field(
        "auto", description="A linear layer from the student's width to the teacher's: auto is one for each pair where widths differ."
    )
    projection_lr: Rate | None = Field(None, description="The learning rate of the projections; 1e-3 if not given.")
    normalise: StrictBool = Field(False, description="Whether vectors are divided by their mean length first.")


class LayeredStatesSpec(StatesSpec):
    """mse_hidden_states, cos_hidden_states."""

    layer_map: LayerMap | None = Field(None, description="The teacher's layer for each of the student's, from 0; or pairs of them.")

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> LayeredStatesSpec:
        if self.pairs is not None and self.layer_map is not None:
            raise problem("pairs and layer_map contradict each other: give one.")
        return self


_CAUSAL = "Whether tokens see only themselves and those before them, as in a GPT: later ones then count nowhere."


class ScoresSpec(DistillSpec):
    """mse_attention."""

    pairs: Pairs | None = Field(None, description="Layers that give attention scores, where they are not to be recomputed.")
    layer_map: LayerMap | None = Field(None, description="The teacher's layer for each of the student's, from 0; or pairs of them.")
    causal: StrictBool = Field(False, description=_CAUSAL)


class PKDSpec(DistillSpec):
    """pkd."""

    pairs: Pairs | None = Field(None, description="Layers of both models, instead of a layer map.")
    layer_map: LayerMap = Field("skip", description="skip, last, or the teacher's layer for each of the student's.")
    position: StrictInt = Field(0, description="The token that is compared.")


class TinyBERTSpec(StatesSpec):
    """tinybert."""

    projection: Literal["auto", "shared", "per_layer", "none"] = Field(
        "shared", description="shared: one projection for all hidden states, as first published; per_layer: as in its second version."
    )
    stage: Literal[1, 2] | None = Field(None, description="1: attention, hidden states, embeddings; 2: predictions; none: all of them.")
    layer_map: LayerMap | None = Field(None, description="The teacher's layer for each of the student's, from 0.")
    temperature: Temperature = Field(1.0, description="What the logits are divided by.")
    outputs: Outputs | None = Field(None, description="The outputs that are compared, by key or number; none means the logits.")
    teacher_outputs: Outputs | None = Field(None, description="The teacher's outputs, where they are called otherwise.")

    @model_validator(mode="after")
    def _has_its_own_pairs(self) -> TinyBERTSpec:
        if self.pairs is not None:
            raise problem("pairs: tinybert finds its tensors by layer; use mse_hidden_states and mse_attention for pairs of your own.")
        return self


class RelationSpec(AnnealedSpec):
    """minilm, and what minilmv2 shares with it."""

    student_layer: StrictInt = Field(-1, description="The student's attention layer, from 0; -1 is the last.")
    teacher_layer: StrictInt = Field(-1, description="The teacher's attention layer, from 0; -1 is the last.")
    student_qkv: Names | None = Field(None, description="The layers that give queries, keys and values, where they are not found.")
    teacher_qkv: Names | None = Field(None, description="Those of the teacher.")
    heads: StrictInt | None = Field(None, gt=0, description="With student_qkv: the number of attention heads.")
    causal: StrictBool = Field(False, description=_CAUSAL)

    @model_validator(mode="after")
    def _three_names(self) -> RelationSpec:
        for key in ("student_qkv", "teacher_qkv"):
            names = getattr(self, key)
            if names is not None and len(names) != 3:
                raise problem(f"{key}: {short(list(names))} are not three layers: of queries, keys and values.")
        if (self.student_qkv is None) != (self.teacher_qkv is None):
            raise problem("student_qkv and teacher_qkv belong together.")
        return self


class MiniLMSpec(RelationSpec):
    """minilm."""

    parts: tuple[Literal["attention", "value"], ...] = Field(("attention", "value"), min_length=1, description="What is transferred.")
    snip_norm: StrictBool = Field(False, description="Whether each sample is divided by its length once more.")


class MiniLMv2Spec(RelationSpec):
    """minilmv2."""

    relation_heads: StrictInt | None = Field(None, gt=0, description="Heads that relations are split into; none means the student's.")
    relation_weights: tuple[Factor, Factor, Factor] = Field((1.0, 1.0, 1.0), description="What relations of Q, K and V count.")
    alpha: Factor = Field(0.0, description="The share of relations between heads (PP-MiniLM).")
    beta: Factor = Field(0.0, description="The share of relations between samples (PP-MiniLM).")

    @model_validator(mode="after")
    def _shares(self) -> MiniLMv2Spec:
        if self.alpha + self.beta > 1:
            raise problem(f"alpha and beta are shares of the whole; {self.alpha} and {self.beta} are more than 1.")
        return self
