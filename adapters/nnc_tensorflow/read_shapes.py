"""Operations that move numbers: reshape, transpose, concat, split, slice, pad, tile, broadcast."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from nnc_tensorflow.names import is_get_item, is_ops_reshape, is_ops_split
from nnc_tensorflow.read import Reader, Reading, shape_of, static, unknown


def reshape(reader: Reader, op: Any) -> None:
    """`sizes` is noted where a user's code, not Keras' own, wrote them."""
    if reader.view(op):
        return
    sizes = _sizes(reader, op)
    reader.emit("reshape", op, (reader.tensor(op.inputs[0]),), {"sizes": sizes} if sizes else {})


def _sizes(reader: Reader, op: Any) -> tuple[int, ...] | None:
    """Return a reshape's sizes as written: in a `layers.Reshape`, in a Functional model's `ops.reshape`, in a user's `call`."""
    owner = reader.owner
    out = shape_of(op.outputs[0])
    if isinstance(owner, keras.layers.Reshape):
        return (out[0], *owner.target_shape)
    if is_ops_reshape(owner):
        return tuple(owner.newshape)
    if reader.recording.source(op) is None:
        return None
    given = static(op.inputs[1])
    return out if given is None else tuple(int(size) for size in given)


def squeeze(reader: Reader, op: Any) -> None:
    """Squeeze and ExpandDims: axes of size 1 come and go."""
    if not reader.view(op):
        reader.emit("reshape", op, (reader.tensor(op.inputs[0]),))


def transpose(reader: Reader, op: Any) -> None:
    order = static(op.inputs[1])
    if order is None:
        unknown(reader, op)
        return
    rank = len(order)
    reader.emit("transpose", op, (reader.tensor(op.inputs[0]),), {"permutation": tuple(int(axis) % rank for axis in order)})


def concat(reader: Reader, op: Any) -> None:
    axis = static(op.inputs[-1])
    if axis is None:
        unknown(reader, op)
        return
    parts = [reader.tensor(given) for given in op.inputs[:-1]]
    if len(parts) == 1:
        reader.emit("identity", op, parts)
        return
    reader.emit("concat", op, parts, {"axis": int(axis) % len(shape_of(op.outputs[0]))})


def split(reader: Reader, op: Any) -> None:
    """Split(axis, x) into equal parts and SplitV(x, sizes, axis): one slice for each output."""
    given, where = (op.inputs[0], op.inputs[2]) if op.type == "SplitV" else (op.inputs[1], op.inputs[0])
    axis = static(where)
    if axis is None:
        unknown(reader, op)
        return
    x, number, start = reader.tensor(given), int(axis) % len(shape_of(given)), 0
    parts: dict[str, Any] = {}
    if is_ops_split(reader.owner) or (op.type == "SplitV" and reader.recording.source(op) is not None):
        parts = {"sizes": tuple(shape_of(out)[number] for out in op.outputs), "parts": []}
    for out in op.outputs:
        size = shape_of(out)[number]
        reader.emit_part("slice", (x,), out, {"axis": number, "index": np.arange(start, start + size), **parts})
        start += size
    for out in op.outputs if parts else ():
        parts["parts"].append(reader.tensor(out))


def unpack(reader: Reader, op: Any) -> None:
    x = reader.tensor(op.inputs[0])
    for index, out in enumerate(op.outputs):
        reader.emit_part("select", (x,), out, {"axis": op.get_attr("axis") % len(x.shape), "index": index})


def pack(reader: Reader, op: Any) -> None:
    rank = len(shape_of(op.outputs[0]))
    reader.emit("stack", op, [reader.tensor(given) for given in op.inputs], {"axis": op.get_attr("axis") % rank})


def strided_slice(reader: Reader, op: Any) -> None:
    """`x[:, 1:9:2, 0, None]`: a slice for each axis that is cut, a select for each that is indexed, then new axes of size 1."""
    bounds = [static(given) for given in op.inputs[1:]]
    x = reader.tensor(op.inputs[0])
    if any(bound is None for bound in bounds) or not op.inputs[0].shape.is_fully_defined():
        unknown(reader, op)
        return
    keys = _keys(op, [np.asarray(bound) for bound in bounds], len(x.shape))
    functional = is_get_item(reader.owner)
    theirs = functional or reader.recording.source(op) is not None
    several = functional and _parts(keys, x.shape) > 1
    axis = 0
    for key in (key for key in keys if key is not None):
        if isinstance(key, slice):
            cut = key.indices(x.shape[axis])
            index = np.arange(x.shape[axis])[key]
            if len(index) != x.shape[axis] or key.step not in (None, 1):
                attrs: dict[str, Any] = {"cut": cut} if theirs else {}
                if several and abs(cut[2]) != 1:
                    attrs = {"fixed": _ONE_KEY}
                x = reader.step("slice", x, (*x.shape[:axis], len(index), *x.shape[axis + 1 :]), axis=axis, index=index, **attrs)
            axis += 1
        else:
            x = reader.step("select", x, (*x.shape[:axis], *x.shape[axis + 1 :]), axis=axis, index=key)
    out = shape_of(op.outputs[0])
    if x.shape != out:
        x = reader.step("reshape", x, out)
    reader.values[op.outputs[0].ref()] = x


def _parts(keys: list[slice | int | None], shape: tuple[int, ...]) -> int:
    """Return how many parts of a key do something to a tensor."""
    sizes = iter(shape)
    return sum(
        not isinstance(key, slice) or key.indices(size) != (0, size, 1) for key in keys for size in [next(sizes) if key is not None else 0]
    )


_ONE_KEY = (
    "takes it in steps, in one key with other cuts: what is left lies unevenly, and x[...] on a symbolic tensor takes no list; "
    "cut the other axes in an x[...] of their own"
)


def _keys(op: Any, bounds: list[Any], rank: int) -> list[slice | int | None]:
    """Return what stood between the brackets: a slice or an index for each axis, None for each new axis."""
    begin, end, step = bounds
    bit = {name: op.get_attr(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}
    keys: list[slice | int | None] = []
    named = sum(not (bit["new_axis"] >> n & 1 or bit["ellipsis"] >> n & 1) for n in range(len(begin)))
    for n in range(len(begin)):
        if bit["ellipsis"] >> n & 1:
            keys += [slice(None)] * (rank - named)
        elif bit["new_axis"] >> n & 1:
            keys.append(None)
        elif bit["shrink_axis"] >> n & 1:
            keys.append(int(begin[n]))
        else:
            start = None if bit["begin"] >> n & 1 else int(begin[n])
            keys.append(slice(start, None if bit["end"] >> n & 1 else int(end[n]), int(step[n])))
    return keys + [slice(None)] * (rank - sum(key is not None for key in keys))


def cut(reader: Reader, op: Any) -> None:
    """Slice(x, begin, size): a slice for each axis that gets shorter."""
    begin, x, out = static(op.inputs[1]), reader.tensor(op.inputs[0]), shape_of(op.outputs[0])
    if begin is None or not op.outputs[0].shape.is_fully_defined():
        unknown(reader, op)
        return
    for axis, (start, size) in enumerate(zip(begin, out, strict=True)):
        if size != x.shape[axis]:
            index = np.arange(int(start), int(start) + size)
            x = reader.step("slice", x, (*x.shape[:axis], size, *x.shape[axis + 1 :]), axis=axis, index=index)
    reader.values[op.outputs[0].ref()] = x


def pad(reader: Reader, op: Any) -> None:
    amounts = static(op.inputs[1])
    if amounts is None:
        unknown(reader, op)
        return
    value = static(op.inputs[2]) if op.type == "PadV2" else np.asarray(0.0)
    axes = tuple(int(axis) for axis in np.flatnonzero(amounts.any(axis=1)))
    mirrored = op.type == "MirrorPad" or value is None
    reader.emit("pad", op, (reader.tensor(op.inputs[0]),), {"axes": axes, "value": np.nan if mirrored else float(value)})


def tile(reader: Reader, op: Any) -> None:
    """The counts follow from the shapes; TensorFlow does not always know them."""
    x = reader.tensor(op.inputs[0])
    counts = tuple(after // before for before, after in zip(x.shape, shape_of(op.outputs[0]), strict=True))
    reader.emit("repeat", op, (x,), {"counts": counts})


def broadcast(reader: Reader, op: Any) -> None:
    reader.emit("expand", op, (reader.tensor(op.inputs[0]),))


READINGS: dict[str, Reading] = {
    "Reshape": reshape,
    "Squeeze": squeeze,
    "ExpandDims": squeeze,
    "Transpose": transpose,
    "ConcatV2": concat,
    "Split": split,
    "SplitV": split,
    "Unpack": unpack,
    "Pack": pack,
    "StridedSlice": strided_slice,
    "Slice": cut,
    "Pad": pad,
    "PadV2": pad,
    "MirrorPad": pad,
    "Tile": tile,
    "BroadcastTo": broadcast,
}
