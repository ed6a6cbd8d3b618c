"""The layers of an ONNX graph: nodes that own stored numbers, named as the exporter named these.

    Gemm, MatMul (and the Add behind it)   Linear          Conv                 Conv1d, Conv2d, Conv3d, DepthwiseConv2d, ...
    ConvTranspose                          ConvTranspose2d BatchNormalization   BatchNorm2d
    Gather from a table                    Embedding       LayerNormalization   LayerNorm
    LSTM, GRU, RNN                         LSTM, GRU, RNN
    Mul and Add with a stored vector each  Affine          (what exporters make of BatchNorm in inference, and of GroupNorm)

"encoder.0.weight" belongs to the layer "encoder.0". Where an exporter kept no such names, the node's own name serves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import array_api_compat.numpy
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from nnc.graph.ir import Array, Shape
from nnc_onnx.protos import OURS, attributes, numbers, stored

_DIRECTIONS = 2
#: What exporters put a recurrent layer's weights together with.
_ASSEMBLING = ("Concat", "Slice", "Split", "Unsqueeze", "Squeeze", "Reshape", "Identity")
_PRUNABLE = ("Linear", "Embedding", "Conv", "Depthwise", "LSTM", "GRU", "RNN")


def swapped(array: Array, groups: int) -> Array:
    """Return `(in, out / groups, *kernel)` as `(out, in / groups, *kernel)`, or that the other way round: it is its own inverse."""
    rows, columns, *kernel = array.shape
    blocks = array.reshape(groups, rows // groups, columns, *kernel)
    return np.asarray(blocks.swapaxes(1, 2).reshape(groups * columns, rows // groups, *kernel))


@dataclass(frozen=True)
class Slot:
    """A parameter of a layer: the name of the stored tensor, and how that becomes canonical.

    `groups`: those with which `swapped` does it; `dims`: the shape of what is a vector to a layer, -1 for the axis that may shrink;
    `directions`: of a recurrent layer's weight (directions, rows, columns), whose rows are joined.
    """

    tensor: str
    groups: int = 0
    dims: Shape = ()
    directions: int = 0

    def canonical(self, array: Array) -> Array:
        if self.dims:
            return array.reshape(-1)
        if self.directions:
            return array.reshape(-1, array.shape[-1])
        return swapped(array, self.groups) if self.groups else array

    def native(self, array: Array, groups: int | None = None) -> Array:
        if self.dims:
            return array.reshape(self.dims)
        if self.directions:
            return array.reshape(self.directions, -1, array.shape[-1])
        return swapped(array, groups or self.groups) if self.groups else array

    def shape(self, native: Shape) -> Shape:
        if self.dims:
            return (math.prod(native),)
        if self.directions:
            return (math.prod(native[:2]), native[2])
        if not self.groups:
            return tuple(native)
        return (native[1] * self.groups, native[0] // self.groups, *native[2:])


class View(NamedTuple):
    """What an input of a node is: a stored tensor with its axes in the order `order`."""

    tensor: str
    order: tuple[int, ...]


@dataclass(frozen=True)
class OnnxLayer:
    """A layer as an algorithm sees it; `nodes` are the numbers of the nodes that compute it."""

    name: str
    op_types: tuple[str, ...]
    slots: Mapping[str, Slot]
    tensors: Mapping[str, TensorProto]
    nodes: list[int] = field(default_factory=list)

    @property
    def op_type(self) -> str:
        return self.op_types[0]

    @property
    def prunable(self) -> bool:
        return self.op_type.startswith(_PRUNABLE)

    @property
    def parameters(self) -> dict[str, Shape]:
        return {name: slot.shape(tuple(self.tensors[slot.tensor].dims)) for name, slot in self.slots.items() if "running" not in name}

    @property
    def native(self) -> dict[str, str]:
        return {name: name for name in self.parameters}

    @property
    def ops(self) -> Any:
        return array_api_compat.numpy

    @property
    def weight(self) -> Array:
        return self.effective("weight")

    @property
    def bias(self) -> Array | None:
        return self.effective("bias") if "bias" in self.slots else None

    def canonical(self, parameter: str, array: Array) -> Array:
        return self.slots[parameter].canonical(np.asarray(array))

    def effective(self, parameter: str) -> Array:
        """Return a parameter in the canonical shape, masks applied."""
        slot, mask = self.slots[parameter], self.mask(parameter)
        array = slot.canonical(numbers(self.tensors[slot.tensor]))
        return array if mask is None else np.where(mask, array, array.dtype.type(0))

    def mask(self, parameter: str) -> Array | None:
        """Return the mask over a parameter, canonical, or None."""
        slot = self.slots[parameter]
        found = self.tensors.get(f"{OURS}mask/{slot.tensor}")
        return None if found is None else slot.canonical(numbers(found))


class Finder:
    """Finds the layers of a model; `fused` are the Add nodes that are the bias of a MatMul, by the number of that."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.stored = stored(model)
        self.tensors = self.stored | {t.name: t for t in model.graph.initializer if t.name.startswith(OURS)}
        self.views = {name: View(name, tuple(range(len(tensor.dims)))) for name, tensor in self.stored.items()}
        self.fused: dict[int, int] = {}
        self.layers: list[OnnxLayer] = []
        self._owner: dict[str, OnnxLayer] = {}
        self._readers: dict[str, list[int]] = {}
        self._makers = {name: number for number, node in enumerate(model.graph.node) for name in node.output}
        for number, node in enumerate(model.graph.node):
            for name in node.input:
                self._readers.setdefault(name, []).append(number)
        for number, node in enumerate(model.graph.node):
            self._look(number, node)

    def _look(self, number: int, node: NodeProto) -> None:
        if node.op_type in ("Identity", "Transpose") or node.name.startswith(OURS):
            self._passed_on(node)
        elif node.op_type in _FINDERS:
            found = _FINDERS[node.op_type](self, number, node)
            if found is not None:
                self._note(number, node, *found)

    def _passed_on(self, node: NodeProto) -> None:
        """A transpose of a stored tensor is still that tensor, and so is what nnc's masks let through."""
        view = self.views.get(node.input[1] if node.op_type == "Where" else node.input[0])
        if view is not None:
            order = attributes(node).get("perm", tuple(reversed(range(len(view.order))))) if node.op_type == "Transpose" else None
            self.views[node.output[0]] = view if order is None else View(view.tensor, tuple(view.order[axis] for axis in order))

    def plain(self, node: NodeProto, place: int) -> str | None:
        """Return the stored tensor that is an input of a node as it lies, or None."""
        view = self.views.get(node.input[place]) if place < len(node.input) else None
        return view.tensor if view is not None and view.order == tuple(range(len(view.order))) else None

    def vector(self, name: str, size: int) -> bool:
        view = self.views.get(name)
        return view is not None and tuple(self.stored[view.tensor].dims) == (size,)

    def bias_behind(self, number: int, node: NodeProto, size: int) -> Slot | None:
        """Return the vector that the only reader of a product adds to it, and note that Add as part of the layer.

        Keras adds it behind a reshape to heads, as an array (heads, size of a head); there it stays a node of its own.
        """
        add, other = self.added(node)
        if other is not None and self.vector(other, size):
            self.fused[number] = add
            return Slot(self.views[other].tensor)
        split = self._only_reader(node)
        if split is None or self.model.graph.node[split].op_type != "Reshape":
            return None
        _, other = self.added(self.model.graph.node[split])
        view = self.views.get(other) if other is not None else None
        dims = tuple(self.stored[view.tensor].dims) if view is not None else ()
        return Slot(view.tensor, dims=(-1, *dims[1:])) if view is not None and len(dims) == 2 and math.prod(dims) == size else None

    def _only_reader(self, node: NodeProto) -> int | None:
        readers = self._readers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 and all(out.name != node.output[0] for out in self.model.graph.output) else None

    def added(self, node: NodeProto) -> tuple[int, str | None]:
        """Return the number of the Add that is a result's only reader, and what it adds; None where there is none."""
        reader = self._only_reader(node)
        if reader is None:
            return -1, None
        add = self.model.graph.node[reader]
        other = [name for name in add.input if name != node.output[0]]
        return reader, other[0] if add.op_type == "Add" and len(other) == 1 else None

    def sources(self, name: str) -> list[str]:
        """Return the stored tensors that an input of a node is put together from, in their order; none where numbers are computed."""
        view = self.views.get(name)
        if view is not None:
            return [view.tensor]
        maker = self.model.graph.node[self._makers[name]] if name in self._makers else None
        if maker is None or maker.op_type not in _ASSEMBLING:
            return []
        parts = maker.input if maker.op_type == "Concat" else maker.input[:1]
        return list(dict.fromkeys(source for part in parts for source in self.sources(part)))

    def wide_vector(self, name: str) -> Slot | None:
        """Return the slot of a stored vector that a name shows, with axes of size 1 put around it or not."""
        maker = self.model.graph.node[self._makers[name]] if name in self._makers else None
        while name not in self.views and maker is not None and maker.op_type in ("Unsqueeze", "Reshape", "Cast", "CastLike", "Identity"):
            name = maker.input[0]
            maker = self.model.graph.node[self._makers[name]] if name in self._makers else None
        view = self.views.get(name)
        dims = tuple(self.stored[view.tensor].dims) if view is not None else ()
        if view is None or sum(size != 1 for size in dims) != 1:
            return None
        return Slot(view.tensor, dims=tuple(size if size == 1 else -1 for size in dims) if len(dims) > 1 else ())

    def _note(self, number: int, node: NodeProto, kinds: tuple[str, ...], slots: dict[str, Slot]) -> None:
        main = slots["weight"].tensor
        owner = self._owner.get(main)
        if owner is None:
            mine = {name: slot for name, slot in slots.items() if slot.tensor not in self._owner}
            owner = OnnxLayer(self._name(node, mine), (*kinds, node.op_type), mine, self.tensors)
            self.layers.append(owner)
            self._owner.update({slot.tensor: owner for slot in mine.values()})
        owner.nodes.append(number)

    def _name(self, node: NodeProto, slots: Mapping[str, Slot]) -> str:
        taken = {layer.name for layer in self.layers}
        base = next((name for key, slot in slots.items() if (name := _without(slot.tensor, key)) is not None), None)
        base = _recurrent_name(slots["weight"].tensor) if base is None and "recurrent_weight" in slots else base
        base = _node_name(node) if base is None else base
        name, number = base, 0
        while name in taken or any(join(name, key) in self.stored and join(name, key) != slot.tensor for key, slot in slots.items()):
            number += 1
            name = f"{base}_{number}"
        return name

    def paths(self) -> dict[str, tuple[str, Slot]]:
        """Return the canonical path and the layout of every stored tensor, by its name."""
        owned = {slot.tensor: (join(layer.name, key), slot) for layer in self.layers for key, slot in layer.slots.items()}
        return {name: owned.get(name, (name, Slot(name))) for name in self.stored}


def join(layer: str, parameter: str) -> str:
    return f"{layer}.{parameter}" if layer else parameter


def _without(tensor: str, parameter: str) -> str | None:
    """Return the layer's name in a tensor's, or None where the tensor is not named after a parameter."""
    if tensor == parameter:
        return ""
    return tensor.removesuffix(f".{parameter}") if tensor.endswith(f".{parameter}") else None


def _recurrent_name(tensor: str) -> str | None:
    """Return the layer's name in `encoder.weight_ih_l0`, as torch calls the weight of a recurrent layer; None for any other name."""
    layer, _, name = tensor.rpartition(".")
    return layer if name.startswith("weight_ih") else None


def _node_name(node: NodeProto) -> str:
    """Return "encoder.layer.0.query" for "/encoder/layer.0/query/MatMul"."""
    parts = [part for part in (node.name or node.output[0]).split("/") if part]
    if len(parts) > 1 and parts[-1].rstrip("0123456789_") == node.op_type:
        parts.pop()
    return ".".join(parts)


Found = tuple[tuple[str, ...], dict[str, Slot]]


def _linear(finder: Finder, number: int, node: NodeProto) -> Found | None:
    view = finder.views.get(node.input[1])
    if view is None or len(view.order) != 2 or node.input[0] in finder.views:
        return None
    given = attributes(node)
    if given.get("transA") or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
        return None
    turned = (view.order == (1, 0)) != bool(given.get("transB"))
    slots = {"weight": Slot(view.tensor, 0 if turned else 1)}
    size = slots["weight"].shape(tuple(finder.stored[view.tensor].dims))[0]
    if node.op_type == "MatMul":
        bias = finder.bias_behind(number, node, size)
    else:
        own = finder.plain(node, 2) if len(node.input) > 2 and finder.vector(node.input[2], size) else None
        bias = Slot(own) if own else None
    return ("Linear",), slots | ({"bias": bias} if bias else {})


def _conv(finder: Finder, number: int, node: NodeProto) -> Found | None:
    weight, bias, groups = finder.plain(node, 1), finder.plain(node, 2), attributes(node).get("group", 1)
    if weight is None:
        return None
    dims = finder.stored[weight].dims
    transposed = node.op_type == "ConvTranspose"
    name = f"{'ConvTranspose' if transposed else 'Conv'}{len(dims) - 2}d"
    kinds = (f"Depthwise{name}", name) if not transposed and groups > 1 and dims[1] == 1 else (name,)
    slots = {"weight": Slot(weight, groups if transposed else 0)}
    return kinds, slots | ({"bias": Slot(bias)} if bias else {})


def _norm(finder: Finder, number: int, node: NodeProto) -> Found | None:
    keys = ("weight", "bias", "running_mean", "running_var")
    given = {key: finder.plain(node, place) for place, key in enumerate(keys, 1)}
    slots = {key: Slot(tensor) for key, tensor in given.items() if tensor}
    name = {"BatchNormalization": "BatchNorm2d", "LayerNormalization": "LayerNorm", "RMSNormalization": "RMSNorm"}[node.op_type]
    return ((name,), slots) if "weight" in slots else None


def _embedding(finder: Finder, number: int, node: NodeProto) -> Found | None:
    table = finder.plain(node, 0)
    if table is None or len(finder.stored[table].dims) != 2 or attributes(node).get("axis", 0) != 0:
        return None
    return ("Embedding",), {"weight": Slot(table)}


def _affine(finder: Finder, number: int, node: NodeProto) -> Found | None:
    weights = [slot for slot in map(finder.wide_vector, node.input) if slot is not None]
    _, added = finder.added(node)
    bias = finder.wide_vector(added) if added is not None else None
    if len(weights) != 1 or bias is None or len({math.prod(finder.stored[slot.tensor].dims) for slot in (*weights, bias)}) != 1:
        return None
    return ("Affine",), {"weight": weights[0], "bias": bias}


def _recurrent(finder: Finder, number: int, node: NodeProto) -> Found | None:
    """Weights lie as (directions, gates * hidden, columns), or are put together from what an exporter stores gate behind gate."""
    slots: dict[str, Slot] = {}
    for place, keys in ((1, ("weight",)), (2, ("recurrent_weight",)), (3, ("bias", "recurrent_bias"))):
        found = finder.sources(node.input[place]) if place < len(node.input) else []
        for count, tensor in enumerate(found):
            key = keys[count % len(keys)] + (f"_{count // len(keys)}" if count >= len(keys) else "")
            slots[key] = _rows(tensor, tuple(finder.stored[tensor].dims))
    return ((node.op_type,), slots) if {"weight", "recurrent_weight"} <= slots.keys() else None


def _rows(tensor: str, dims: Shape) -> Slot:
    if len(dims) == 3:
        return Slot(tensor, directions=dims[0])
    return Slot(tensor, dims=(dims[0], -1)) if len(dims) == 2 and dims[0] <= _DIRECTIONS else Slot(tensor)


_FINDERS: dict[str, Callable[[Finder, int, NodeProto], Found | None]] = {
    "Gemm": _linear,
    "MatMul": _linear,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "BatchNormalization": _norm,
    "LayerNormalization": _norm,
    "RMSNormalization": _norm,
    "Gather": _embedding,
    "Mul": _affine,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
