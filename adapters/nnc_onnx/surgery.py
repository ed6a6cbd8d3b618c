"""Make the small model: a copy of the graph whose stored numbers are cut, and whose attributes and fixed sizes follow."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from nnc.adapter import Masks
from nnc.errors import SpeedupError
from nnc.graph.ir import Array
from nnc.graph.plan import Plan
from nnc_onnx.layers import Finder, OnnxLayer, Slot, join
from nnc_onnx.masks import unmasked
from nnc_onnx.protos import attributes, captured, copied, fresh, held, inputs_of, names, numbers, put, set_attribute, stored
from nnc_onnx.resize import resize

Kept = Mapping[str, Mapping[int, Array]]


def shrink(model: ModelProto, plan: Plan, masks: Masks, folds: Mapping[str, Array]) -> ModelProto:
    """Return the small model; the user's stays as it is. Raises `SpeedupError` where onnx's checker refuses the result."""
    small = copied(unmasked(model))
    finder = Finder(small)
    layers = {layer.name: layer for layer in finder.layers}
    paths = finder.paths()
    shapes = {path: slot.shape(tuple(finder.stored[name].dims)) for name, (path, slot) in paths.items()}
    biases = {join(name, "bias"): shapes[join(name, "weight")][:1] for name in plan.biases}
    kept = plan.kept_indices(shapes | biases)
    keep = {join(layer, key): mask for layer, given in masks.items() for key, mask in given.items()}
    groups = {size.layer: size.new for size in plan.sizes if size.attribute == "groups"}
    for name, (path, slot) in paths.items():
        array = _cut(numbers(finder.stored[name]), path, slot, keep, folds, kept)
        if array is not None:
            put(finder.stored[name], slot.native(array, groups.get(path.rpartition(".")[0])))
    for name, new in groups.items():
        for number in layers[name].nodes:
            set_attribute(small.graph.node[number], "group", new)
    owners = {path: layers[path.rpartition(".")[0] if "." in path else ""] for path in biases}
    results = {path: {small.graph.node[number].output[0] for number in layer.nodes} for path, layer in owners.items()}
    _follow_recurrent(small, layers)
    for reshape in plan.reshapes:
        resize(small, reshape)  # it inserts nodes, so that their numbers mean others from here on
    for path, shape in biases.items():
        # nnc.load gives no folds: it sets every number afterwards.
        addend = np.asarray(folds.get(path, np.zeros(shape)))
        _add_bias(small, owners[path], results[path], path, addend[kept[path][0]] if path in kept else addend)
    return _finished(small)


def _cut(array: Array, path: str, slot: Slot, keep: Mapping[str, Array], folds: Mapping[str, Array], kept: Kept) -> Array | None:
    """Return what stays of a stored tensor, canonical: masked, with its addend, cut; None where nothing about it changes."""
    mask, addend, indices = keep.get(path), folds.get(path), kept.get(path, {})
    if mask is None and addend is None and not indices:
        return None
    result = slot.canonical(array)
    if mask is not None:
        result = np.where(mask, result, 0)
    if addend is not None:
        result = result.astype(np.float64) + addend
    for axis, index in indices.items():
        result = result.take(index, axis)
    return np.asarray(result)


def _follow_recurrent(model: ModelProto, layers: Mapping[str, OnnxLayer]) -> None:
    """Note the size of the state in recurrent nodes; zeros that the file fixes as their first state are left out, of whatever size."""
    zeros = _zeros(model)
    for layer in layers.values():
        slot = layer.slots.get("recurrent_weight")
        if slot is None:
            continue
        for node in (model.graph.node[number] for number in layer.nodes):
            set_attribute(node, "hidden_size", int(layer.tensors[slot.tensor].dims[-1]))
            for place in range(5, len(node.input)):
                if node.input[place] in zeros:
                    node.input[place] = ""


def _zeros(model: ModelProto) -> set[str]:
    """Return the names of what is zero in the file: stored so, or made from a zero by giving it a shape."""
    found = {name for name, tensor in held(model) if not numbers(tensor).any()}
    for node in model.graph.node:
        made = attributes(node).get("value")
        zero = node.op_type == "ConstantOfShape" and (made is None or not numbers(made).any())
        if zero or (node.op_type in _SHAPING and node.input[0] in found):
            found.update(node.output)
    return found


#: What gives numbers another shape, or another type, and zeros stay zeros.
_SHAPING = ("Expand", "Reshape", "Unsqueeze", "Squeeze", "Slice", "Tile", "Cast", "Identity", "Transpose")


def _add_bias(model: ModelProto, layer: OnnxLayer, made: set[str], path: str, bias: Array) -> None:
    """Give the nodes that make a layer's results a bias: as their third input, or as an Add behind a MatMul."""
    taken = names(model)
    name = fresh(path, taken)
    dtype = helper.tensor_dtype_to_np_dtype(layer.tensors[layer.slots["weight"].tensor].data_type)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(bias, dtype), name))
    for number in reversed(range(len(model.graph.node))):
        node = model.graph.node[number]
        if node.output[0] not in made:
            continue
        if node.op_type == "MatMul":
            model.graph.node.insert(number + 1, _add_behind(node, name, taken))
        else:
            del node.input[2:]
            node.input.append(name)


def _add_behind(node: NodeProto, bias: str, taken: set[str]) -> NodeProto:
    result = node.output[0]
    node.output[0] = fresh(f"{result}_product", taken)
    return helper.make_node("Add", [node.output[0], bias], [result], name=fresh(f"{node.name or result}_bias", taken))


def _drop_replaced(model: ModelProto) -> None:
    """Take out the sizes that no node reads any more."""
    graph, floats = model.graph, stored(model)
    read = {name for node in graph.node for name in (*node.input, *captured(node))} | {out.name for out in graph.output}
    for number in reversed(range(len(graph.initializer))):
        name = graph.initializer[number].name
        if name not in read and name not in floats:
            del graph.initializer[number]


def _finished(model: ModelProto) -> ModelProto:
    """Note the new shapes, and let onnx's checker look at the result."""
    wanted = inputs_of(model)
    if len(wanted) != len(model.graph.input):
        del model.graph.input[:]  # an old file lists initializers here, with their old shapes
        model.graph.input.extend(wanted)
        model.ir_version = max(model.ir_version, 4)
    del model.graph.value_info[:]
    _drop_replaced(model)
    try:
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise SpeedupError(f"onnx does not accept the small model: {error}. Please report it.") from error
    return model
