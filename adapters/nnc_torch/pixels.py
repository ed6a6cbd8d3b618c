"""Pixel shuffles of torch: blocks of channels become squares of positions, or the other way round.

torch takes them apart into reshapes whose sizes follow from the factor that the code gives, so the sides of a block stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

from nnc.graph.ir import Node, Tensor
from nnc_torch.record import Recorder


def handlers(recorder: Recorder) -> dict[Any, Callable[..., Any]]:
    """Return what to do in the place of torch's two functions while `recorder` records."""

    def shuffle(x: torch.Tensor, upscale_factor: int) -> torch.Tensor:
        side, (channels, height, width) = upscale_factor, x.shape[-3:]
        blocks = (channels // side**2, side, side, height, width)
        return _moved(recorder, torch.pixel_shuffle, x, side, blocks, (0, 3, 1, 4, 2), (1, 2))

    def unshuffle(x: torch.Tensor, downscale_factor: int) -> torch.Tensor:
        side, (channels, height, width) = downscale_factor, x.shape[-3:]
        blocks = (channels, height // side, side, width // side, side)
        return _moved(recorder, torch.pixel_unshuffle, x, side, blocks, (0, 2, 4, 1, 3), (2, 4))

    return {torch.pixel_shuffle: shuffle, torch.pixel_unshuffle: unshuffle}


def _moved(
    recorder: Recorder, function: Any, x: torch.Tensor, side: int, blocks: Sequence[int], order: Sequence[int], sides: Sequence[int]
) -> torch.Tensor:
    """Run `function`, and add what it does: take the last three axes apart into `blocks`, move these, and put them together."""
    front = tuple(x.shape[:-3])
    if prod(blocks) != prod(x.shape[-3:]):
        return function(x, side)  # which says what is wrong
    value, result = recorder.values.read(x), recorder.aside(function, x, side)
    shift = len(front)
    permutation = (*range(shift), *(shift + axis for axis in order))
    apart = _added(recorder, function, "reshape", value, (*front, *blocks))
    held = _added(recorder, function, "identity", apart, apart.shape, fixed=tuple(shift + axis for axis in sides))
    turned = _added(recorder, function, "transpose", held, tuple(held.shape[axis] for axis in permutation), permutation=permutation)
    recorder.values.bind(result, _added(recorder, function, "reshape", turned, tuple(result.shape)))
    return result


def _added(recorder: Recorder, function: Any, kind: str, x: Tensor, shape: tuple[int, ...], **attrs: Any) -> Tensor:
    made = Tensor(shape)
    recorder.values.graph.nodes.append(Node(kind, (x,), (made,), attrs, f"torch.{function.__name__}", *recorder.places.here()))
    return made
