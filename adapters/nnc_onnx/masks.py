"""Masks stand in the graph itself: a Where between a stored tensor and the nodes that read it.

    nnc.masked/W = Where(nnc.mask/W, W, 0)

The stored numbers stay as they are, ONNX Runtime computes what the masked model does, and onnx.save keeps the masks. Taking them away
restores the graph as it was.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from nnc.adapter import Masks
from nnc_onnx.layers import Finder, OnnxLayer, Slot
from nnc_onnx.protos import OURS, copied

_MASK, _MASKED, _ZERO = f"{OURS}mask/", f"{OURS}masked/", f"{OURS}zero/"


def masks_of(layers: list[OnnxLayer]) -> Masks:
    """Return the masks that the model is seen through."""
    found = {layer.name: {key: mask for key in layer.slots if (mask := layer.mask(key)) is not None} for layer in layers}
    return {name: given for name, given in found.items() if given}


def set_masks(model: ModelProto, masks: Masks) -> None:
    """See the model through `masks`, and through no others."""
    slots = {(layer.name, key): slot for layer in Finder(model).layers for key, slot in layer.slots.items()}
    wanted = [(slots[name, key], mask) for name, given in masks.items() for key, mask in given.items()]
    _take_away(model)
    if wanted:
        _put_in(model, wanted)


def unmasked(model: ModelProto) -> ModelProto:
    """Return the model, or a copy of it without masks where it has some."""
    if not any(node.name.startswith(_MASKED) for node in model.graph.node):
        return model
    bare = copied(model)
    _take_away(bare)
    return bare


def _put_in(model: ModelProto, wanted: list[tuple[Slot, np.ndarray]]) -> None:
    graph = model.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    types |= {node.output[0]: given.t.data_type for node in graph.node if node.op_type == "Constant" for given in node.attribute}
    names = {slot.tensor: _MASKED + slot.tensor for slot, _ in wanted}
    _rename(model, names)
    nodes, zeros = [], {types[name] for name in names}
    for slot, mask in wanted:
        native = np.ascontiguousarray(slot.native(np.asarray(mask, bool)))
        graph.initializer.append(numpy_helper.from_array(native, _MASK + slot.tensor))
        given = [_MASK + slot.tensor, slot.tensor, f"{_ZERO}{types[slot.tensor]}"]
        nodes.append(helper.make_node("Where", given, [names[slot.tensor]], name=names[slot.tensor]))
    for kind in zeros:
        graph.initializer.append(numpy_helper.from_array(np.zeros((), helper.tensor_dtype_to_np_dtype(kind)), f"{_ZERO}{kind}"))
    for node in nodes:
        _insert(model, node)


def _insert(model: ModelProto, mask: NodeProto) -> None:
    """Put a mask in front of everything, but behind the Constant that it masks."""
    made = (number for number, node in enumerate(model.graph.node) if node.output[0] == mask.input[1])
    model.graph.node.insert(next(made, -1) + 1, mask)


def _take_away(model: ModelProto) -> None:
    graph = model.graph
    names = {node.output[0]: node.input[1] for node in graph.node if node.name.startswith(_MASKED)}
    for number in reversed(range(len(graph.node))):
        if graph.node[number].name.startswith(_MASKED):
            del graph.node[number]
    for number in reversed(range(len(graph.initializer))):
        if graph.initializer[number].name.startswith((_MASK, _ZERO)):
            del graph.initializer[number]
    _rename(model, names)


def _rename(model: ModelProto, names: dict[str, str]) -> None:
    """Let every node read other tensors."""
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in names:
                node.input[place] = names[name]
