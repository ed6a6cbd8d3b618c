"""A graph under the pen: who makes a tensor, who reads it, what is constant; nodes come and go, and at the end what is unused leaves.

Nodes are compared by identity, and keep the label of the layer that they belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference

from nnc.export import LABEL
from nnc.graph.ir import Array
from nnc_onnx.protos import captured, fresh, names

#: Tensors of more numbers than this are no shapes.
_SHAPES = 64


class Draft:
    """A model that is being rewritten. `model` itself changes only when `finish` is called."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = []
        self.outputs = [out.name for out in model.graph.output]
        self.constants: dict[str, Array] = {}
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._taken = names(model)
        #: The tensors that took another's place, by that one's name.
        self.renamed: dict[str, str] = {}
        #: The stored tensor that a constant was made from.
        self.origins: dict[str, str] = {}
        self.ranks, self.types = _ranks_and_types(model)
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            else:
                self.nodes.append(node)
        self.maker: dict[str, NodeProto] = {name: node for node in self.nodes for name in node.output if name}

    def constant(self, name: str) -> Array | None:
        """Return the numbers of a constant tensor, or None for one that is computed."""
        if name not in self.constants and name in self._tensors:
            self.constants[name] = numpy_helper.to_array(self._tensors[name])
        return self.constants.get(name)

    def scalar(self, name: str) -> float | None:
        """Return a constant of one element as a number, or None."""
        array = self.constant(name)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def readers(self) -> dict[str, list[tuple[NodeProto, int]]]:
        """Return who reads each tensor, and as which input."""
        found: dict[str, list[tuple[NodeProto, int]]] = {}
        for node in self.nodes:
            for place, name in enumerate(node.input):
                found.setdefault(name, []).append((node, place))
            for name in captured(node):
                found.setdefault(name, []).append((node, -1))
        return found

    def only_reader(self, name: str, readers: dict[str, list[tuple[NodeProto, int]]]) -> NodeProto | None:
        """Return the one node that reads a tensor which is no output of the model, or None."""
        found = readers.get(name, [])
        return found[0][0] if len(found) == 1 and found[0][1] >= 0 and name not in self.outputs else None

    def new_constant(self, name: str, array: Any, origin: str = "") -> str:
        """Keep an array under a name like this one and return the name; `origin` is the constant that it was made from."""
        name = fresh(name, self._taken)
        self.constants[name] = np.asarray(array)
        if origin:
            self.origins[name] = self.origins.get(origin, origin)
        return name

    def new_tensor(self, name: str) -> str:
        """Return a name like this one that no tensor has."""
        return fresh(name, self._taken)

    def add(self, op: str, inputs: Iterable[str], output: str, like: NodeProto | None = None, **attributes: Any) -> NodeProto:
        """Add a node that makes `output`, and belongs to the layer of `like`."""
        node = helper.make_node(op, list(inputs), [output], name=f"{op}/{output}", **attributes)
        if like is not None and label(like):
            node.metadata_props.add(key=LABEL, value=label(like))
        self.nodes.append(node)
        self.maker[output] = node
        return node

    def remove(self, *gone: NodeProto) -> None:
        ids = {id(node) for node in gone}
        self.nodes = [node for node in self.nodes if id(node) not in ids]

    def read_instead(self, old: str, new: str, keep: Iterable[NodeProto] = ()) -> None:
        """Let every node but `keep` read another tensor."""
        kept = {id(node) for node in keep}
        for node in self.nodes:
            if id(node) not in kept:
                for place, name in enumerate(node.input):
                    if name == old:
                        node.input[place] = new

    def bypass(self, node: NodeProto) -> None:
        """Take out a node that hands on its first input."""
        source, result = node.input[0], node.output[0]
        maker = self.maker.get(source)
        if result in self.outputs:
            if maker is None or source in self.outputs:
                return  # an input, or another output: the node has to stay
            for place, name in enumerate(maker.output):
                if name == source:
                    maker.output[place] = result
            self.maker[result] = maker
            self.read_instead(source, result, keep=(node,))
            self.renamed[source] = result
        else:
            self.read_instead(result, source)
            self.renamed[result] = source
        self.remove(node)

    def current(self, name: str) -> str:
        """Return the tensor that stands for one of the original graph."""
        while name in self.renamed:
            name = self.renamed[name]
        return name

    def each(self, kind: str) -> list[NodeProto]:
        return [node for node in self.nodes if node.op_type == kind]

    def finish(self) -> ModelProto:
        """Write nodes and constants back into the model, in order and without what nobody reads, and return it."""
        ordered = _sorted(self._used())
        graph = self.model.graph
        read = {name for node in ordered for name in (*node.input, *captured(node))} | set(self.outputs)
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        known = {tensor.name for tensor in kept}
        kept += [numpy_helper.from_array(array, name) for name, array in self.constants.items() if name in read - known]
        nodes = [_copy(node) for node in ordered]
        kept = [_copy(tensor) for tensor in kept]
        for held, new in ((graph.node, nodes), (graph.initializer, kept)):
            del held[:]
            held.extend(new)
        del graph.value_info[:]
        return self.model

    def _used(self) -> list[NodeProto]:
        needed: set[int] = set()
        waiting = list(self.outputs)
        maker = {name: node for node in self.nodes for name in node.output if name}
        while waiting:
            node = maker.get(waiting.pop())
            if node is not None and id(node) not in needed:
                needed.add(id(node))
                waiting += [*node.input, *captured(node)]
        return [node for node in self.nodes if id(node) in needed]


def _ranks_and_types(model: ModelProto) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many axes a tensor has, and what its elements are, where ONNX can tell."""
    inferred = shape_inference.infer_shapes(_without_weights(model)).graph
    known = {item.name: item.type.tensor_type for item in (*inferred.value_info, *inferred.input, *inferred.output)}
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    ranks = {name: len(kind.shape.dim) for name, kind in known.items() if kind.HasField("shape")}
    return ranks, {name: kind.elem_type for name, kind in known.items()} | stored


def _without_weights(model: ModelProto) -> ModelProto:
    """Return the graph with inputs in the place of its large tensors: shapes need no numbers but those that are shapes themselves."""
    graph = model.graph
    small = [tensor for tensor in graph.initializer if prod(tensor.dims) <= _SHAPES]
    large = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in graph.initializer if prod(t.dims) > _SHAPES]
    bare = helper.make_graph(graph.node, "shapes", [*graph.input, *large], graph.output, small)
    return helper.make_model(bare, opset_imports=model.opset_import, ir_version=model.ir_version)


def label(node: NodeProto) -> str:
    """Return the layer that a node belongs to, "" where none is noted."""
    return next((entry.value for entry in node.metadata_props if entry.key == LABEL), "")


def _copy(item: Any) -> Any:
    result = type(item)()
    result.CopyFrom(item)
    return result


def _sorted(nodes: list[NodeProto]) -> list[NodeProto]:
    """Return nodes so that each stands behind those whose results it reads."""
    maker = {name: node for node in nodes for name in node.output if name}
    done: set[int] = set()
    result: list[NodeProto] = []
    for root in nodes:
        stack: list[tuple[NodeProto, Any]] = [(root, iter((*root.input, *captured(root))))] if id(root) not in done else []
        done.add(id(root))
        while stack:
            node, names_left = stack[-1]
            nxt = next((maker[name] for name in names_left if name in maker and id(maker[name]) not in done), None)
            if nxt is None:
                result.append(node)
                stack.pop()
            else:
                done.add(id(nxt))
                stack.append((nxt, iter((*nxt.input, *captured(nxt)))))
    return result


Pass = Callable[[Draft], None]
