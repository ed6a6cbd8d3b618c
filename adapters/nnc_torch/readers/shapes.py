"""Operations that move numbers without changing them: views, permutations, slices, concatenations, padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from nnc.graph.ir import Array, Graph, Node, Tensor
from nnc_torch.record import Call, other_like

aten = torch.ops.aten


def view(call: Call) -> None:
    """view(self, size), with the sizes as the user's code gave them."""
    given = tuple(call.get("size", call.get("shape")))
    call.emit("reshape", call.read("self"), sizes=call.recorder.literals.resolve(given))


def resized(call: Call) -> None:
    """squeeze, unsqueeze: a reshape that gives no sizes. What was not read yet, as the indices of a max pool, is left so."""
    slot, shape = call.values.slot(call["self"]), tuple(call.output.shape)
    if slot.value is None and slot.weight is None and slot.make is not None:
        call.values.later(call.output, partial(_resized_later, slot.make, call.values.graph, other_like(call.output)))
    else:
        call.emit("reshape", call.read("self"), sizes=shape)


def _resized_later(make: Callable[[], Tensor], graph: Graph, output: Tensor) -> Tensor:
    graph.nodes.append(Node("reshape", (make(),), (output,), {"sizes": output.shape}))
    return output


def permute(call: Call) -> None:
    """permute(self, dims)."""
    rank = call["self"].dim()
    _permuted(call, tuple(axis % rank for axis in call["dims"]))


def transpose(call: Call) -> None:
    """transpose(self, dim0, dim1)."""
    order = list(range(call["self"].dim()))
    if order:
        a, b = call["dim0"], call["dim1"]
        order[a], order[b] = order[b], order[a]
    _permuted(call, tuple(order))


def transpose_in_place(call: Call) -> None:
    """transpose_(self, dim0, dim1): self is seen otherwise from now on; its memory, and what else sees it, is as it was."""
    order = list(range(call["self"].dim()))
    a, b = call["dim0"], call["dim1"]
    order[a], order[b] = order[b], order[a]
    slot = call.values.slot(call["self"])
    slot.value, slot.weight = call.node("transpose", (call.read("self"),), call.output.shape, permutation=tuple(order)), None


def t(call: Call) -> None:
    """t(self): a matrix transposed; a vector as it is."""
    _permuted(call, tuple(reversed(range(call["self"].dim()))))


def _permuted(call: Call, order: tuple[int, ...]) -> None:
    shown, output = call.values.weight(call["self"]), call.output
    if shown is None or order != (1, 0):
        call.emit("transpose", call.read("self"), permutation=order)
        return
    # A weight turned for a product is read as the weight itself; the transpose is only added for other readers.
    weight, swapped = shown
    make = (lambda: weight) if swapped else call.later("transpose", (weight,), other_like(output), permutation=order)
    call.values.later(output, make, weight, not swapped)


def expand(call: Call) -> None:
    """expand(self, size)."""
    call.emit("expand", call.read("self"))


def repeat(call: Call) -> None:
    """repeat(self, repeats): may add axes at the front."""
    x, counts = call.read("self"), tuple(call["repeats"])
    assert x is not None
    shape = (1,) * (len(counts) - len(x.shape)) + x.shape
    if shape != x.shape:
        x = call.node("reshape", (x,), shape, sizes=shape)
    call.emit("repeat", x, counts=counts)


def cat(call: Call) -> None:
    """cat(tensors, dim); torch skips tensors of shape (0,) there."""
    rank = call.output.dim()
    tensors = [tensor for tensor in call["tensors"] if tensor.dim() == rank]
    call.emit("concat", *(call.values.read(tensor) for tensor in tensors), axis=call["dim"] % rank)


def stack(call: Call) -> None:
    """stack(tensors, dim)."""
    call.emit("stack", *(call.values.read(tensor) for tensor in call["tensors"]), axis=call["dim"] % call.output.dim())


def _take(call: Call, x: Tensor, axis: int, index: Array, **given: Any) -> Tensor:
    shape = (*x.shape[:axis], len(index), *x.shape[axis + 1 :])
    return call.node("slice", (x,), shape, axis=axis, index=index, **given)


def split(call: Call) -> None:
    """split(self, size or sizes, dim), chunk: one slice an output."""
    x, axis, start = call.read("self"), call.axis(), 0
    assert x is not None
    sizes = call["split_size"] if "split_size" in call else call["split_sizes"]
    given: dict[str, Any] = {"sizes": (sizes,) if isinstance(sizes, int) else tuple(sizes), "parts": []}
    for tensor in call.result:
        stop = start + tensor.shape[axis]
        part = _take(call, x, axis, np.arange(start, stop), **given)
        given["parts"].append(part)
        call.values.bind(tensor, part)
        start = stop


def unbind(call: Call) -> None:
    """unbind(self, dim): one select an output."""
    x, axis = call.read("self"), call.axis()
    for index, tensor in enumerate(call.result):
        call.values.bind(tensor, call.node("select", (x,), tensor.shape, axis=axis, index=index))


def slice_(call: Call) -> None:
    """slice(self, dim, start, end, step)."""
    x, axis = call.read("self"), call.axis()
    assert x is not None
    cut = slice(call["start"], call["end"], call["step"]).indices(x.shape[axis])
    index = np.arange(*cut)
    call.give(_take(call, x, axis, index, cut=cut) if len(index) != x.shape[axis] else call.node("identity", (x,), x.shape))


def select(call: Call) -> None:
    """select(self, dim, index)."""
    call.emit("select", call.read("self"), axis=call.axis(), index=call["index"])


def index_select(call: Call) -> bool | None:
    """index_select(self, dim, index)."""
    return _gathered(call, call.axis(), call["index"])


def index(call: Call) -> bool | None:
    """index(self, indices): x[:, vector]; a table of indices is a vector whose result is regrouped."""
    given = [(axis, tensor) for axis, tensor in enumerate(call["indices"]) if tensor is not None]
    return _gathered(call, *given[0]) if len(given) == 1 else False


def _gathered(call: Call, axis: int, indices: torch.Tensor) -> bool | None:
    """An index that depends on the input means positions: that axis stays, and the others are free."""
    known, x = call.values.read(indices), call.read("self")
    assert x is not None
    fixed = known.role == "constant" and known.data is not None
    if indices.dtype == torch.bool or (indices.dim() != 1 and not fixed):
        return False
    if not fixed:
        return call.emit("pool", x, axes=(axis,), function="max", padded=False)
    assert known.data is not None
    places = np.asarray(known.data()).reshape(-1) % x.shape[axis]
    if indices.dim() != 1:
        return call.emit("reshape", _take(call, x, axis, places))
    return call.give(_take(call, x, axis, places, sizes=tuple(places.tolist()), looked_up=True))


def flip(call: Call) -> None:
    """flip(self, dims): the elements of each axis in reverse."""
    x = call.read("self")
    assert x is not None
    for axis in call.axes("dims"):
        x = _take(call, x, axis, np.arange(x.shape[axis])[::-1])
    call.give(x)


def constant_pad(call: Call) -> bool | None:
    """constant_pad_nd(self, pad, value): `pad` counts from the last axis; negative amounts crop."""
    amounts = call["pad"]
    if min(amounts, default=0) < 0:
        return False
    call.emit("pad", call.read("self"), axes=_padded_axes(call, amounts), value=call["value"])
    return None


def _padded_axes(call: Call, amounts: Sequence[int]) -> tuple[int, ...]:
    rank = call["self"].dim()
    return tuple(sorted(rank - 1 - i // 2 for i in range(0, len(amounts), 2) if amounts[i] or amounts[i + 1]))


def mirrored_pad(call: Call) -> None:
    """reflection_pad*, replication_pad*: a window of one element; constants stay constants."""
    call.emit("pool", call.read("self"), axes=_padded_axes(call, call["padding"]), function="max", padded=False)


READERS = {
    aten.view: view,
    aten._unsafe_view: view,
    aten._reshape_alias: view,
    aten.reshape: view,
    aten.squeeze: resized,
    aten.unsqueeze: resized,
    aten.permute: permute,
    aten.transpose: transpose,
    aten.transpose_: transpose_in_place,
    aten.t: t,
    aten.expand: expand,
    aten.repeat: repeat,
    aten.cat: cat,
    aten.stack: stack,
    aten.split: split,
    aten.split_with_sizes: split,
    aten.unsafe_split: split,
    aten.unsafe_split_with_sizes: split,
    aten.unbind: unbind,
    aten.slice: slice_,
    aten.select: select,
    aten.index_select: index_select,
    aten.index: index,
    aten.flip: flip,
    aten.constant_pad_nd: constant_pad,
    **{getattr(aten, f"{how}_pad{n}d"): mirrored_pad for how in ("reflection", "replication") for n in (1, 2, 3)},
}
