"""Sizes that the file fixes follow the plan: a reshape's shape, the parts of a split, the bounds of a slice.

A constant may serve several nodes, so each node gets one of its own. What is computed from a Shape follows by itself.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from nnc.errors import SpeedupError
from nnc.graph.ir import Array
from nnc.graph.plan import Reshape
from nnc_onnx.protos import attributes, fresh, names, numbers, set_attribute


def place_of(output: str, axis: int) -> str:
    """Return how a plan names the cut of one axis by the Slice that makes `output`."""
    return f"{output}:{axis}"


def taken(start: int, end: int, step: int, size: int) -> tuple[int, int, int]:
    """Return where a Slice starts and stops, and its step, counted from the front.

    ONNX writes "from the far end on backwards" as an end below -size, where Python has None.
    """
    return slice(start, None if step < 0 and end < -size else end, step).indices(size)


def resize(model: ModelProto, reshape: Reshape) -> None:
    """Give the node that `reshape` names its new sizes."""
    if reshape.cut:
        _slice(model, reshape.function.rpartition(":")[0], reshape)
        return
    node = _maker(model, reshape.function)
    if node is None or node.op_type != reshape.op:
        raise SpeedupError(f"the plan resizes {reshape.op} {reshape.function!r}, which the model does not have: it is another model.")
    if reshape.op == "Split":
        _split(model, node, reshape)
    elif reshape.op == "SplitToSequence":
        _split(model, _as_split(model, node, len(reshape.new)), reshape)
    elif reshape.op == "Gather":
        node.input[1] = _constant(model, f"{node.output[0]}_indices", np.asarray(reshape.new, np.int64))
    elif reshape.op == "InstanceNormalization":
        _vectors(model, node, reshape)
    elif reshape.op == "GroupNormalization":
        set_attribute(node, "num_groups", reshape.new[1])
    else:
        _shape(model, node, reshape, {"Resize": 3, "ConstantOfShape": 0}.get(reshape.op, 1))


def _split(model: ModelProto, node: NodeProto, reshape: Reshape) -> None:
    del node.input[1:]
    for number, given in enumerate(node.attribute):
        if given.name == "num_outputs":
            del node.attribute[number]
            break
    node.input.append(_constant(model, f"{node.output[0]}_sizes", np.asarray(reshape.new, np.int64)))


def _as_split(model: ModelProto, node: NodeProto, count: int) -> NodeProto:
    """Put a Split in the place of a SplitToSequence: ONNX Runtime takes the parts of a sequence to be of one size."""
    graph, sequence = model.graph, node.output[0]
    readers = [(number, each) for number, each in enumerate(graph.node) if sequence in each.input]
    places = [literal(model, each.input[1]) if each.op_type == "SequenceAt" else None for _, each in readers]
    if any(place is None for place in places):
        raise SpeedupError(f"SplitToSequence {sequence!r}: its parts are read in a way that nnc cannot follow.")
    taken, outputs = names(model), [""] * count
    copies = []
    for (_, each), place in zip(readers, places, strict=True):
        number = int(np.asarray(place).item()) % count
        if outputs[number]:
            copies.append(helper.make_node("Identity", [outputs[number]], list(each.output)))
        outputs[number] = outputs[number] or each.output[0]
    outputs = [name or fresh(f"{sequence}_part", taken) for name in outputs]
    made = helper.make_node("Split", [node.input[0]], outputs, node.name or outputs[0], axis=attributes(node).get("axis", 0))
    for number, _ in reversed(readers):
        del graph.node[number]
    node.CopyFrom(made)
    _insert_behind(model, outputs[0], copies)
    return node


def _vectors(model: ModelProto, node: NodeProto, reshape: Reshape) -> None:
    """A scale and a shift that are the same number throughout are as long as there are channels."""
    for place in (1, 2):
        maker = _maker(model, node.input[place])
        if maker is None or maker.op_type not in ("Expand", "ConstantOfShape"):
            raise SpeedupError(f"{node.op_type} {node.output[0]!r}: its scale is computed in a way that nnc cannot follow.")
        copy, name = _copy(model, maker, f"{node.output[0]}_{place}"), maker.output[0]
        copy.input[1 if maker.op_type == "Expand" else 0] = _constant(model, f"{copy.output[0]}_shape", np.asarray([reshape.new[1]]))
        node.input[place] = copy.output[0]
        _insert_behind(model, name, [copy])


def _insert_behind(model: ModelProto, name: str, made: list[NodeProto]) -> None:
    """Put nodes behind the one that makes `name`."""
    place = next(number for number, each in enumerate(model.graph.node) if each.output[0] == name)
    for offset, each in enumerate(made, 1):
        model.graph.node.insert(place + offset, each)


def _slice(model: ModelProto, output: str, reshape: Reshape) -> None:
    """What was taken in steps lies unevenly now, so a Gather takes it."""
    axis, rank = reshape.cut
    node, place = _cutting(model, output, axis, rank)
    bounds = [_bounds(model, node, number) for number in (1, 2, 3, 4)]
    starts, ends = bounds[:2]
    assert starts is not None and ends is not None
    axes, steps = (np.asarray(default) if each is None else each for each, default in zip(bounds[2:], _defaults(len(starts)), strict=True))
    start, stop, step, size = reshape.old
    if abs(step) != 1:
        _gathered(model, node, [starts, ends, axes, steps], place, reshape.new)
        return
    if taken(int(starts[place]), int(ends[place]), step, size) != (start, stop, step):
        return  # computed bounds follow by themselves
    starts, ends = starts.copy(), ends.copy()
    starts[place] = reshape.new[0]
    ends[place] = reshape.new[1] if reshape.new[1] >= 0 else -reshape.new[3] - 1
    node.input[1] = _constant(model, f"{node.output[0]}_starts", starts)
    node.input[2] = _constant(model, f"{node.output[0]}_ends", ends)


def _defaults(count: int) -> tuple[list[int], list[int]]:
    """Return the axes, and the steps, of a Slice that gives none."""
    return list(range(count)), [1] * count


def _cutting(model: ModelProto, output: str, axis: int, rank: int) -> tuple[NodeProto, int]:
    """Return the Slice that cuts an axis on the way to an output, and which of its axes that is: it may be in pieces by now."""
    node = _maker(model, output)
    while node is not None and node.op_type in ("Slice", "Gather"):
        if node.op_type == "Slice":
            starts, axes = _bounds(model, node, 1), _bounds(model, node, 3)
            listed = range(0 if starts is None else len(starts)) if axes is None else axes
            for place, found in enumerate(listed):
                if found % rank == axis:
                    return node, place
        node = _maker(model, node.input[0])
    raise SpeedupError(f"the plan changes what a Slice takes for {output!r}, which the model does not have: it is another model.")


def _gathered(model: ModelProto, node: NodeProto, bounds: list[Array], place: int, indices: tuple[int, ...]) -> None:
    """Let a Gather take `indices` along the axis of a Slice at `place` of its `bounds`, between what it cuts before and after that."""
    value, result = node.input[0], node.output[0]
    taken_names, made = names(model), []
    for piece in (slice(place), None, slice(place + 1, None)):
        if piece is not None and not len(bounds[0][piece]):
            continue
        out = fresh(f"{result}_cut", taken_names)
        if piece is None:
            listed = _constant(model, f"{result}_indices", np.asarray(indices, np.int64))
            made.append(helper.make_node("Gather", [value, listed], [out], out, axis=int(bounds[2][place])))
        else:
            given = [_constant(model, f"{result}_bounds", bound[piece].astype(np.int64)) for bound in bounds]
            made.append(helper.make_node("Slice", [value, *given], [out], out))
        value = out
    made[-1].output[0], made[0].name = result, node.name
    number = next(number for number, each in enumerate(model.graph.node) if each is node or each.output[0] == result)
    node.CopyFrom(made[0])
    for offset, each in enumerate(made[1:], 1):
        model.graph.node.insert(number + offset, each)


def _bounds(model: ModelProto, node: NodeProto, place: int) -> Array | None:
    if place >= len(node.input) or not node.input[place]:
        return None
    found = literal(model, node.input[place])
    if found is None:
        raise SpeedupError(f"Slice {node.output[0]!r}: its bounds are computed from shapes; nnc changes only those that are written down.")
    return found.ravel()


def _shape(model: ModelProto, node: NodeProto, reshape: Reshape, input_: int) -> None:
    new = [None if old == size else size for old, size in zip(reshape.old, reshape.new, strict=True)]
    written = literal(model, node.input[input_])
    if written is not None:
        node.input[input_] = _constant(model, f"{node.output[0]}_shape", _changed(written.ravel(), new).astype(np.int64))
        return
    maker = _maker(model, node.input[input_])
    cast = maker if maker is not None and maker.op_type == "Cast" else None
    parts = _maker(model, cast.input[0]) if cast is not None else maker
    if parts is not None and parts.op_type == "Concat":
        _joined(model, node, input_, parts, cast, new)


def _maker(model: ModelProto, name: str) -> NodeProto | None:
    return next((node for node in model.graph.node if name in node.output), None)


def _joined(model: ModelProto, node: NodeProto, input_: int, parts: NodeProto, cast: NodeProto | None, new: list[int | None]) -> None:
    """A shape that is put together: what is written down of it changes, what is computed follows by itself."""
    known = [literal(model, name) for name in parts.input]
    computed = [part for part in known if part is None]
    free = len(new) - sum(part.size for part in known if part is not None)
    if free != len(computed) and len(computed) != 1:
        return  # which size each of several computed parts gives is not known; where one is wrong, the small model's trace shows it
    copy, start = _copy(model, parts, f"{node.output[0]}_shape"), 0
    for number, part in enumerate(known):
        length = (1 if free == len(computed) else free) if part is None else part.size
        if part is not None:
            value = _changed(part.ravel(), new[start : start + length]).astype(part.dtype)
            copy.input[number] = _constant(model, f"{node.output[0]}_sizes", value)
        start += length
    made = [copy]
    if cast is not None:
        made.append(_copy(model, cast, f"{node.output[0]}_cast"))
        made[1].input[0] = copy.output[0]
    node.input[input_] = made[-1].output[0]
    _insert_behind(model, parts.output[0], made)


def _copy(model: ModelProto, node: NodeProto, name: str) -> NodeProto:
    """Return a node that does the same under another name: the old one may serve others."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = copy.output[0] = fresh(name, names(model))
    return copy


def _changed(written: Array, new: list[int | None]) -> Array:
    """0, 1 in an Expand, and -1 speak of other sizes and stay."""
    return np.asarray([old if size is None or old in (0, -1) else size for old, size in zip(written.tolist(), new, strict=True)])


def _constant(model: ModelProto, name: str, value: Array) -> str:
    name = fresh(name, names(model))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def literal(model: ModelProto, name: str) -> Array | None:
    """Return a vector of whole numbers that is written down in the file, or None where it depends on a shape or an input."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            return numbers(tensor)
    node = next((node for node in model.graph.node if name in node.output), None)
    if node is None:
        return None
    if node.op_type == "Constant":
        (value,) = attributes(node).values()
        return numbers(value) if hasattr(value, "dims") else np.asarray(value)
    if node.op_type in ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"):
        return literal(model, node.input[0])
    if node.op_type == "Concat":
        parts = [literal(model, part) for part in node.input]
        return None if any(part is None for part in parts) else np.concatenate([part.ravel() for part in parts if part is not None])
    if node.op_type == "Mul":
        factors = [literal(model, factor) for factor in node.input]
        return None if any(factor is None for factor in factors) else np.prod(np.broadcast_arrays(*factors), axis=0)
    return _expanded(model, node) if node.op_type == "Shape" else None


def _expanded(model: ModelProto, node: NodeProto) -> Array | None:
    """Return the sizes that a Shape takes of what an Expand made to a shape that the file puts together, where they are written down."""
    made = _maker(model, node.input[0])
    joined = _maker(model, made.input[1]) if made is not None and made.op_type == "Expand" else None
    parts = [literal(model, name) for name in joined.input] if joined is not None and joined.op_type == "Concat" else []
    given = attributes(node)
    taken = parts[given.get("start", 0) : given.get("end", len(parts))]
    known = [part.ravel() for part in taken if part is not None and part.size == 1]
    return np.concatenate(known) if taken and len(known) == len(taken) else None
