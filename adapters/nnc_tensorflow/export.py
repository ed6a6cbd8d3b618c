"""A Keras model as an ONNX file: tf2onnx converts it, and nnc gives its numbers the names of the layers that they belong to.

Large weights of linear layers and embeddings go past tf2onnx, see `lifted`. The others it transposes, reshapes and merges, so they are
known again by their numbers: a kernel in the canonical orientation has the same bytes in both. What BatchNorm was merged into has those
of another scale in each output channel.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nnc.errors import ConfigError, ExportError
from nnc.export import LABEL
from nnc.graph.ir import Array
from nnc_tensorflow.inputs import caller, tensors_of
from nnc_tensorflow.layers import KerasLayer, keras_layers
from nnc_tensorflow.lifted import Lifted, lifted
from nnc_tensorflow.names import named_layers
from nnc_tensorflow.trace import Recording, recorded, unfused

#: What tf2onnx writes.
OLDEST, NEWEST = 14, 17


def export(model: keras.Layer, path: Path, example_inputs: Any, opset: int | None) -> None:
    """Write the model in inference mode to `path`; the first axis of every input is the batch, of any size."""
    if opset is not None and opset < OLDEST:
        raise ConfigError(f"opset: {opset} is too old; a Keras model can be written as {OLDEST} or newer.")
    recording, layers = Recording(named_layers(model)), keras_layers(model)
    apart = lifted(layers)
    concrete = traced(model, example_inputs, recording, apart)
    proto = _converted(concrete, min(opset or NEWEST, NEWEST))
    _label(proto.graph, recording)
    _store_captured(proto.graph, concrete)
    stored = {tensor.name for tensor in proto.graph.initializer}
    apart.fill(proto.graph)
    _rename(proto.graph, stored, [layer for layer in layers if layer.name not in apart.layers.values()])
    path.write_bytes(proto.SerializeToString())


def traced(model: keras.Layer, example_inputs: Any, recording: Recording, apart: Lifted | None = None) -> Any:
    """Return a concrete function of batches of any size, where the model allows that; inputs keep their names.

    Weights that are kept `apart` are inputs behind the model's own.
    """
    tensors, call = tensors_of(example_inputs), caller(model, example_inputs)
    if apart is not None:
        call = apart.reading(call, len(tensors))
    names = _names(model, example_inputs, len(tensors))
    batches = {tensor.shape[0] for tensor in tensors if tensor.shape.rank}
    free = [[None, *tensor.shape[1:]] if tensor.shape.rank and len(batches) == 1 else tensor.shape for tensor in tensors]
    fixed = [tensor.shape for tensor in tensors]
    failures: list[Exception] = []
    for shapes in (free, fixed):
        specs = [tf.TensorSpec(shape, tensor.dtype, name) for shape, tensor, name in zip(shapes, tensors, names, strict=True)]
        specs += apart.specs if apart is not None else []
        recording.owners.clear()
        try:
            with recorded(recording):
                return tf.function(call, autograph=False).get_concrete_function(*specs)
        except Exception as error:
            failures.append(error)
    raise ExportError(f"TensorFlow cannot trace this {type(model).__name__}: {failures[-1]}") from failures[-1]


def _names(model: keras.Layer, example_inputs: Any, count: int) -> list[str]:
    if isinstance(example_inputs, dict):
        return list(example_inputs)
    declared = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
    return declared if len(declared) == count else [f"input_{number}" if count > 1 else "input" for number in range(count)]


class _Traced:
    """What tf2onnx asks of a tf.function, for one that is traced already.

    TensorFlow counts small tensors that the code made before among the inputs, although they are constants of the graph.
    """

    def __init__(self, concrete: Any) -> None:
        self._concrete = concrete
        self.inputs = [tensor for tensor in concrete.inputs if tensor.op.type != "Const"]

    def get_concrete_function(self, *_: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._concrete, name)


def _store_captured(graph: Any, concrete: Any) -> None:
    """Store what the model's code holds as tensors, and no variables: a table of positions. To TensorFlow these are inputs."""
    held = {inner.name: outer for outer, inner in concrete.graph.captures if outer.dtype != tf.resource}
    found = [each for each in graph.input if each.name in held]
    for each in found:
        graph.input.remove(each)
        graph.initializer.append(_tf2onnx().utils.numpy_helper.from_array(held[each.name].numpy(), each.name))


def _converted(concrete: Any, opset: int) -> Any:
    """Return the ONNX model. Raises `ExportError` where an operation has no counterpart there."""
    tf2onnx = _tf2onnx()
    with quiet(), unfused():
        try:
            handlers = {"Erfc": (_erfc, [])}
            proto, _ = tf2onnx.convert.from_function(_Traced(concrete), (), opset=opset, custom_op_handlers=handlers)
        except Exception as error:
            raise ExportError(f"tf2onnx cannot convert this model: {error}") from error
    foreign = sorted({node.op_type for node in proto.graph.node if node.domain not in ("", "ai.onnx", "ai.onnx.ml")})
    if foreign:
        raise ExportError(f"tf2onnx has no ONNX for TensorFlow's {', '.join(foreign)}.")
    return proto


def _erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """Write erfc(x) as 1 - erf(x): ONNX has no Erfc, which TensorFlow's exact GELU is made of. The form is tf2onnx's for its handlers."""
    kind, shape = graph.get_dtype(node.output[0]), graph.get_shape(node.output[0])
    graph.remove_node(name)
    one = graph.make_const(f"{name}/one", np.array(1, _tf2onnx().utils.map_onnx_to_numpy_type(kind)))
    erf = graph.make_node("Erf", node.input, name=f"{name}/erf", shapes=[shape], dtypes=[kind])
    graph.make_node("Sub", [one.output[0], erf.output[0]], name=name, outputs=node.output, shapes=[shape], dtypes=[kind])


def _tf2onnx() -> Any:
    if "object" not in vars(np):
        np.object = object  # tf2onnx still asks NumPy for it
    try:
        import tf2onnx
    except ImportError as error:
        raise ExportError(f"Keras models go to ONNX through tf2onnx: {error}. pip install 'nnc-toolkit[onnx,tensorflow]'") from error
    return tf2onnx


def _label(graph: Any, recording: Recording) -> None:
    """Note on every node the innermost layer in whose call TensorFlow made its operation."""
    for node in graph.node:
        owner = _owner(node.name, recording) or _adding(node, recording)
        if owner:
            node.metadata_props.add(key=LABEL, value=owner)


def _owner(name: str, recording: Recording) -> str:
    return recording.owners.get(name if name in recording.owners else name.partition("__")[0], "")


def _adding(node: Any, recording: Recording) -> str:
    """Return the layer of what a convolution adds: tf2onnx takes the sum behind one into a new node, whose result is that layer's."""
    merged = node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 2
    return _owner(node.input[2].partition(":")[0], recording) if merged else ""


def _rename(graph: Any, stored: Collection[str], layers: Sequence[KerasLayer]) -> None:
    """Call the kernels among the `stored` tensors `<layer>.weight`, as far as their numbers tell whose they are."""
    held = (tensor for tensor in graph.initializer if tensor.name in stored)
    arrays = {tensor.name: _numbers(tensor) for tensor in held if tensor.data_type == 1 and len(tensor.dims) > 1}
    names = _same(arrays, layers)
    rest = {name: array for name, array in arrays.items() if name not in names}
    left = [layer for layer in layers if layer.name not in set(names.values())]
    names |= _scaled(rest, left)
    new = {name: f"{layer}.weight" for name, layer in names.items()}
    for tensor in graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in new:
                node.input[place] = new[name]


def _same(arrays: dict[str, Array], layers: Sequence[KerasLayer]) -> dict[str, str]:
    """Return the layer of each array that holds just the numbers of its weight, laid out in one of ONNX's ways."""
    known: dict[str, str] = {}
    for layer in layers:
        if "weight" in layer.slots and np.prod(layer.slots["weight"].shape) > 1:
            known.setdefault(_digest(layer.numbers("weight")), layer.name)
    found: dict[str, str] = {}
    for name, array in arrays.items():
        owner = next((known[key] for key in map(_digest, _layouts(array)) if key in known), None)
        if owner is not None and owner not in found.values():
            found[name] = owner
    return found


def _layouts(array: Array) -> Iterator[Array]:
    """Yield an array as it lies, as a matrix `(in, out)` turned round, and as a transposed convolution's."""
    yield array
    yield array.swapaxes(0, 1)


def _scaled(arrays: dict[str, Array], layers: Sequence[KerasLayer]) -> dict[str, str]:
    """Return the layer of each array that is its kernel with another scale for each output channel."""
    found: dict[str, str] = {}
    kernels = [layer for layer in layers if "weight" in layer.slots]
    for name, array in arrays.items():
        for layer in kernels:
            fits = layer.name not in found.values() and layer.slots["weight"].shape == array.shape
            if fits and _proportional(layer.numbers("weight"), array):
                found[name] = layer.name
                break
    return found


def _proportional(weight: Array, array: Array) -> bool:
    a, b = weight.reshape(len(weight), -1).astype(np.float64), array.reshape(len(array), -1).astype(np.float64)
    factor = (a * b).sum(1) / np.maximum((a * a).sum(1), 1e-30)
    return bool(np.allclose(a * factor[:, None], b, rtol=1e-4, atol=1e-5 * np.abs(b).max()))


def _digest(array: Array) -> str:
    return sha256(np.ascontiguousarray(array, np.float32).tobytes()).hexdigest()


def _numbers(tensor: Any) -> Array:
    flat = np.frombuffer(tensor.raw_data, "<f4") if tensor.raw_data else np.array(tensor.float_data, np.float32)
    return flat.reshape(tuple(tensor.dims))


@contextmanager
def quiet() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
