"""Numbers on a grid and back: fake quantisation as few passes over memory.

    on_grid                   s (clip(round(x / s) + z, low, high) - z)
    clip_gradient_of_levels   the gradient where that did not clip
    ratio_gradients           the same, and what a scale learns from

On a CPU one scale for all is a plain number there: bounds of levels become bounds of x, which one pass compares with, and what is large
goes through the processor's cache in blocks, each step of a block after the other. Everywhere else the same is said in whole tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

#: So many numbers of a few tensors fit into the cache.
_BLOCK = 1 << 17

Bound = float | None


def clip_gradient(gradient: torch.Tensor, x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return `gradient` where low <= x <= high, else 0, in one pass over memory."""
    return torch.ops.aten.hardtanh_backward(gradient, x, *_open(low, high))  # type: ignore[no-any-return]


def on_grid(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, low: Bound, high: Bound) -> torch.Tensor:
    """Return (clip(round(x / scale) + zero, low, high) - zero) * scale, one new array; no gradient flows through it.

    Without a zero point it is 0, and without bounds nothing is clipped.
    """
    x = x.detach()
    shift = 0.0 if zero is None else _number(zero)
    if torch.compiler.is_compiling() or shift is None:
        found = _levels(x, scale, zero)
        found = found if low is None else found.clamp_(low, high)
        return found.mul_(scale) if zero is None else found.sub_(zero).mul_(scale)
    result = torch.empty_like(x)
    for step, given, found in _blocks(scale, x, result):
        torch.div(given, step, out=found).round_()
        if low is not None and high is not None:
            found.clamp_(low - shift, high - shift)
        found.mul_(step)
    return result


def clip_gradient_of_levels(
    gradient: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, low: float, high: float
) -> torch.Tensor:
    """Return `gradient` where low <= round(x / scale) + zero <= high, else 0; no gradient flows through it."""
    step, shift = _step(x, scale), np.float32(0) if zero is None else _number(zero)
    if step is None or shift is None:
        return clip_gradient(gradient, _levels(x, scale, zero), low, high)
    first, last = np.float32(low) - np.float32(shift), np.float32(high) - np.float32(shift)
    half = np.float32(0.5)
    lowest = _outermost((first - half) * step, np.inf, lambda x: np.rint(x / step) < first)
    highest = _outermost((last + half) * step, -np.inf, lambda x: np.rint(x / step) > last)
    return clip_gradient(gradient, x, lowest, highest)


def ratio_gradients(
    gradient: torch.Tensor, x: torch.Tensor, shown: torch.Tensor, scale: torch.Tensor, low: float, high: float, axes: Any = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return p, which is `gradient` where low <= x / scale <= high, else 0, and sum(gradient * shown - p * x).

    The sum is over all axes or over `axes`, which then stay as ones. No gradient flows through either.
    """
    step = _step(x, scale) if axes is None else None
    if step is None:
        passed = clip_gradient(gradient, x / scale, low, high)
        apart = (gradient * shown).addcmul_(passed, x, value=-1)
        return passed, apart.sum() if axes is None else apart.sum(axes, keepdim=True)
    first, last = np.float32(low), np.float32(high)
    lowest = _outermost(first * step, np.inf, lambda x: x / step < first)
    highest = _outermost(last * step, -np.inf, lambda x: x / step > last)
    bounds = _open(lowest, highest)
    gradient = gradient.contiguous()
    passed = torch.empty_like(gradient)
    total = torch.zeros((), dtype=x.dtype)
    for _, g, v, y, p in _blocks(scale, gradient, x.contiguous(), shown.contiguous(), passed):
        torch.ops.aten.hardtanh_backward.grad_input(g, v, *bounds, grad_input=p)
        total += torch.dot(g.view(-1), y.view(-1)) - torch.dot(p.view(-1), v.view(-1))
    return passed, total


def _levels(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None) -> torch.Tensor:
    found = (x.detach() / scale).round_()
    return found if zero is None else found.add_(zero)


def _step(x: torch.Tensor, scale: torch.Tensor) -> Any:
    """Return the one scale as NumPy's float32, or None where there are several, or to read it would wait for a device."""
    if x.dtype is not torch.float32 or scale.numel() != 1:
        return None
    number = _number(scale)
    return np.float32(number) if number is not None and np.isfinite(number) else None


def _number(scalar: torch.Tensor) -> float | None:
    usual = type(scalar) in (torch.Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()  # not one without numbers
    return float(scalar.item()) if usual and scalar.device.type == "cpu" and scalar.numel() == 1 else None


def _open(low: float, high: float) -> tuple[float, float]:
    """Return bounds that exclude themselves, as the kernel's do, in the place of two that do not."""
    below, above = np.nextafter(np.float32((low, high)), np.float32((-np.inf, np.inf)))
    return float(below), float(above)


def _outermost(start: Any, inwards: float, beyond: Callable[[Any], Any]) -> float:
    """Return the outermost float32 near `start` that is not `beyond`: division and rounding decide, as the processor does them."""
    x, end = np.float32(start), np.float32(inwards)
    while beyond(x):
        x = np.nextafter(x, end)
    while not beyond(np.nextafter(x, -end)):
        x = np.nextafter(x, -end)
    return float(x)


def _blocks(scale: torch.Tensor, *tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield scale and tensors, of one shape, in pieces; whole where they are small, or strided."""
    first = tensors[0]
    flat = scale.numel() == 1
    if first.numel() <= _BLOCK or not all(each.is_contiguous() for each in tensors) or not (flat or len(scale) == len(first)):
        yield scale, *tensors
    elif flat:
        yield from ((scale, *pieces) for pieces in zip(*(each.view(-1).split(_BLOCK) for each in tensors), strict=True))
    else:
        rows = max(1, _BLOCK * len(first) // first.numel())
        yield from zip(scale.split(rows), *(each.split(rows) for each in tensors), strict=True)
