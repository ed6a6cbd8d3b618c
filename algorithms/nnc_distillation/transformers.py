"""Methods made for transformers: TinyBERT's bundle of losses, MiniLM and MiniLMv2."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nnc.adapter import Ops
from nnc.errors import ConfigError
from nnc.views import Site
from nnc_distillation import relations, soft_targets
from nnc_distillation.attention import Attention
from nnc_distillation.distiller import Comparing
from nnc_distillation.layer_maps import within
from nnc_distillation.objective import Comparison
from nnc_distillation.outputs import compared, output_pairs
from nnc_distillation.sources import Side, Source
from nnc_distillation.states import (
    PROJECTS,
    embedding_pair,
    found_attentions,
    hidden_pairs,
    mean_square,
    require_same_heads,
    scores,
    states,
)
from nnc_schemas.distill import MiniLMSpec, MiniLMv2Spec, RelationSpec, TinyBERTSpec


class TinyBERT(Comparing):
    """Attention scores, hidden states, embeddings (stage 1) and predictions (stage 2) of a BERT. Jiao et al., arXiv:1909.10351."""

    name = "tinybert"
    spec = TinyBERTSpec

    def comparisons(self, spec: TinyBERTSpec) -> list[Comparison]:
        ours, theirs = self.student_side, self.teacher_side
        found: list[Comparison] = []
        if spec.stage in (None, 1):
            loss, shared = mean_square(spec), PROJECTS[spec.projection]
            found += scores(ours, theirs, spec.layer_map, spec.place)
            found += states(ours, theirs, hidden_pairs(ours, theirs, spec.layer_map, spec.place), spec, loss, "hidden", shared)
            # The embeddings have a projection of their own (W_e), the hidden states share theirs (W_h).
            found += states(ours, theirs, embedding_pair(ours, theirs, spec.place), spec, loss, "embeddings")
        if spec.stage in (None, 2):
            found += compared(output_pairs(ours, theirs, spec), _predictions, spec.place, "prediction")
        return found


def _predictions(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
    return soft_targets.ce_logits(s[0], t[0], ops, temperature=temperature, mask=mask)


def chosen(side: Side, layer: int, qkv: Sequence[str] | None, spec: RelationSpec, key: str) -> Attention:
    """Return the attention that an entry means: the numbered one, or that of three layers that it names."""
    if qkv is None:
        found = found_attentions(side, spec.place)
        return found[within(layer, len(found), side.role, f"{spec.place}.{key}")]
    if spec.heads is None:
        raise ConfigError(f"{spec.place}.heads: is missing; with {side.role}_qkv it says how many attention heads there are.")
    q, k, v = (Site(name) for name in qkv)
    shapes = side.shapes([q, k, v])
    # Tokens are the second axis; what is behind it, heads and their width or both in one, makes up the width.
    widths = (prod(shapes[q][2:]), prod(shapes[k][2:]), prod(shapes[v][2:]))
    return Attention(qkv[0], Source(q, tokens=True), Source(k, tokens=True), Source(v, tokens=True), spec.heads, widths)


class _Relations(Comparing):
    def both(self, spec: RelationSpec) -> tuple[Attention, Attention]:
        """Return the two attentions that an entry compares."""
        ours = chosen(self.student_side, spec.student_layer, spec.student_qkv, spec, "student_layer")
        return ours, chosen(self.teacher_side, spec.teacher_layer, spec.teacher_qkv, spec, "teacher_layer")


class MiniLM(_Relations):
    """KL of attention distributions and of value relations of one layer, the last. Wang et al., NeurIPS 2020, arXiv:2002.10957."""

    name = "minilm"
    spec = MiniLMSpec

    def comparisons(self, spec: MiniLMSpec) -> list[Comparison]:
        ours, theirs = self.both(spec)
        require_same_heads(ours, theirs, spec.place)
        for each in (ours, theirs):
            if each.widths[0] != each.widths[1]:
                widths = f"queries of {each.layer} have {each.widths[0]} features, keys {each.widths[1]}"
                raise ConfigError(f"{spec.place}: {widths}; their products need equal ones. minilmv2 compares each with itself.")
        _require_split((ours, theirs), ours.heads, f"{spec.place}.heads")
        return [Comparison(part, ours.sources, theirs.sources, _transfer(spec, ours.heads, part)) for part in dict.fromkeys(spec.parts)]


def _transfer(spec: MiniLMSpec, heads: int, part: str) -> Any:
    def loss(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
        how = {"attention": part == "attention", "values": part == "value", "snip_norm": spec.snip_norm, "causal": spec.causal}
        return relations.minilm(s, t, heads, ops, mask=mask, temperature=temperature, **how)

    return loss


class MiniLMv2(_Relations):
    """KL of query, key and value relations of one layer, in heads of their own number. Wang et al., ACL 2021, arXiv:2012.15828."""

    name = "minilmv2"
    spec = MiniLMv2Spec

    def comparisons(self, spec: MiniLMv2Spec) -> list[Comparison]:
        ours, theirs = self.both(spec)
        heads = spec.relation_heads or ours.heads
        _require_split((ours, theirs), heads, f"{spec.place}.relation_heads")

        def loss(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
            how: dict[str, Any] = {"weight": spec.relation_weights, "alpha": spec.alpha, "beta": spec.beta, "causal": spec.causal}
            return relations.minilmv2(s, t, heads, ops, mask=mask, **how)

        return [Comparison("relations", ours.sources, theirs.sources, loss)]


def _require_split(both: Sequence[Attention], heads: int, place: str) -> None:
    widths = sorted({width for each in both for width in each.widths})
    if any(width % heads for width in widths):
        raise ConfigError(f"{place}: {heads} heads do not divide the widths {widths} of queries, keys and values.")
