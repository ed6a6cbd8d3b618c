"""Learn how tokens relate, not where they lie: widths may then differ.

    MiniLM      softmax(Q K^T / sqrt d) and softmax(V V^T / sqrt d) of one layer, head by head
    MiniLMv2    softmax(X X^T / sqrt d) for X = Q, K, V, split into R relation heads, whatever the attention heads are
    PP-MiniLM   the same between heads of a token (HH), and between samples at a token (SS)

Each is the KL of the teacher's relations to the student's: sum over valid rows / (B * R * n_b), n_b the valid tokens of a sample.
Queries, keys and values are `(batch, length, width)`, as they leave their layers: attention need not be recomputed by the model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

from nnc_distillation.rows import at_least_one, given, kl_rows, learned, masked_mean, not_later, only_keys, sizes, weights

#: Queries, keys and values, `(batch, length, width)`; values may be absent where only scores are compared.
Heads = Sequence[Any]


def split(x: Any, heads: int, ops: Any) -> Any:
    """Return `(batch, length, width)` as `(batch, heads, length, width / heads)`."""
    batch, length, width = sizes(x, ops)
    return ops.permute_dims(ops.reshape(x, (batch, length, heads, width // heads)), (0, 2, 1, 3))


def scores(a: Any, b: Any, ops: Any) -> Any:
    """Return the scaled products of rows, a b^T / sqrt(d), of `(..., n, d)`."""
    return ops.matmul(a, ops.matrix_transpose(b)) / sqrt(int(a.shape[-1]))


def attention_scores(query: Any, key: Any, heads: int, ops: Any) -> Any:
    """Return the scores before mask and softmax, `(batch, heads, queries, keys)`, as the model computes them."""
    return scores(split(query, heads, ops), split(key, heads, ops), ops)


def minilm(
    student: Heads,
    teacher: Heads,
    heads: int,
    ops: Any,
    *,
    mask: Any = None,
    temperature: Any = 1.0,
    snip_norm: bool = False,
    attention: bool = True,
    values: bool = True,
    causal: bool = False,
) -> Any:
    """Return the attention transfer plus the value-relation transfer of one layer each, scores divided by `temperature`.

    Wang et al., MiniLM, NeurIPS 2020, arXiv:2002.10957, section 3. `snip_norm` divides by n_b once more. Heads must agree. `causal`
    relates a token to itself and those before it alone.
    """
    pairs = [(0, 1)] * attention + [(2, 2)] * values
    total = None
    for a, b in pairs:
        s, t = (
            scores(split(side[a], heads, ops), split(side[b], heads, ops), ops) / temperature
            for side in (_learned(student, ops), _given(teacher, ops))
        )
        term = _tokens(s, t, mask, ops, snip_norm, causal)
        total = term if total is None else total + term
    return total


def minilmv2(
    student: Heads,
    teacher: Heads,
    relation_heads: int,
    ops: Any,
    *,
    mask: Any = None,
    weight: Sequence[float] = (1.0, 1.0, 1.0),
    alpha: float = 0.0,
    beta: float = 0.0,
    causal: bool = False,
) -> Any:
    """Return the multi-head relation transfer of queries, keys and values, each with its `weight`.

    Wang et al., MiniLMv2, Findings of ACL 2021, arXiv:2012.15828, section 3. `alpha` and `beta` mix in PP-MiniLM's relations between
    heads and between samples: (1 - alpha - beta) TT + alpha HH + beta SS. Those between samples need two of them. `causal` is about TT.
    """
    total = None
    for factor, s, t in zip(weight, _learned(student, ops), _given(teacher, ops), strict=False):
        if factor:
            term = factor * _related(split(s, relation_heads, ops), split(t, relation_heads, ops), mask, alpha, beta, causal, ops)
            total = term if total is None else total + term
    return total


def _related(s: Any, t: Any, mask: Any, alpha: float, beta: float, causal: bool, ops: Any) -> Any:
    """Return the three kinds of relations of one tensor, `(batch, heads, length, d)`, mixed."""
    parts: list[tuple[float, Callable[[], Any]]] = [
        (1 - alpha - beta, lambda: _tokens(scores(s, s, ops), scores(t, t, ops), mask, ops, causal=causal)),
        (alpha, lambda: between_heads(s, t, mask, ops)),
        (beta, lambda: between_samples(s, t, mask, ops)),
    ]
    found = [factor * part() for factor, part in parts if abs(factor) > 1e-12]
    return sum(found[1:], found[0])


def _tokens(s: Any, t: Any, mask: Any, ops: Any, snip_norm: bool = False, causal: bool = False) -> Any:
    """Return the KL of relations `(batch, heads, length, length)`: mean over samples, heads and the valid rows of each sample."""
    if causal:
        seen = not_later(s, ops)
        s, t = only_keys(s, seen, ops), only_keys(t, seen, ops)
    if mask is None:
        mean = ops.mean(kl_rows(s, t, ops))
        return mean / sizes(s, ops)[-1] if snip_norm else mean
    m = weights(mask, ops)  # (batch, length)
    keys = m[:, None, None, :]
    rows = ops.mean(kl_rows(only_keys(s, keys, ops), only_keys(t, keys, ops), ops), axis=1)  # (batch, length)
    count = at_least_one(ops.sum(m, axis=1), ops)  # n_b
    return ops.mean(ops.sum(rows * m, axis=1) / (count * count if snip_norm else count))


def between_heads(s: Any, t: Any, mask: Any, ops: Any) -> Any:
    """Return the KL of the relations of a token's heads, `(batch, length, heads, heads)`: mean over heads and valid tokens."""
    s, t = (ops.permute_dims(x, (0, 2, 1, 3)) for x in (s, t))
    return masked_mean(ops.mean(kl_rows(scores(s, s, ops), scores(t, t, ops), ops), axis=2), mask, ops)


def between_samples(s: Any, t: Any, mask: Any, ops: Any) -> Any:
    """Return the KL of the relations of samples at one token, `(length, heads, batch, batch)`: mean over heads and valid tokens."""
    s, t = (ops.permute_dims(x, (2, 1, 0, 3)) for x in (s, t))
    valid = None if mask is None else ops.matrix_transpose(weights(mask, ops))  # (length, batch)
    keys = None if valid is None else valid[:, None, None, :]
    rows = kl_rows(only_keys(scores(s, s, ops), keys, ops), only_keys(scores(t, t, ops), keys, ops), ops)  # (length, heads, batch)
    return masked_mean(ops.mean(rows, axis=1), valid, ops)


def _learned(side: Heads, ops: Any) -> list[Any]:
    return [x if x is None else learned(x, ops) for x in side]


def _given(side: Heads, ops: Any) -> list[Any]:
    return [x if x is None else given(x, ops) for x in side]
