"""torch's operations under the names of the array API standard (data-apis.org/array-api, 2024.12), and the verbs beyond it.

    abs(x)   sum(x, axis=1, keepdims=True)   matmul(a, b)        array-api-compat's
    stop_gradient(x)   with_gradient(f, df, x)   softmax(x, 1)   here

An algorithm is handed this module as `layer.ops`. A name that is not written out here is array-api-compat's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import array_api_compat.torch as standard
import numpy as np
import torch

from nnc_torch.grids import clip_gradient_of_levels, on_grid, ratio_gradients
from nnc_torch.selection import bound_of_lowest, seen_above, without_lowest

__all__ = ["clip_gradient_of_levels", "on_grid", "ratio_gradients", "without_lowest"]

#: Whole numbers of the size of each floating-point type.
_SAME_BITS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}

#: This module, which algorithms are handed.
_SELF = sys.modules[__name__]

#: Of so few numbers a function of Python's own costs more than it saves.
_FEW = 4096


def __getattr__(name: str) -> Any:
    return getattr(standard, name)


def shape(x: torch.Tensor) -> tuple[int, ...]:
    """Return the sizes of a tensor; in other frameworks' compiled functions they may be tensors."""
    return tuple(x.shape)


def clip(x: torch.Tensor, min: Any = None, max: Any = None) -> torch.Tensor:
    # array-api-compat's own clip promotes types step by step: ten times the cost of a small QAT operation.
    return torch.clamp(x, min, max)


def stop_gradient(x: torch.Tensor) -> torch.Tensor:
    return x.detach()


def with_gradient(forward: Callable[..., Any], backward: Callable[..., Any], *tensors: torch.Tensor) -> torch.Tensor:
    """Return `forward(*tensors)[0]`; its gradient is `backward(gradient, *saved)`, one for each of `tensors`, or None."""
    result: torch.Tensor = _WithGradient.apply(forward, backward, *tensors)
    return result


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, forward: Callable[..., Any], backward: Callable[..., Any], *tensors: torch.Tensor) -> torch.Tensor:
        result, saved = forward(*tensors)
        ctx.save_for_backward(*saved)
        ctx.given = backward
        return result  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        given = ctx.given(gradient, *ctx.saved_tensors)
        return None, None, *(given if isinstance(given, tuple | list) else (given,))


def only(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Return `where(keep, x, 0)`, `keep` a tensor of truth values of the shape of `x`."""
    if torch.compiler.is_compiling() or keep.shape != x.shape or x.numel() < _FEW:
        return torch.where(keep, x, 0.0)
    result: torch.Tensor = _Only.apply(x, keep)
    return result


class _Only(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        whole = _SAME_BITS.get(x.dtype)
        if whole is None or x.device.type != "cpu":
            return torch.where(keep, x, 0.0)
        # On a CPU torch.where goes number by number. Bits times 1 or 0 are vector instructions, in one pass: 10 times as fast.
        return (x.view(whole) * keep.view(torch.int8)).view(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        return _Only.apply(gradient, ctx.saved_tensors[0]), None


def extremes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest and the largest number, in one pass over memory."""
    found = torch.aminmax(x)
    return found.min, found.max


def few(function: Callable[..., Any], *numbers: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the tuple that `function(ops, *numbers)` makes of tensors of one number each; no gradient flows through it.

    NumPy does it where it can: a tenth of the time.
    """
    if torch.compiler.is_compiling() or not all(map(_plain, numbers)):
        return tuple(function(_SELF, *(number.detach() for number in numbers)))
    found = function(np, *(np.float32(number.item()) for number in numbers))
    return tuple(torch.from_numpy(np.array(number, np.float32)) for number in found)


def _plain(number: torch.Tensor) -> bool:
    return type(number) in (torch.Tensor, torch.nn.Parameter) and number.dtype is torch.float32 and number.device.type == "cpu"


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x)


def relu(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x)


def softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    return torch.softmax(x, axis)  # of half-precision numbers torch computes it in float32, as it does log_softmax


def log_softmax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    return torch.log_softmax(x, axis)


def only_highest(x: torch.Tensor, scores: torch.Tensor, count: int | torch.Tensor) -> torch.Tensor:
    """Return `only(x, without_lowest(scores, count))`; the scores get the gradient of a mask by which `x` was multiplied."""
    bound = bound_of_lowest(scores, count) if x.dtype is scores.dtype and x.shape == scores.shape else None
    if bound is not None:
        return seen_above(x, scores, bound)
    keep = without_lowest(scores, count)
    return with_gradient(lambda x, _: (only(x, keep), (x, keep)), lambda g, x, keep: (only(g, keep), g * x), x, scores)
