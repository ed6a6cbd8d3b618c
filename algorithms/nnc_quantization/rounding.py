"""Round a weight so that its layer's output changes least: what counts is the error after the layer's real inputs, not of each number.

    nearest     min |W - W'|                                                nothing measured
    gptq        column by column; those behind make up for its error       Frantar et al. 2023, arXiv:2210.17323
    adaround    each number up or down, learned                             Nagel et al. 2020, arXiv:2004.10568

Both look at the inputs through their second moments H = X^T X / n alone: the error of the output is tr((W - W') H (W - W')^T). So a
layer keeps one matrix, however much data it saw.
"""

from __future__ import annotations

import numpy as np

from nnc.graph.ir import Array

#: AdaRound's stretched sigmoid reaches 0 and 1, and its pull towards them.
_ZETA, _GAMMA, _PULL = 1.1, -0.1, 0.01


def output_error(weight: Array, rounded: Array, moments: Array) -> float:
    """Return the mean squared error of a layer's output, summed over its channels."""
    apart = weight.astype(np.float64) - rounded
    return float(((apart @ moments) * apart).sum())


def gptq(weight: Array, moments: Array, scale: Array, highest: int, damping: float = 0.01, block: int = 128) -> Array:
    """Return `weight` `(out, in)` on the grid of `scale` `(out, 1)`; a column's error is spread over the columns behind it."""
    rest = weight.astype(np.float64)
    factor = _inverse_factor(moments, damping)
    found = np.zeros_like(rest)
    for start in range(0, rest.shape[1], block):
        end = min(start + block, rest.shape[1])
        errors = np.zeros((len(rest), end - start))
        for column in range(start, end):
            found[:, column] = _nearest(rest[:, column], scale[:, 0], highest)
            errors[:, column - start] = (rest[:, column] - found[:, column]) / factor[column, column]
            rest[:, column:end] -= np.outer(errors[:, column - start], factor[column, column:end])
        rest[:, end:] -= errors @ factor[start:end, end:]
    return found


def adaround(weight: Array, moments: Array, scale: Array, highest: int, steps: int = 500, rate: float = 0.02) -> Array:
    """Return `weight` `(out, in)` on the grid of `scale`, each number rounded up or down as Adam finds it best for the output.

    The gradient of the error is 2 (W' - W) H: no data pass again. Where the result is no better than the nearest, that is returned.
    """
    weight = weight.astype(np.float64)
    floor = np.floor(weight / scale)
    size = max(float(np.trace(moments)) / len(moments), 1e-30) * float((scale**2).mean())  # the error of a step in one number
    part = np.clip(weight / scale - floor, 1e-4, 1 - 1e-4)
    variable = np.log((part - _GAMMA) / (_ZETA - part))  # h(variable) = part
    first, second = np.zeros_like(variable), np.zeros_like(variable)
    for step in range(1, steps + 1):
        inner = 1 / (1 + np.exp(-variable))
        up = np.clip(inner * (_ZETA - _GAMMA) + _GAMMA, 0, 1)
        level = np.clip(floor + up, -highest, highest)
        gradient = 2 * ((level * scale - weight) @ moments) * scale / size
        gradient += _PULL * _pull(up, step / steps)
        gradient *= (_ZETA - _GAMMA) * inner * (1 - inner)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        variable -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    found = np.clip(floor + (1 / (1 + np.exp(-variable)) >= 0.5), -highest, highest) * scale
    plain = _nearest(weight, scale, highest)
    return found if output_error(weight, found, moments) < output_error(weight, plain, moments) else plain


def _pull(up: Array, progress: float) -> Array | float:
    """Return the gradient of sum(1 - |2h - 1|^b); none at first, then b falls from 20 to 2 along a cosine."""
    if progress < 0.2:
        return 0.0
    power = 2 + 9 * (1 + np.cos(np.pi * (progress - 0.2) / 0.8))
    side = 2 * up - 1
    return np.asarray(-2 * power * np.sign(side) * np.abs(side) ** (power - 1))


def _nearest(weight: Array, scale: Array, highest: int) -> Array:
    return np.asarray(np.clip(np.rint(weight / scale), -highest, highest) * scale)


def _inverse_factor(moments: Array, damping: float) -> Array:
    """Return the upper Cholesky factor U of the damped inverse, U^T U = H^-1; inputs that were always 0 count as 1."""
    damped = moments.astype(np.float64)
    silent = np.diag(damped) == 0
    damped[silent, silent] = 1.0
    damped[np.diag_indices_from(damped)] += damping * np.diag(damped).mean()
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T)
