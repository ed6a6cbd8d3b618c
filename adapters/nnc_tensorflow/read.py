"""From TensorFlow's operations to nnc's graph: the reader, which the tables of operations build on.

A parameter is known by the variable that it is read from. It stays unresolved until it is used: a convolution takes it in the canonical
orientation, any other operation gets a transpose to Keras' own layout in front. The product with a mask is the parameter itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from nnc.graph.ir import Array, Graph, Node, Shape, Tensor, constant
from nnc_tensorflow.layers import KerasLayer, numbers_of
from nnc_tensorflow.layouts import LINEAR, Layout
from nnc_tensorflow.names import MASKS
from nnc_tensorflow.trace import Recording


@dataclass(frozen=True)
class Parameter:
    """A parameter in Keras' layout, seen with the shape `view`, which differs from its own in axes of size 1 only."""

    tensor: Tensor
    layout: Layout
    native: Shape
    view: Shape

    @property
    def squeezed(self) -> bool:
        return self.view != self.native


Reading = Callable[["Reader", Any], None]

#: The relative precision of floats, by TensorFlow's names.
_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def _as_matrix(parameter: Parameter) -> Shape | None:
    """Return the shape (in, out) of a kernel whose axes Keras keeps apart, inputs first; None for any other parameter."""
    layout = parameter.layout
    made = layout.runs[0]
    in_order = (*range(len(parameter.native) - made, len(parameter.native)), *range(len(parameter.native) - made))
    return parameter.tensor.shape[::-1] if len(layout.runs) == 2 and layout.permutation == in_order else None


class Reader:
    """Builds a `Graph` out of a recording; `values` holds what each of TensorFlow's tensors became."""

    def __init__(self, recording: Recording, layers: Sequence[KerasLayer], readings: Mapping[str, Reading]) -> None:
        self.recording, self.readings = recording, readings
        self.graph = Graph(numbers=numbers_of(recording.layers))
        self.values: dict[Any, Tensor | Parameter] = {}
        self._masks: set[Any] = set()
        self._parameters = _parameters(layers)
        self._op: Any = None
        self._calls: dict[str, Any] = {}
        self.sides: dict[str, tuple[str, Tensor]] = {}  # by a Bidirectional, the direction that was read and what it gave

    def read(self, outputs: Sequence[Any] = ()) -> Graph:
        """Return the graph of the recorded operations; `outputs` are TensorFlow's tensors, none where the pass failed."""
        self._captures()
        for given in self.recording.inputs:
            self.values[given.ref()] = tensor_of(given, "input")
            self.graph.inputs.append(self.values[given.ref()])  # type: ignore[arg-type]
        self._calls = {name: call for call in self.recording.calls for name in call.operations}
        read = set()
        for op in self.recording.graph.get_operations():
            call = self._calls.get(op.name)
            if call is None:
                self._operation(op)
            elif id(call) not in read:
                read.add(id(call))
                self.readings["Call"](self, call)
        self._op = None
        self.graph.epsilon = max((_EPSILON.get(name, 0.0) for name in self._float_types()), default=0.0)
        self.graph.outputs = [self.tensor(given) for given in outputs]
        return self.graph

    def _float_types(self) -> set[str]:
        return {out.dtype.name for op in self.recording.graph.get_operations() for out in op.outputs}

    def _captures(self) -> None:
        """Note the parameters, the masks and the other variables that the function captured."""
        masks = {id(mask.value.handle) for layer in self.recording.layers.values() for mask in layer.__dict__.get(MASKS, {}).values()}
        for outer, inner in self.recording.graph.captures:
            if id(outer) in self._parameters:
                self.values[inner.ref()] = self._parameters[id(outer)]
            elif id(outer) in masks:
                self._masks.add(inner.ref())
            elif outer.dtype != tf.resource:
                self.values[inner.ref()] = constant(np.asarray(outer))

    def _operation(self, op: Any) -> None:
        self._op = op
        if op.type in ("Placeholder", "NoOp", "Assert") or not op.outputs or op.outputs[0].ref() in self.values:
            return
        if op.type == "ReadVariableOp":
            self._variable(op)
        elif not self._static(op):
            self.readings.get(op.type, unknown)(self, op)

    def _variable(self, op: Any) -> None:
        handle, out = op.inputs[0], op.outputs[0]
        if handle.ref() in self._masks:
            self._masks.add(out.ref())
        else:
            self.values[out.ref()] = self.values.get(handle.ref()) or tensor_of(out, "constant")

    def _static(self, op: Any) -> bool:
        """Take what is known without running the model as a constant: shapes, axes, counts, and places along an axis."""
        if op.type != "Const" and any(is_floating(out) for out in op.outputs):
            return False
        known = [static_index(out) if (out.shape.rank or 0) <= 1 else static(out) for out in op.outputs]
        if any(value is None for value in known):
            return False
        for out, value in zip(op.outputs, known, strict=True):
            self.values[out.ref()] = constant(value)
        return True

    @property
    def owner(self) -> Any:
        """The layer, or the operation of a Functional model, in whose call the operation that is being read was made."""
        return self.recording.layers.get(self.recording.owners.get(self._op.name, ""))

    def is_mask(self, given: Any) -> bool:
        """Tell whether one of TensorFlow's tensors is a mask that nnc put over a parameter."""
        return given.ref() in self._masks

    def note_mask(self, given: Any) -> None:
        self._masks.add(given.ref())

    def alias(self, op: Any) -> None:
        """The output is the input: the same value."""
        self.values[op.outputs[0].ref()] = self.values[op.inputs[0].ref()]

    def stored(self, variable: Any) -> Tensor:
        """Return the canonical tensor of a parameter, given Keras' variable."""
        return self._parameters[id(variable.value.handle)].tensor

    def parameter(self, given: Any) -> Parameter | None:
        """Return the parameter that one of TensorFlow's tensors is, in whatever layout, or None."""
        value = self.values.get(given.ref())
        return value if isinstance(value, Parameter) else None

    def view(self, op: Any) -> bool:
        """Take an operation that only adds or drops axes of size 1 of a parameter as a view of it. False where it is something else.

        A kernel (in, heads, dim) seen as (in, heads * dim) is the matrix that it stands for.
        """
        parameter, shape = self.parameter(op.inputs[0]), shape_of(op.outputs[0])
        if parameter is None:
            return False
        if parameter.layout.regroups and not parameter.squeezed and shape == _as_matrix(parameter):
            self.values[op.outputs[0].ref()] = Parameter(parameter.tensor, LINEAR, shape, shape)
            return True
        if [n for n in shape if n != 1] != [n for n in parameter.native if n != 1]:
            return False
        self.values[op.outputs[0].ref()] = replace(parameter, view=shape)
        return True

    def tensor(self, given: Any) -> Tensor:
        """Return the graph's tensor for one of TensorFlow's, parameters in Keras' own layout."""
        value = self.values.get(given.ref())
        if value is None:
            value = self.values[given.ref()] = tensor_of(given, "constant")
        if isinstance(value, Tensor):
            return value
        resolved = self.values[given.ref()] = self._native(value)
        return resolved

    def _native(self, parameter: Parameter) -> Tensor:
        """Emit the way from the canonical orientation to Keras' own."""
        tensor, layout = parameter.tensor, parameter.layout
        if layout.regroups:
            tensor = self.step("reshape", tensor, layout.turned(parameter.native))
        if layout.permutation != tuple(range(len(layout.permutation))):
            tensor = self.step("transpose", tensor, parameter.native, permutation=layout.inverse)
        return self.step("reshape", tensor, parameter.view) if parameter.squeezed else tensor

    def step(self, kind: str, x: Tensor, shape: Shape, **attrs: Any) -> Tensor:
        """Add a node between two of TensorFlow's tensors and return what it makes."""
        return self.join(kind, (x,), shape, **attrs)

    def join(self, kind: str, inputs: Sequence[Tensor], shape: Shape, evaluate: Any = None, **attrs: Any) -> Tensor:
        """Add a node of several inputs, as `step` does."""
        out = Tensor(shape, floating=inputs[0].floating, boolean=inputs[0].boolean)
        self.graph.nodes.append(self._node(kind, tuple(inputs), (out,), attrs, evaluate))
        return out

    def emit(
        self, kind: str, op: Any, inputs: Sequence[Tensor | None], attrs: Mapping[str, Any] | None = None, evaluate: Any = None
    ) -> None:
        """Add a node that makes the outputs of one of TensorFlow's operations."""
        outputs = tuple(tensor_of(out) for out in op.outputs)
        if not all(given.shape.is_fully_defined() for given in (*op.inputs, *op.outputs)):
            kind = "unknown"  # a size that depends on the data
        self.graph.nodes.append(self._node(kind, tuple(inputs), outputs, attrs or {}, evaluate))
        for out, tensor in zip(op.outputs, outputs, strict=True):
            self.values[out.ref()] = tensor

    def emit_part(self, kind: str, inputs: Sequence[Tensor], out: Any, attrs: Mapping[str, Any]) -> None:
        """Add a node that makes one of TensorFlow's tensors: one piece of a split, say."""
        tensor = self.values[out.ref()] = tensor_of(out)
        self.graph.nodes.append(self._node(kind, tuple(inputs), (tensor,), attrs))

    def _node(self, kind: str, inputs: Any, outputs: Any, attrs: Mapping[str, Any], evaluate: Any = None) -> Node:
        owner = self.recording.owners.get(self._op.name, "")
        return Node(kind, inputs, outputs, dict(attrs), self._op.type, owner, self.recording.source(self._op), evaluate)


def _parameters(layers: Sequence[KerasLayer]) -> dict[int, Parameter]:
    """Return every parameter by the identity of its variable's handle; the first layer that holds it names it."""
    found: dict[int, Parameter] = {}
    for layer in layers:
        for name, slot in layer.slots.items():
            native = tuple(slot.variable.shape)
            tensor = Tensor(
                slot.shape,
                "parameter",
                f"{layer.name}.{name}" if layer.name else name,
                floating="float" in slot.variable.dtype,
                trainable=bool(slot.variable.trainable),
                data=_Numbers(layer, name),
                biasable=hasattr(layer.layer, "use_bias") and layer.prunable,
            )
            found.setdefault(id(slot.variable.value.handle), Parameter(tensor, slot.layout, native, native))
    return found


@dataclass(frozen=True)
class _Numbers:
    """Reads a parameter when asked, masks applied."""

    layer: KerasLayer
    name: str

    def __call__(self) -> Array:
        return self.layer.numbers(self.name)


def unknown(reader: Reader, op: Any) -> None:
    """Pin whatever the operation touches; a state that it reads itself counts as an input."""
    reader.emit("unknown", op, [reader.tensor(given) for given in op.inputs])


def static(given: Any) -> Array | None:
    """Return a tensor's value where it is known without running the model."""
    value = tf.get_static_value(given)
    return None if value is None else np.asarray(value)


#: What Keras puts between a constant index and the lookup: negative positions count from the far end, whose size it takes from the shape.
_INDEX_ARITHMETIC: dict[str, Callable[..., Array]] = {
    "Less": np.less,
    "AddV2": np.add,
    "SelectV2": np.where,
    "Cast": np.asarray,
    "StridedSlice": lambda sizes, start, *_: np.asarray(sizes[int(start[0])]),
}


def static_index(given: Any) -> Array | None:
    """Return the value of an index that follows from constants by the arithmetic of indices, or None."""
    value = static(given)
    if value is not None or given.op.type not in _INDEX_ARITHMETIC or (given.op.type == "StridedSlice" and given.shape.rank != 0):
        return value
    parts = [static_index(part) for part in given.op.inputs]
    return None if any(part is None for part in parts) else _INDEX_ARITHMETIC[given.op.type](*parts)


def evaluation(op: Any) -> Callable[..., Array]:
    """Return a function of arrays that runs the same operation with the same attributes."""
    function, names, attributes = _raw(op.type)
    attrs = {name: op.get_attr(name) for name in attributes}
    dtypes = [given.dtype for given in op.inputs]

    def evaluate(*arrays: Array) -> Array:
        tensors = [tf.convert_to_tensor(np.asarray(array), dtype) for array, dtype in zip(arrays, dtypes, strict=True)]
        return np.asarray(function(**dict(zip(names, tensors, strict=True)), **attrs))

    return evaluate


@cache
def _raw(kind: str) -> tuple[Callable[..., Any], tuple[str, ...], tuple[str, ...]]:
    """Return TensorFlow's function for a type of operation, the names of its tensors and of its attributes."""
    function = getattr(tf.raw_ops, kind)
    given = [name for name, parameter in inspect.signature(function).parameters.items() if name != "name"]
    optional = [name for name in given if inspect.signature(function).parameters[name].default is not inspect.Parameter.empty]
    return function, tuple(name for name in given if name not in optional), tuple(optional)


def tensor_of(given: Any, role: Literal["value", "input", "constant"] = "value") -> Tensor:
    """Return a fresh graph tensor for one of TensorFlow's."""
    return Tensor(shape_of(given), role, floating=is_floating(given), boolean=given.dtype == tf.bool)


def shape_of(given: Any) -> Shape:
    return tuple(given.shape) if given.shape.rank is not None and given.shape.is_fully_defined() else ()


def is_floating(given: Any) -> bool:
    return bool(given.dtype.is_floating or given.dtype.is_complex)
