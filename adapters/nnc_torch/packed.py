"""Packed sequences of torch: what `pack_padded_sequence` and its inverse do to rows, as lookups whose indices follow from the lengths.

pack    (time, batch, width) -> rows of width, step after step, of the sequences that are that long
pad     the same rows back in place, and one row of padding wherever a sequence has ended
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from nnc.graph.ir import Array, Node, Tensor, constant
from nnc_torch.record import Recorder, other_like


def handlers(recorder: Recorder) -> dict[Any, Callable[..., Any]]:
    """Return what to do in the place of torch's two functions while `recorder` records."""
    return {torch._pack_padded_sequence: _Packing(recorder).pack, torch._pad_packed_sequence: _Packing(recorder).pad}


class _Packing:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.values = recorder, recorder.values

    def pack(self, given: torch.Tensor, lengths: torch.Tensor, batch_first: bool) -> Any:
        with _disable_current_modes():
            data, sizes = result = torch._pack_padded_sequence(given, lengths, batch_first)
        place = _place(sizes.numpy(), given.shape[:2], batch_first)
        rows = np.argsort(place.reshape(-1), kind="stable")[-len(data) :]
        x = self.values.read(given)
        flat = self._node("reshape", (x,), (x.shape[0] * x.shape[1], *x.shape[2:]))
        self.values.bind(data, self._node("slice", (flat,), tuple(data.shape), axis=0, index=rows))
        self.values.bind(sizes, self._node("unknown", (self.values.read(lengths),), tuple(sizes.shape), floating=False))
        return result

    def pad(self, data: torch.Tensor, sizes: torch.Tensor, batch_first: bool, filling: float, total: int) -> Any:
        with _disable_current_modes():
            padded, lengths = result = torch._pad_packed_sequence(data, sizes, batch_first, filling, total)
        place = _place(sizes.numpy(), padded.shape[:2], batch_first)
        rows = np.where(place < 0, len(data), place).reshape(-1)
        x = self.values.read(data)
        padding = constant(np.full((1, *x.shape[1:]), filling))
        longer = self._node("concat", (x, padding), (len(data) + 1, *x.shape[1:]), axis=0)
        flat = self._node("slice", (longer,), (len(rows), *x.shape[1:]), axis=0, index=rows)
        self.values.bind(padded, self._node("reshape", (flat,), tuple(padded.shape)))
        self.values.bind(lengths, other_like(lengths))
        return result

    def _node(self, kind: str, inputs: tuple[Tensor, ...], shape: tuple[int, ...], floating: bool = True, **attrs: Any) -> Tensor:
        layer, source = self.recorder.places.here()
        result = Tensor(shape, floating=floating)
        self.values.graph.nodes.append(Node(kind, inputs, (result,), attrs, f"torch.{kind} of a packed sequence", layer, source))
        return result


def _place(sizes: Array, shape: tuple[int, ...], batch_first: bool) -> Array:
    """Return the row of the packed data that holds each step of each sequence, -1 where that sequence has ended."""
    batch, time = shape if batch_first else shape[::-1]
    place = np.full((time, batch), -1)
    start = 0
    for step, count in enumerate(sizes.tolist()):
        place[step, :count] = np.arange(start, start + count)
        start += count
    return place.T if batch_first else place
