"""Learn from the teacher's probabilities: they tell which wrong answers are nearly right.

    p = softmax(z_t / T)        kl     T^2 * mean over rows of sum p (log p - log q)
    q = softmax(z_s / T)        ce              mean over rows of -sum p log q

Both have the gradient T * (q - p) / N, the second without T^2 a T-th part of a T-th. A single logit stands for two classes, z and 0;
with `binary`, each of several logits does. Regression has no probabilities: the mean square.
"""

from __future__ import annotations

from typing import Any

from nnc_distillation.rows import Reduction, given, kl_rows, learned, masked_mean, per_token, reduced, sizes


def kl(
    student: Any,
    teacher: Any,
    ops: Any,
    *,
    temperature: Any = 1.0,
    t2_scaling: bool = True,
    reduction: Reduction = "batchmean",
    mask: Any = None,
    binary: bool = False,
) -> Any:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)) of logits `(..., classes)`.

    Rows are the batch, or the tokens that `mask` `(batch, length)` leaves. Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    s, t = _scaled(student, teacher, temperature, binary, ops)
    return _finished(kl_rows(s, t, ops), student, temperature, t2_scaling, reduction, mask, binary, ops)


def reverse_kl(
    student: Any,
    teacher: Any,
    ops: Any,
    *,
    temperature: Any = 1.0,
    t2_scaling: bool = True,
    reduction: Reduction = "batchmean",
    mask: Any = None,
    binary: bool = False,
) -> Any:
    """Return T^2 KL(student || teacher): the student keeps to what the teacher holds likely, instead of covering all of it.

    Gu et al., MiniLLM, ICLR 2024, arXiv:2306.08543, section 2.1.
    """
    s, t = _scaled(student, teacher, temperature, binary, ops)
    return _finished(kl_rows(t, s, ops), student, temperature, t2_scaling, reduction, mask, binary, ops)


def ce_logits(
    student: Any,
    teacher: Any,
    ops: Any,
    *,
    temperature: Any = 1.0,
    t2_scaling: bool = False,
    reduction: Reduction = "batchmean",
    mask: Any = None,
    binary: bool = False,
) -> Any:
    """Return the cross-entropy of the student under the teacher's probabilities, -sum p log q: KL plus the teacher's entropy.

    Of a single logit, or with `binary`, this is the binary cross-entropy with soft targets.
    """
    s, t = _scaled(student, teacher, temperature, binary, ops)
    rows = -ops.sum(ops.softmax(t, axis=-1) * ops.log_softmax(s, axis=-1), axis=-1)
    return _finished(rows, student, temperature, t2_scaling, reduction, mask, binary, ops)


def mse_logits(student: Any, teacher: Any, ops: Any, *, mask: Any = None) -> Any:
    """Return the mean square of the difference: the soft target of a regression."""
    rows = ops.mean(ops.square(learned(student, ops) - given(teacher, ops)), axis=-1)
    return masked_mean(rows, per_token(student, mask), ops)


def _scaled(student: Any, teacher: Any, temperature: Any, binary: bool, ops: Any) -> tuple[Any, Any]:
    s, t = learned(student, ops) / temperature, given(teacher, ops) / temperature
    return (_two_classes(s, ops), _two_classes(t, ops)) if binary or s.shape[-1] == 1 else (s, t)


def _two_classes(logits: Any, ops: Any) -> Any:
    """Return logits `(..., n, 2)`: sigmoid(z) is the first entry of softmax([z, 0])."""
    return ops.stack([logits, ops.zeros_like(logits)], axis=-1)


def _finished(rows: Any, logits: Any, temperature: Any, t2_scaling: bool, reduction: Reduction, mask: Any, binary: bool, ops: Any) -> Any:
    if binary or logits.shape[-1] == 1:
        rows = ops.sum(rows, axis=-1)  # over the labels
    loss = reduced(rows, sizes(logits, ops)[-1], reduction, per_token(logits, mask), ops)
    return loss * temperature**2 if t2_scaling else loss
