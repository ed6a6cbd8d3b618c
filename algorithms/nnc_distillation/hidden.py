"""Learn the teacher's representations: hidden states, embeddings, attention scores.

    mse           mean (P h_s - h_t)^2           P a learned projection where the widths differ
    normalised    the same of h / mean ||h||     BMCook's variant: no scale to agree on
    cosine        mean 1 - cos(P h_s, h_t)
    PKD           mean || h_s/||h_s|| - h_t/||h_t|| ||^2 of the first token

Hidden states are `(batch, length, width)`; tokens that the mask leaves out do not count.
"""

from __future__ import annotations

from typing import Any

from nnc_distillation.rows import given, learned, masked_mean, not_later, per_token, weights

#: Scores at or below it are masked: no score is so low, and every mask that models add is lower.
_MASKED = -1e2
_TINY = 1e-8


def projected(x: Any, matrix: Any, bias: Any, ops: Any) -> Any:
    """Return `x` `(..., D_s)` in the teacher's width: a linear layer of a `matrix` `(D_t, D_s)` and a `bias` `(D_t,)`."""
    return ops.matmul(learned(x, ops), ops.matrix_transpose(matrix)) + bias


def mse(student: Any, teacher: Any, ops: Any, *, mask: Any = None) -> Any:
    """Return the mean of squared differences over the width and the valid tokens."""
    rows = ops.mean(ops.square(learned(student, ops) - given(teacher, ops)), axis=-1)
    return masked_mean(rows, per_token(student, mask), ops)


def normalised_mse(student: Any, teacher: Any, ops: Any, *, mask: Any = None) -> Any:
    """Return the mse of both divided by the mean length of their (valid) vectors."""
    return mse(_unit_mean(learned(student, ops), mask, ops), _unit_mean(given(teacher, ops), mask, ops), ops, mask=mask)


def _unit_mean(x: Any, mask: Any, ops: Any) -> Any:
    return x / (masked_mean(_length(x, ops), per_token(x, mask), ops) + _TINY)


def _length(x: Any, ops: Any) -> Any:
    """Return the Euclidean norm over the last axis; its gradient is finite at 0."""
    return ops.sqrt(ops.sum(ops.square(x), axis=-1) + _TINY**2)


def cosine(student: Any, teacher: Any, ops: Any, *, mask: Any = None) -> Any:
    """Return the mean of 1 - cos of the angle between the two vectors of each valid token."""
    s, t = learned(student, ops), given(teacher, ops)
    angle = ops.sum(s * t, axis=-1) / (_length(s, ops) * _length(t, ops))
    return masked_mean(1 - angle, per_token(student, mask), ops)


def pkd(student: Any, teacher: Any, ops: Any, *, position: int = 0) -> Any:
    """Return the mean over the batch of the squared distance between the two normalised vectors of one token, the first.

    Sun et al., Patient Knowledge Distillation, EMNLP 2019, arXiv:1908.09355, equation 7. Normalised over the width.
    """
    s, t = (x[:, position] if len(x.shape) == 3 else x for x in (learned(student, ops), given(teacher, ops)))
    difference = s / ops.expand_dims(_length(s, ops), axis=-1) - t / ops.expand_dims(_length(t, ops), axis=-1)
    return ops.mean(ops.sum(ops.square(difference), axis=-1))


def mse_scores(student: Any, teacher: Any, ops: Any, *, mask: Any = None, causal: bool = False) -> Any:
    """Return the mean of squared differences of attention scores before the softmax, `(batch, heads, queries, keys)`.

    Pairs of which either token is padding are left out, and so are entries that a model itself has masked (-inf, or -1e2 and less), and
    with `causal` keys that are later than the query.
    """
    s, t = learned(student, ops), given(teacher, ops)
    valid = ops.astype(ops.logical_and(s > _MASKED, t > _MASKED), ops.float32)
    if mask is not None:
        m = weights(mask, ops)
        valid = valid * m[:, None, :, None] * m[:, None, None, :]
    if causal:
        valid = valid * not_later(s, ops)
    # The difference is taken of zeros where it does not count: inf - inf would be NaN in the gradient as well.
    counts = valid > 0
    s, t = ops.where(counts, s, ops.zeros_like(s)), ops.where(counts, t, ops.zeros_like(t))
    return masked_mean(ops.square(s - t), valid, ops)
