"""Operations that move elements: reshapes, transposes, joins and cuts. Sizes that the file fixes are noted, so that they can follow."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from nnc.graph.ir import Tensor, constant
from nnc_onnx.read import Reader, Reading, unknown
from nnc_onnx.resize import taken


def reshape(reader: Reader, node: NodeProto) -> None:
    """A size of 0 keeps the input's, where `allowzero` does not say otherwise."""
    x, sizes = reader.tensor(node.input[0]), reader.static(node.input[1])
    out = reader.result(node.output[0]).shape
    if sizes is None or x.shape == ():
        reader.emit("reshape", node.output[0], (x,))
        return
    given = tuple(out[place] if size == 0 else int(size) for place, size in enumerate(sizes))
    reader.emit("reshape", node.output[0], (x,), {"sizes": given})


def regroup(reader: Reader, node: NodeProto) -> None:
    """Flatten, Squeeze and Unsqueeze name axes, no sizes."""
    reader.emit("reshape", node.output[0], (reader.tensor(node.input[0]),))


def transpose(reader: Reader, node: NodeProto) -> None:
    x = reader.tensor(node.input[0])
    order = reader.attributes(node).get("perm", tuple(reversed(range(len(x.shape)))))
    reader.emit("transpose", node.output[0], (x,), {"permutation": tuple(order)})


def expand(reader: Reader, node: NodeProto) -> None:
    sizes, out = reader.static(node.input[1]), reader.result(node.output[0]).shape
    attrs = {"sizes": out} if sizes is not None and len(sizes) == len(out) else {}
    reader.emit("expand", node.output[0], (reader.tensor(node.input[0]),), attrs)


def filled(reader: Reader, node: NodeProto) -> None:
    """ConstantOfShape: one number, spread over a shape."""
    out = np.asarray(reader.results[node.output[0]])
    sizes = reader.static(node.input[0])
    attrs = {"sizes": out.shape} if sizes is not None else {}
    reader.emit("expand", node.output[0], (constant(out.dtype.type(out.flat[0])),), attrs)


def tile(reader: Reader, node: NodeProto) -> None:
    counts = reader.static(node.input[1])
    if counts is None:
        unknown(reader, node)
    else:
        reader.emit("repeat", node.output[0], (reader.tensor(node.input[0]),), {"counts": tuple(int(count) for count in counts)})


def concat(reader: Reader, node: NodeProto) -> None:
    inputs = [reader.tensor(name) for name in node.input]
    reader.emit("concat", node.output[0], inputs, {"axis": reader.attributes(node)["axis"] % len(inputs[0].shape)})


def split(reader: Reader, node: NodeProto) -> None:
    x = reader.tensor(node.input[0])
    axis = reader.attributes(node).get("axis", 0) % len(x.shape)
    outs = [reader.result(name) for name in node.output]
    ends = np.cumsum([out.shape[axis] for out in outs])
    sizes = tuple(out.shape[axis] for out in outs)
    for name, out, end, size in zip(node.output, outs, ends, sizes, strict=True):
        reader.values[name] = out
        reader.add("slice", x, out, {"axis": axis, "index": np.arange(end - size, end), "parts": outs, "sizes": sizes})


def split_to_sequence(reader: Reader, node: NodeProto) -> None:
    """What SequenceAt takes from it afterwards are the parts of a split."""
    x, given = reader.tensor(node.input[0]), reader.attributes(node)
    if not given.get("keepdims", 1) and len(node.input) == 1:
        unknown(reader, node)
        return
    axis = given.get("axis", 0) % len(x.shape)
    outs = [Tensor(part.shape, floating=x.floating, boolean=x.boolean) for part in reader.results[node.output[0]]]
    sizes = tuple(out.shape[axis] for out in outs)
    for out, end, size in zip(outs, np.cumsum(sizes), sizes, strict=True):
        reader.add("slice", x, out, {"axis": axis, "index": np.arange(end - size, end), "parts": outs, "sizes": sizes})
    reader.sequences[node.output[0]] = outs


def sequence_at(reader: Reader, node: NodeProto) -> None:
    parts, place = reader.sequences.get(node.input[0]), reader.static(node.input[1])
    if parts is None or place is None:
        unknown(reader, node)
    else:
        reader.values[node.output[0]] = parts[int(place.item())]


def slice_(reader: Reader, node: NodeProto) -> None:
    """A slice for each axis that is cut, none for one that is taken whole; where each starts and stops can follow."""
    x, cuts = reader.tensor(node.input[0]), slices(reader, node)
    if cuts is None:
        unknown(reader, node)
        return
    for number, (axis, cut) in enumerate(cuts):
        index = np.arange(*cut)
        shape = (*x.shape[:axis], len(index), *x.shape[axis + 1 :])
        part = reader.result(node.output[0]) if number == len(cuts) - 1 else Tensor(shape, floating=x.floating, boolean=x.boolean)
        reader.add("slice", x, part, {"axis": axis, "index": index, "cut": cut}, place=axis)
        x = part
    reader.values[node.output[0]] = x


def slices(reader: Reader, node: NodeProto) -> list[tuple[int, tuple[int, int, int]]] | None:
    """Return where each axis that is cut starts and stops, and its step, counted from the front; None where that is not known, or empty."""
    shape = reader.shape(node.input[0])
    bounds = [reader.static(name) if name else None for name in node.input[1:]]
    if any(bound is None for bound, name in zip(bounds, node.input[1:], strict=True) if name):
        return None
    starts, ends = bounds[0], bounds[1]
    assert starts is not None and ends is not None
    axes = bounds[2] if len(bounds) > 2 and bounds[2] is not None else np.arange(len(starts))
    steps = bounds[3] if len(bounds) > 3 and bounds[3] is not None else np.ones(len(starts), int)
    found = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = shape[int(axis)]
        cut = taken(int(start), int(end), int(step), size)
        if not len(range(*cut)):
            return None
        if len(range(*cut)) < size or step < 0:
            found.append((int(axis) % len(shape), cut))
    return found


def pad(reader: Reader, node: NodeProto) -> None:
    x, amounts = reader.tensor(node.input[0]), reader.static(node.input[1])
    fill = reader.given(node, 2)
    named = reader.given(node, 3)
    axes = reader.static(named) if named else np.arange(len(x.shape))
    if amounts is None or axes is None or (fill and reader.static(fill) is None):
        unknown(reader, node)
        return
    grown = np.asarray(amounts).reshape(2, -1).any(axis=0)
    places = tuple(sorted(int(axis) % len(x.shape) for axis in np.asarray(axes)[grown]))
    if reader.attributes(node).get("mode", b"constant") == b"constant":
        value = float(reader.statics[fill].item()) if fill else 0.0
        reader.emit("pad", node.output[0], (x,), {"axes": places, "value": value})
    else:  # reflected, repeated: what is there already, so a constant stays one
        reader.emit("pool", node.output[0], (x,), {"axes": places, "function": "max", "padded": False})


def depth_to_space(reader: Reader, node: NodeProto) -> None:
    """Pixel shuffle: blocks of channels become squares of positions; the mode says whether a block's channels lie together."""
    x, given = reader.tensor(node.input[0]), reader.attributes(node)
    batch, channels, height, width = x.shape
    side = given["blocksize"]
    if given.get("mode", b"DCR") == b"CRD":
        split, order, sides = (batch, channels // side**2, side, side, height, width), (0, 1, 4, 2, 5, 3), (2, 3)
    else:
        split, order, sides = (batch, side, side, channels // side**2, height, width), (0, 3, 4, 1, 5, 2), (1, 2)
    _rearranged(reader, node, x, split, order, sides)


def space_to_depth(reader: Reader, node: NodeProto) -> None:
    x, side = reader.tensor(node.input[0]), reader.attributes(node)["blocksize"]
    batch, channels, height, width = x.shape
    _rearranged(reader, node, x, (batch, channels, height // side, side, width // side, side), (0, 3, 5, 1, 2, 4), (3, 5))


def _rearranged(reader: Reader, node: NodeProto, x: Tensor, split: tuple[int, ...], order: tuple[int, ...], sides: tuple[int, ...]) -> None:
    """The sides of a block are a number that the node holds."""
    blocks = reader.step("identity", reader.step("reshape", x, split), split, fixed=sides)
    moved = reader.step("transpose", blocks, tuple(split[axis] for axis in order), permutation=order)
    reader.emit("reshape", node.output[0], (moved,))


def resized(reader: Reader, node: NodeProto) -> None:
    """Resize and Upsample of positions: each result is a weighted mean of its neighbours, so constants stay constants."""
    x, out = reader.tensor(node.input[0]), reader.result(node.output[0]).shape
    if reader.attributes(node).get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        unknown(reader, node)
        return
    changed = tuple(axis for axis, (before, after) in enumerate(zip(x.shape, out, strict=True)) if before != after)
    attrs = {"axes": changed, "function": "average", "padded": False}
    sizes = reader.static(reader.given(node, 3)) if reader.given(node, 3) else None
    reader.emit("pool", node.output[0], (x,), attrs | ({"sizes": out} if sizes is not None and len(sizes) == len(out) else {}))


READINGS: dict[str, Reading] = {
    "Reshape": reshape,
    **dict.fromkeys(("Flatten", "Squeeze", "Unsqueeze"), regroup),
    "Transpose": transpose,
    "Expand": expand,
    "ConstantOfShape": filled,
    "Tile": tile,
    "Concat": concat,
    "Split": split,
    "SplitToSequence": split_to_sequence,
    "SequenceAt": sequence_at,
    "Slice": slice_,
    "Pad": pad,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    **dict.fromkeys(("Resize", "Upsample"), resized),
}
