"""Fake quantisation: numbers that a grid can hold, in floats, with the gradients that training on a grid needs.

    q = clip(round(x / s) + z, low, high)        x' = s (q - z)         round half to even

    ste          dx = 1 where q was not clipped, else 0                       Bengio et al. 2013, arXiv:1308.3432
    lsq          the same, and ds = round(v) - v, low or high                 Esser et al. 2020, arXiv:1902.08153
    lsq_plus     lsq with a learned zero point                                  Bhalgat et al. 2020, arXiv:2004.09576
    pact         clip(x, 0, alpha), dalpha = 1 where x >= alpha               Choi et al. 2018, arXiv:1805.06085
    dorefa       2 round(n (tanh(x) / 2 max|tanh| + 1/2)) / n - 1             Zhou et al. 2016, arXiv:1606.06160
    binary       sign(x), dx = 1 where |x| <= 1                               Hubara et al. 2016, arXiv:1602.02830

Scales of one axis come shaped to broadcast. At LSQ's boundary the paper's rule holds: x at or beyond the last level counts as clipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnc.adapter import Ops


def ste(x: Any, scale: Any, zero: Any, low: int, high: int, ops: Ops) -> Any:
    """Return `x` on the grid; gradients pass where the level, rounded, was not clipped. `scale` and `zero` get none."""

    def forward(x: Any, scale: Any, zero: Any) -> tuple[Any, tuple[Any, ...]]:
        return ops.on_grid(x, scale, zero, low, high), (x, scale, zero)

    def backward(gradient: Any, x: Any, scale: Any, zero: Any) -> tuple[Any, ...]:
        return ops.clip_gradient_of_levels(gradient, x, scale, zero, low, high), None, None

    return ops.with_gradient(forward, backward, x, scale, zero)


def ste_symmetric(x: Any, scale: Any, highest: int, ops: Ops) -> Any:
    """Return `ste` with the zero point 0 and as many levels on both sides: two passes over the numbers fewer."""

    def forward(x: Any, scale: Any) -> tuple[Any, tuple[Any, ...]]:
        return ops.on_grid(x, scale, None, -highest, highest), (x, scale)

    def backward(gradient: Any, x: Any, scale: Any) -> tuple[Any, ...]:
        return ops.clip_gradient_of_levels(gradient, x, scale, None, -highest, highest), None

    return ops.with_gradient(forward, backward, x, scale)


def covered(x: Any, scale: Any, ops: Ops) -> Any:
    """Return `x` on a symmetric grid that covers all of it: nothing is clipped, so that every gradient passes."""

    def forward(x: Any, scale: Any) -> tuple[Any, tuple[Any, ...]]:
        return ops.on_grid(x, scale, None, None, None), ()

    def backward(gradient: Any) -> tuple[Any, ...]:
        return gradient, None

    return ops.with_gradient(forward, backward, x, scale)


def lsq(x: Any, scale: Any, low: int, high: int, factor: float, axes: Sequence[int] | None, ops: Ops) -> Any:
    """Return `x` on a symmetric grid whose scale learns. `factor` is the gradient scale 1 / sqrt(N * high).

    `axes` are those over which one scale is shared (None: all of them). With v = x / s, ds is the sum of g q - g v, the second where v
    was not clipped: the sum of (g x' - g x) / s, so that neither v nor q is kept for it.
    """
    inside = _within(low, high)
    over = None if axes is None else tuple(axes)

    def forward(x: Any, scale: Any) -> tuple[Any, tuple[Any, ...]]:
        shown = ops.on_grid(x, scale, None, low, high)
        return shown, (x, shown, scale)

    def backward(gradient: Any, x: Any, shown: Any, scale: Any) -> tuple[Any, ...]:
        passed, summed = ops.ratio_gradients(gradient, x, shown, scale, *inside, over)
        return passed, summed / scale * factor

    return ops.with_gradient(forward, backward, x, scale)


def _within(low: int, high: int) -> tuple[float, float]:
    """Return the first float32 above `low` and the last below `high`; above 0 no denormal, which processors may flush."""
    first, last = np.nextafter(np.array([low, high], np.float32), np.array([high, low], np.float32))
    return float(first) if low else 1e-30, float(last)


def lsq_plus(x: Any, scale: Any, zero: Any, low: int, high: int, factor: float, ops: Ops) -> Any:
    """Return `x` on a grid whose scale and zero point learn, one of each for the whole tensor; the zero point is used rounded.

    The paper's offset b is -s z: with z whole the grid is one that integer kernels know.
    """

    def forward(x: Any, scale: Any, zero: Any) -> tuple[Any, tuple[Any, ...]]:
        whole = ops.clip(ops.round(zero), low, high)
        steps = x / scale
        levels = ops.clip(ops.round(steps) + whole, low, high)
        inside = ops.round(steps) + whole == levels
        by_scale = levels - whole - ops.where(inside, steps, ops.zeros_like(steps))
        return (levels - whole) * scale, (by_scale, inside, scale)

    def backward(gradient: Any, by_scale: Any, inside: Any, scale: Any) -> tuple[Any, ...]:
        passed = ops.where(inside, gradient, ops.zeros_like(gradient))
        return passed, ops.sum(gradient * by_scale) * factor, -ops.sum(gradient - passed) * scale * factor

    return ops.with_gradient(forward, backward, x, scale, zero)


def pact(x: Any, alpha: Any, bits: int, ops: Ops) -> Any:
    """Return clip(x, 0, alpha) on the unsigned grid with scale alpha / (2^bits - 1)."""
    highest = 2**bits - 1

    def forward(x: Any, alpha: Any) -> tuple[Any, tuple[Any, ...]]:
        scale = alpha / highest
        clipped = ops.minimum(ops.maximum(x, ops.zeros_like(x)), alpha)
        return ops.round(clipped / scale) * scale, ((x > 0) & (x < alpha), x >= alpha)

    def backward(gradient: Any, inside: Any, above: Any) -> tuple[Any, ...]:
        zeros = ops.zeros_like(gradient)
        return ops.where(inside, gradient, zeros), ops.sum(ops.where(above, gradient, zeros))

    return ops.with_gradient(forward, backward, x, alpha)


def pact_signed(x: Any, alpha: Any, bits: int, ops: Ops) -> Any:
    """Return clip(x, -alpha, alpha) on the symmetric grid with scale alpha / (2^(bits-1) - 1)."""
    highest = 2 ** (bits - 1) - 1

    def forward(x: Any, alpha: Any) -> tuple[Any, tuple[Any, ...]]:
        scale = alpha / highest
        clipped = ops.minimum(ops.maximum(x, -alpha), alpha)
        beyond = ops.astype(x >= alpha, x.dtype) - ops.astype(x <= -alpha, x.dtype)
        return ops.round(clipped / scale) * scale, (beyond,)

    def backward(gradient: Any, beyond: Any) -> tuple[Any, ...]:
        return gradient * (1 - ops.abs(beyond)), ops.sum(gradient * beyond)

    return ops.with_gradient(forward, backward, x, alpha)


def dorefa(x: Any, bits: int, ops: Ops) -> Any:
    """Return a weight squashed into [-1, 1] and rounded to 2^bits levels; one bit is sign(x) times the mean of |x|.

    Eight bits have 255 levels, i / 127, which int8 holds: the paper's 256 are odd multiples of 1 / 255 and would need a ninth bit.
    """
    if bits == 1:
        ones = ops.ones_like(x)
        return rounded(x, ops.where(x >= 0, ones, -ones) * ops.mean(ops.abs(x)), ops)
    squashed = ops.tanh(x)
    largest = ops.max(ops.abs(squashed))
    unit = squashed / (2 * ops.where(largest > 0, largest, ops.ones_like(largest))) + 0.5
    steps = 2**bits - 1 if bits < 8 else 254
    return 2 * rounded(unit, ops.round(unit * steps) / steps, ops) - 1


def dorefa_activation(x: Any, bits: int, ops: Ops) -> Any:
    """Return clip(x, 0, 1) rounded to 2^bits levels."""
    unit = ops.clip(x, 0.0, 1.0)
    steps = 2**bits - 1
    return rounded(unit, ops.round(unit * steps) / steps, ops)


def binary(x: Any, ops: Ops) -> Any:
    """Return +1 or -1, +1 for 0; gradients pass where |x| <= 1."""

    def forward(x: Any) -> tuple[Any, tuple[Any, ...]]:
        ones = ops.ones_like(x)
        return ops.where(x >= 0, ones, -ones), (ops.abs(x) <= 1,)

    def backward(gradient: Any, inside: Any) -> tuple[Any, ...]:
        return (ops.where(inside, gradient, ops.zeros_like(gradient)),)

    return ops.with_gradient(forward, backward, x)


def rounded(x: Any, y: Any, ops: Ops) -> Any:
    """Return `y` with the gradient of `x`."""
    return x + ops.stop_gradient(y - x)
