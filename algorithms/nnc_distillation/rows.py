"""What a loss is averaged over: rows, of which a mask leaves out those that are no tokens.

    logits (N, V)         N rows
    logits (B, L, V)      B * L rows, or the valid tokens among them
    relations (B, H, L, L)     H * n_b rows in each sample, keys that are padding left out

Softmax and log run in float32 whatever the model computes in, and no gradient reaches a teacher's tensor.
"""

from __future__ import annotations

from typing import Any, Literal

from nnc.errors import ConfigError

Reduction = Literal["batchmean", "mean", "sum", "none"]

#: What is added to a score that must get no probability: exp of it is 0 in float32, and it is finite, so gradients stay so.
_NEVER = -1e9


def sizes(x: Any, ops: Any) -> tuple[Any, ...]:
    """Return the shape of `x`; a size that a compiled function does not know beforehand is a scalar tensor."""
    known = tuple(x.shape)
    return known if all(size is not None for size in known) else tuple(ops.shape(x))


def learned(x: Any, ops: Any) -> Any:
    """Return a student's tensor in float32."""
    return ops.astype(x, ops.float32)


def given(x: Any, ops: Any) -> Any:
    """Return a teacher's tensor in float32, detached."""
    return ops.astype(ops.stop_gradient(x), ops.float32)


def weights(mask: Any, ops: Any) -> Any:
    """Return a mask of any type as float32 zeros and ones."""
    return ops.astype(mask, ops.float32)


def valid_tokens(mask: Any, x: Any, axis: int, ops: Any) -> Any:
    """Return which tokens of `x` are valid, `(batch, length)`; None where all are, or where `x`, of two axes, has no tokens.

    Tokens lie on an `axis` of `x`. `mask` says which are valid, of that shape, or as the length of each sample, `(batch,)`. Raises
    `ConfigError` for another shape.
    """
    if mask is None or len(x.shape) < 3:
        return None
    wanted, found = (x.shape[0], x.shape[axis]), tuple(mask.shape)
    if len(found) not in (1, 2) or any(None not in pair and pair[0] != pair[1] for pair in zip(found, wanted, strict=False)):
        forms = "(batch, length) with 1 at valid tokens, or (batch,), the length of each sample"
        raise ConfigError(f"mask: its shape is {found}, and the tokens' (batch, length) is {wanted}; give {forms}.")
    if len(found) == 2:
        return mask
    tokens = x[tuple(slice(None) if each in (0, axis) else 0 for each in range(len(x.shape)))]
    places = ops.cumulative_sum(ops.ones_like(learned(tokens, ops)), axis=1)  # 1, 2, ... on the tokens' own device
    return places <= learned(mask, ops)[:, None]


def require_same_outputs(student: Any, teacher: Any, place: str) -> None:
    """Raise `ConfigError` where outputs differ in shape: one class of the teacher's would stand for all of the student's."""
    pairs = zip(tuple(student.shape), tuple(teacher.shape), strict=False)
    if len(student.shape) != len(teacher.shape) or any(None not in pair and pair[0] != pair[1] for pair in pairs):
        shapes = f"the student's are {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}"
        raise ConfigError(f"{place}: outputs need one shape, the same classes in the same order: {shapes}.")


def per_token(x: Any, mask: Any) -> Any:
    """Return the mask where it speaks of the rows of `x` `(batch, length, ...)`, None where `x` has no tokens, as `(batch, classes)`."""
    return mask if mask is not None and len(x.shape) >= 3 else None


def masked_mean(values: Any, mask: Any, ops: Any) -> Any:
    """Return sum(m * x) / sum(m): the mean of `values` where the mask, of the same shape, is not 0; all of them without one."""
    if mask is None:
        return ops.mean(values)
    m = weights(mask, ops)
    return ops.sum(values * m) / at_least_one(ops.sum(m), ops)


def at_least_one(count: Any, ops: Any) -> Any:
    """Return a count to divide by: a batch of padding alone gives 0 / 1."""
    return ops.maximum(count, ops.ones_like(count))


def reduced(rows: Any, width: Any, reduction: Reduction, mask: Any, ops: Any) -> Any:
    """Return the loss of rows that are each a sum over `width` entries.

    batchmean: the mean over (valid) rows; mean: that divided by the width, as a mean over all elements; sum; none: the rows themselves,
    invalid ones 0.
    """
    if reduction in ("batchmean", "mean"):
        mean = masked_mean(rows, mask, ops)
        return mean if reduction == "batchmean" else mean / width
    valid = rows if mask is None else rows * weights(mask, ops)
    return ops.sum(valid) if reduction == "sum" else valid


def only_keys(scores: Any, keys: Any, ops: Any) -> Any:
    """Return scores `(..., rows, keys)` of which masked keys get no probability; `keys` broadcasts against them."""
    return scores if keys is None else scores + (1 - weights(keys, ops)) * _NEVER


def not_later(scores: Any, ops: Any) -> Any:
    """Return 1 where a key is no later than the query that sees it, else 0, `(1, 1, queries, keys)`: what causal attention sees."""
    ones = ops.ones_like(scores[:1, :1])  # counted on the scores' own device
    return ops.astype(ops.cumulative_sum(ones, axis=-1) <= ops.cumulative_sum(ones, axis=-2), ops.float32)


def kl_rows(student: Any, teacher: Any, ops: Any) -> Any:
    """Return KL(teacher || student) of the distributions that scores `(..., n)` stand for, by row `(...)`."""
    log_p, log_q = ops.log_softmax(teacher, axis=-1), ops.log_softmax(student, axis=-1)
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)
