"""From ONNX's nodes to nnc's graph: the reader, which the tables of operations build on.

A stored tensor stays unresolved until it is used: a convolution takes it in the canonical orientation, any other operation gets a
transpose to the orientation that it reads in front. What follows from constants and shapes alone is a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from nnc.graph.ir import Array, Graph, Node, Shape, Source, Tensor, constant
from nnc_onnx.evaluate import Evaluations
from nnc_onnx.layers import Finder, Slot, View
from nnc_onnx.protos import OURS, attributes, captured, held, numbers
from nnc_onnx.resize import place_of

Reading = Callable[["Reader", NodeProto], None]

#: What makes arrays of one number, or of such arrays.
_SPREADING = ("Expand", "ConstantOfShape", "Identity", "Cast", "CastLike", "Add", "Sub", "Mul", "Div")
_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")


class Reader:
    """Builds a `Graph`; `values` holds what each of ONNX's names became, `results` what ONNX Runtime computed for it."""

    def __init__(self, model: ModelProto, results: Mapping[str, Any], readings: Mapping[str, Reading], file: str) -> None:
        self.model, self.results, self.readings, self.file = model, results, readings, file
        self.graph = Graph()
        self.finder = Finder(model)
        self.values: dict[str, Tensor] = {}
        self.sequences: dict[str, list[Tensor]] = {}
        self.nan_tests: dict[str, str] = {}
        self.later: dict[str, Callable[[], None]] = {}
        self.statics = {name: numbers(tensor) for name, tensor in held(model) if name not in self.finder.stored}
        self._owners = {number: layer.name for layer in self.finder.layers for number in layer.nodes}
        self._products = {add: product for product, add in self.finder.fused.items()}
        self._parameters = {name: self._parameter(path, slot) for name, (path, slot) in self.finder.paths().items()}
        self._slots = {name: slot for name, (_, slot) in self.finder.paths().items()}
        self._evaluations = Evaluations(model)
        self._directions: dict[Tensor, Tensor] = {}
        self._makers = {name: number for number, node in enumerate(model.graph.node) for name in node.output}
        self._node: NodeProto | None = None
        self._number = 0

    def _parameter(self, path: str, slot: Slot) -> Tensor:
        tensor: TensorProto = self.finder.stored[slot.tensor]
        running = path.rpartition(".")[2].startswith("running_")
        return Tensor(slot.shape(tuple(tensor.dims)), "parameter", path, True, not running, partial(_canonical, slot, tensor))

    def read(self, given: Mapping[str, Array]) -> Graph:
        """Return the graph of the whole model."""
        for name, array in given.items():
            self.values[name] = Tensor(array.shape, "input", floating=array.dtype.kind == "f", boolean=array.dtype.kind == "b")
            self.graph.inputs.append(self.values[name])
        for number, node in enumerate(self.model.graph.node):
            self._number, self._node = number, node
            self._read(node)
        self.graph.outputs = [self.tensor(out.name) for out in self.model.graph.output]
        return self.graph

    def _read(self, node: NodeProto) -> None:
        if node.name.startswith(OURS) or self._number in self._products or node.output[0] in self.finder.views:
            return
        if self._is_static(node):
            self.statics.update({name: np.asarray(self.results[name]) for name in node.output if name})
        else:
            kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            self.readings.get(kind, unknown)(self, node)

    def _is_static(self, node: NodeProto) -> bool:
        """Tell whether a result follows from constants and shapes alone."""
        if node.op_type in ("Shape", "Size", "Constant"):
            return True
        if node.op_type in _RANDOM or any(given.type == AttributeProto.GRAPH for given in node.attribute):
            return False
        read = node.input[:1] if node.op_type == "CastLike" else node.input
        return all(name in self.statics for name in read if name)

    def static(self, name: str) -> Array | None:
        """Return the value of what is known without the inputs and the parameters, or None."""
        return self.statics.get(name)

    def given(self, node: NodeProto, place: int) -> str:
        """Return the name of a node's input, "" where it is absent."""
        return node.input[place] if place < len(node.input) else ""

    def view(self, name: str) -> View | None:
        """Return the stored tensor that a name shows, and the order of its axes."""
        return self.finder.views.get(name)

    def parameter(self, tensor: str) -> tuple[Tensor, Slot]:
        """Return the graph's tensor for a stored one, canonical, and its layout."""
        return self._parameters[tensor], self._slots[tensor]

    def tensor(self, name: str) -> Tensor:
        """Return the graph's tensor for a name, parameters with their axes as the node reads them."""
        if name in self.later:
            self.later.pop(name)()
        if name not in self.values:
            view = self.finder.views.get(name)
            self.values[name] = self._shown(view) if view else self._constant(name)
        return self.values[name]

    def _shown(self, view: View) -> Tensor:
        """Emit the way from the canonical orientation to what a node reads."""
        tensor, slot = self.parameter(view.tensor)
        rest = tuple(range(2, len(tensor.shape)))
        if slot.dims:
            whole, tensor = tensor, self.step("reshape", tensor, tuple(self.finder.stored[view.tensor].dims))
            self._directions[tensor] = whole
            rest = tuple(range(2, len(tensor.shape)))
        if slot.directions:
            shown = self.step("reshape", tensor, tuple(self.finder.stored[view.tensor].dims))
            self._directions[shown] = tensor
            return shown
        if slot.groups > 1:
            tensor = self.step("unknown", tensor, tuple(self.finder.stored[view.tensor].dims))
        order = (1, 0, *rest) if slot.groups == 1 else tuple(range(len(tensor.shape)))
        order = tuple(order[axis] for axis in view.order)
        if order == tuple(range(len(order))):
            return tensor
        return self.step("transpose", tensor, tuple(tensor.shape[axis] for axis in order), permutation=order)

    def _constant(self, name: str) -> Tensor:
        """A constant array has a size of its own that nothing can cut, so its axes are pinned; a number has none.

        One that the file makes of a single number follows in size, where the operations that make it do.
        """
        value = self.statics[name] if name in self.statics else np.asarray(self.results[name])
        found = constant(value)
        if not (found.floating or found.boolean) or value.size <= 1:
            return found
        number = self._makers.get(name)
        if number is not None and self.model.graph.node[number].op_type in _SPREADING and (value == value.flat[0]).all():
            return self._spread(name, number)
        return self.step("identity", found, found.shape, fixed=tuple(range(value.ndim)))

    def _spread(self, name: str, number: int) -> Tensor:
        """Read the operation that makes a constant as if it were none."""
        place = self._number, self._node
        self._number, self._node = number, self.model.graph.node[number]
        self.readings[self._node.op_type](self, self._node)
        self._number, self._node = place
        return self.values[name]

    def node(self, kind: str, inputs: Sequence[Tensor | None], outputs: tuple[Tensor, ...], attrs: Mapping[str, Any]) -> None:
        """Add a node that makes several tensors of its own."""
        self.graph.nodes.append(self._made(kind, tuple(inputs), outputs, attrs, None))

    def whole(self, shown: Tensor) -> Tensor | None:
        """Return the parameter that a tensor shows direction behind direction, or None."""
        return self._directions.get(shown)

    def step(self, kind: str, x: Tensor, shape: Shape, **attrs: Any) -> Tensor:
        """Add a node between two of ONNX's results and return what it makes."""
        return self.join(kind, (x,), shape, **attrs)

    def join(self, kind: str, inputs: Sequence[Tensor | None], shape: Shape, evaluate: Any = None, **attrs: Any) -> Tensor:
        """Add a node of several inputs, as `step` does."""
        given = [x for x in inputs if x is not None]
        out = Tensor(tuple(shape), floating=any(x.floating for x in given), boolean=all(x.boolean for x in given))
        self.graph.nodes.append(self._made(kind, tuple(inputs), (out,), attrs, evaluate))
        return out

    def emit(
        self, kind: str, name: str, inputs: Sequence[Tensor | None], attrs: Mapping[str, Any] | None = None, evaluate: Any = None
    ) -> None:
        """Add a node that makes one of ONNX's results."""
        self.values[name] = out = self.result(name)
        self.graph.nodes.append(self._made(kind, tuple(inputs), (out,), attrs or {}, evaluate))

    def add(self, kind: str, x: Tensor, out: Tensor, attrs: Mapping[str, Any], place: int | None = None) -> None:
        """Add a node that makes a tensor which is there already; `place` tells apart the axes that one Slice cuts."""
        self.graph.nodes.append(self._made(kind, (x,), (out,), attrs, None, place))

    def result(self, name: str) -> Tensor:
        """Return a new tensor for one of ONNX's results."""
        value = np.asarray(self.results[name])
        return Tensor(value.shape, floating=value.dtype.kind not in "iub", boolean=value.dtype.kind == "b")

    def shape(self, name: str) -> Shape:
        """Return the shape of one of ONNX's values."""
        return self.tensor(name).shape

    def attributes(self, node: NodeProto) -> dict[str, Any]:
        return attributes(node)

    def made_by(self, node: NodeProto) -> str:
        """Return the name under which a node's result is read: that of the Add which is its bias, where there is one."""
        fused = self.finder.fused.get(self._number)
        return self.model.graph.node[fused].output[0] if fused is not None else node.output[0]

    def bias(self, name: str) -> Tensor | None:
        """Return a bias, or None where there is none: exporters also write one as zeros that are made as long as the weight."""
        value = self.statics.get(name)
        return self.tensor(name) if name and (value is None or value.any()) else None

    def bias_of(self, node: NodeProto) -> str:
        """Return the vector that a product's Add adds, "" where there is none."""
        fused = self.finder.fused.get(self._number)
        if fused is None:
            return ""
        return next(name for name in self.model.graph.node[fused].input if name != node.output[0])

    def evaluation(self, node: NodeProto, *places: int) -> Callable[..., Array]:
        """Return a function of the inputs at `places` that computes a node, the others being what they are."""
        fixed = {place: self.statics[name] for place, name in enumerate(node.input) if name and place not in places}
        return self._evaluations.of(node, places, fixed)

    def _made(self, kind: str, inputs: Any, outputs: Any, attrs: Mapping[str, Any], evaluate: Any, place: int | None = None) -> Node:
        assert self._node is not None
        output = self._node.output[0]
        source = Source(self.file, self._number, output if place is None else place_of(output, place))
        return Node(kind, inputs, outputs, dict(attrs), self._node.op_type, self._owners.get(self._number, ""), source, evaluate)


def _canonical(slot: Slot, tensor: TensorProto) -> Array:
    return slot.canonical(numbers(tensor))


def unknown(reader: Reader, node: NodeProto) -> None:
    """Pin whatever the operation touches; a subgraph also reads names from outside."""
    read = [name for name in (*node.input, *captured(node)) if name and _is_known(reader, name)]
    inputs = [reader.tensor(name) for name in read]
    for name in node.input:
        inputs += reader.sequences.get(name, [])
    for name in (name for name in node.output if name):
        made = reader.results[name]
        if isinstance(made, np.ndarray):
            reader.emit("unknown", name, inputs)
        elif isinstance(made, list):
            reader.sequences[name] = [reader.join("unknown", inputs, np.shape(part)) for part in made]


def _is_known(reader: Reader, name: str) -> bool:
    known = name in reader.values or name in reader.finder.views or name in reader.statics
    return known or isinstance(reader.results.get(name), np.ndarray)
