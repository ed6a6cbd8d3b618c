"""Methods that compare representations: each is a loss of hidden.py over pairs of sites, found by block or named by the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnc.adapter import Ops
from nnc.errors import ConfigError
from nnc.views import Site
from nnc_distillation import hidden, relations
from nnc_distillation.attention import Attention
from nnc_distillation.distiller import Comparing
from nnc_distillation.layer_maps import pairs as mapped
from nnc_distillation.objective import Comparison, Loss, Projection
from nnc_distillation.sources import Side, SitePairs, Source, require_same_shapes
from nnc_schemas.distill import LayeredStatesSpec, PKDSpec, ScoresSpec, StatesSpec


def named(spec: StatesSpec | PKDSpec | ScoresSpec, student: Side, teacher: Side) -> SitePairs:
    """Return the sites of the pairs that an entry names; `[pre]` is a layer's input, `[post]`, or nothing, its output.

    Raises `ConfigError` for a layer that is not there.
    """
    found = [(_site(ours), _site(theirs)) for ours, theirs in spec.pairs or ()]
    for side, sites in ((student, [s for s, _ in found]), (teacher, [t for _, t in found])):
        try:
            side.shapes(sites)
        except ConfigError as error:
            raise ConfigError(f"{spec.place}.pairs: {error}") from None
    return found


def _site(name: str) -> Site:
    return Site(name.removeprefix("[pre]"), "input") if name.startswith("[pre]") else Site(name.removeprefix("[post]"))


def blocks(side: Side, place: str) -> list[str]:
    """Return a model's repeated blocks. Raises `ConfigError` where there are none."""
    if not side.blocks:
        raise ConfigError(f"{place}: the {side.role} has no repeated blocks, as layer.0, layer.1, ...: name what to compare with pairs.")
    return side.blocks


def hidden_pairs(student: Side, teacher: Side, layer_map: Any, place: str) -> SitePairs:
    """Return the outputs of blocks that a layer map brings together."""
    ours, theirs = blocks(student, place), blocks(teacher, place)
    return [(Site(ours[s]), Site(theirs[t])) for s, t in mapped(layer_map, len(ours), len(theirs), f"{place}.layer_map")]


def embedding_pair(student: Side, teacher: Side, place: str) -> SitePairs:
    """Return what enters the first block of each model."""
    return [(Site(blocks(student, place)[0], "input"), Site(blocks(teacher, place)[0], "input"))]


def states(student: Side, teacher: Side, pairs: SitePairs, spec: Any, loss: Loss, term: str, shared: str = "") -> list[Comparison]:
    """Return comparisons of vectors, projected where widths differ; those with a `shared` name share one projection.

    Raises `ConfigError` that names the shapes where they differ in more than the width.
    """
    ours, theirs = student.shapes([s for s, _ in pairs]), teacher.shapes([t for _, t in pairs])
    found = []
    for number, (s, t) in enumerate(pairs):
        projection = _projection(ours[s], theirs[t], spec, shared or f"{term}_{number}", f"the student's {s}", f"the teacher's {t}")
        found.append(Comparison(term, (Source(s),), (Source(t),), loss, projection))
    _require_one_size([each.projection for each in found if each.projection], shared, spec.place)
    return found


def _require_one_size(projections: Sequence[Projection], shared: str, place: str) -> None:
    widths = sorted({(each.student, each.teacher) for each in projections})
    if shared and len(widths) > 1:
        listed = ", ".join(f"{student} -> {teacher}" for student, teacher in widths)
        raise ConfigError(f"{place}.projection: 'shared' is one for all pairs, and their widths differ: {listed}; use 'auto'.")


def _projection(ours: Any, theirs: Any, spec: Any, name: str, student: str, teacher: str) -> Projection | None:
    if ours == theirs and spec.projection in ("auto", "shared", "none"):
        return None
    shapes = f"{spec.place}: {student} is {ours}, {teacher} is {theirs}"
    if ours[:-1] != theirs[:-1] or len(ours) < 2:
        raise ConfigError(f"{shapes}; they may differ in the last axis only, which a projection then brings together.")
    if spec.projection == "none":
        raise ConfigError(f"{shapes}; widths that differ need a projection: leave projection out.")
    return Projection(name, ours[-1], theirs[-1])


def mean_square(spec: Any) -> Loss:
    """Return the loss that an entry's `normalise` asks for."""
    function = hidden.normalised_mse if spec.normalise else hidden.mse

    def loss(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
        return function(s[0], t[0], ops, mask=mask)

    return loss


def _cosine(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
    return hidden.cosine(s[0], t[0], ops, mask=mask)


class MSELastHidden(Comparing):
    """The mean square between what leaves the last blocks, projected where the widths differ."""

    name = "mse_last_hidden"
    spec = StatesSpec

    def comparisons(self, spec: StatesSpec) -> list[Comparison]:
        ours, theirs = self.student_side, self.teacher_side
        pairs = named(spec, ours, theirs) if spec.pairs else [(Site(blocks(ours, spec.place)[-1]), Site(blocks(theirs, spec.place)[-1]))]
        return states(ours, theirs, pairs, spec, mean_square(spec), "last_hidden", PROJECTS[spec.projection])


class MSEHiddenStates(Comparing):
    """The mean squares between what leaves blocks that a layer map pairs, summed. Romero et al., FitNets, arXiv:1412.6550."""

    name = "mse_hidden_states"
    spec = LayeredStatesSpec

    def comparisons(self, spec: LayeredStatesSpec) -> list[Comparison]:
        return layered(self.student_side, self.teacher_side, spec, mean_square(spec))


class CosHiddenStates(Comparing):
    """1 - cos between what leaves blocks that a layer map pairs, summed. Sanh et al., DistilBERT, arXiv:1910.01108."""

    name = "cos_hidden_states"
    spec = LayeredStatesSpec

    def comparisons(self, spec: LayeredStatesSpec) -> list[Comparison]:
        return layered(self.student_side, self.teacher_side, spec, _cosine)


def layered(student: Side, teacher: Side, spec: LayeredStatesSpec, loss: Loss) -> list[Comparison]:
    """Return comparisons of the pairs that an entry names, or of the blocks that its layer map pairs."""
    pairs = named(spec, student, teacher) if spec.pairs else hidden_pairs(student, teacher, spec.layer_map, spec.place)
    return states(student, teacher, pairs, spec, loss, "hidden", PROJECTS[spec.projection])


#: What projections of one entry are called: all of them alike where they are one.
PROJECTS = {"auto": "", "per_layer": "", "none": "", "shared": "shared"}


class MSEEmbeddings(Comparing):
    """The mean square between what enters the first blocks, projected where the widths differ."""

    name = "mse_embeddings"
    spec = StatesSpec

    def comparisons(self, spec: StatesSpec) -> list[Comparison]:
        ours, theirs = self.student_side, self.teacher_side
        pairs = named(spec, ours, theirs) if spec.pairs else embedding_pair(ours, theirs, spec.place)
        return states(ours, theirs, pairs, spec, mean_square(spec), "embeddings", PROJECTS[spec.projection])


class PKD(Comparing):
    """Squared distances between normalised vectors of the first token, at every r-th layer or the last ones. arXiv:1908.09355."""

    name = "pkd"
    spec = PKDSpec

    def comparisons(self, spec: PKDSpec) -> list[Comparison]:
        ours, theirs = self.student_side, self.teacher_side
        pairs = named(spec, ours, theirs) if spec.pairs else hidden_pairs(ours, theirs, spec.layer_map, spec.place)
        remedy = "pkd compares them as they are: use mse_hidden_states, which projects"
        require_same_shapes(ours, theirs, pairs, spec.place, remedy)
        for site, shape in ours.shapes([s for s, _ in pairs]).items():
            if len(shape) == 3 and not -shape[1] <= spec.position < shape[1]:
                raise ConfigError(f"{spec.place}.position: {spec.position} is no token of {site}, which has {shape[1]} of them.")

        def loss(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
            return hidden.pkd(s[0], t[0], ops, position=spec.position)

        return [Comparison("hidden", (Source(s),), (Source(t),), loss) for s, t in pairs]


class MSEAttention(Comparing):
    """The mean squares between attention scores before the softmax, recomputed from queries and keys, summed over layers."""

    name = "mse_attention"
    spec = ScoresSpec

    def comparisons(self, spec: ScoresSpec) -> list[Comparison]:
        if spec.pairs:
            pairs = named(spec, self.student_side, self.teacher_side)
            require_same_shapes(self.student_side, self.teacher_side, pairs, spec.place, "scores are compared one by one")
            return [Comparison("attention", (Source(s),), (Source(t),), _given_scores(spec.causal), tokens=2) for s, t in pairs]
        return scores(self.student_side, self.teacher_side, spec.layer_map, spec.place, spec.causal)


def found_attentions(side: Side, place: str) -> list[Attention]:
    """Return a model's attentions. Raises `ConfigError` where there are none, or one cannot be read."""
    found = side.attentions
    if not found:
        raise ConfigError(f"{place}: no attention is found in the {side.role}: no softmax stands between two products of activations.")
    for each in found:
        if not isinstance(each, Attention):
            raise ConfigError(f"{place}: the queries, keys and values of the {side.role}'s {each.layer} cannot be tapped: {each.reason}.")
    return [each for each in found if isinstance(each, Attention)]


def scores(student: Side, teacher: Side, layer_map: Any, place: str, causal: bool = False) -> list[Comparison]:
    """Return comparisons of the attention scores of layers that a map pairs. Raises `ConfigError` where heads differ."""
    ours, theirs = found_attentions(student, place), found_attentions(teacher, place)
    found = []
    for s, t in mapped(layer_map, len(ours), len(theirs), f"{place}.layer_map"):
        require_same_heads(ours[s], theirs[t], place)
        found.append(Comparison("attention", ours[s].sources[:2], theirs[t].sources[:2], _recomputed(ours[s].heads, causal)))
    return found


def require_same_heads(student: Attention, teacher: Attention, place: str) -> None:
    if student.heads != teacher.heads:
        heads = f"the student's {student.layer} has {student.heads} heads, the teacher's {teacher.layer} {teacher.heads}"
        raise ConfigError(f"{place}: {heads}; they are compared head by head. minilmv2 splits both into relation heads of one number.")


def _recomputed(heads: int, causal: bool) -> Loss:
    def loss(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
        ours, theirs = (relations.attention_scores(query, key, heads, ops) for query, key in (s, t))
        return hidden.mse_scores(ours, theirs, ops, mask=mask, causal=causal)

    return loss


def _given_scores(causal: bool) -> Loss:
    def loss(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
        return hidden.mse_scores(s[0], t[0], ops, mask=mask, causal=causal)

    return loss
