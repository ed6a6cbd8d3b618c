"""The format "tflite": Keras models for LiteRT, float, or int8 on grids that LiteRT's converter finds from representative data.

data=None                 float
data=[batch, ...]         int8: weights for each channel, activations for each tensor; inputs and outputs stay float
dynamic=True              int8 weights, the ranges of activations found at run time
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from nnc.adapter import Adapter
from nnc.arrays import to_numpy
from nnc.errors import ConfigError, ExportError
from nnc.export import ExportResult, Order, Placed
from nnc.graph.ir import Array
from nnc.latency import Latency, hardware
from nnc_tensorflow.export import quiet, traced
from nnc_tensorflow.inputs import tensors_of
from nnc_tensorflow.names import named_layers
from nnc_tensorflow.trace import Recording

#: LiteRT's operations that multiply.
_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL")
_REPEATS, _SLOWER, _CLOSE, _STEPS = 25, 1.05, 1e-4, 5.0


class LiteFormat:
    """Implements `nnc.export.Format` for Keras models."""

    def write(self, adapter: Adapter, path: Path, order: Order) -> ExportResult:
        _check(adapter, order)
        data = None if order.data is None else _batches(order.data, order.example_inputs)
        concrete = traced(adapter.model, order.example_inputs, Recording(named_layers(adapter.model)))
        frozen = convert_variables_to_constants_v2(concrete)
        inputs = [tensor.numpy() for tensor in tensors_of(order.example_inputs)]
        plain = _converted(frozen, None, False)
        expected = tuple(to_numpy(each) for each in adapter.run(order.example_inputs))
        difference = _difference(_Lite(plain, inputs).run(), expected)
        if difference > _CLOSE:
            raise ExportError(f"the float file differs from the model by {difference:.1e} of the largest output; nothing was written.")
        if order.data is None and not order.dynamic:
            path.write_bytes(plain)
            return ExportResult(path, "tflite", len(plain), difference, "the tensorflow model")
        small = _converted(frozen, data, True)
        path.write_bytes(small)
        return _quantised(path, order, plain, small, inputs, expected)


def _check(adapter: Adapter, order: Order) -> None:
    if adapter.framework != "tensorflow":
        raise ConfigError(f"format: 'tflite' is written from Keras models; for a model of {adapter.framework!r} take 'onnx'.")
    if order.grids:
        raise ConfigError("grids: LiteRT's converter finds its own from representative batches; give data=[...] instead, or take 'onnx'.")
    if order.opset is not None:
        raise ConfigError("opset: is ONNX's; a .tflite file has none.")


def _quantised(path: Path, order: Order, plain: bytes, small: bytes, inputs: Sequence[Array], expected: Sequence[Array]) -> ExportResult:
    lite, before = _Lite(small, inputs), _Lite(plain, inputs)
    placed = lite.placed()
    reference = expected if order.reference is None else order.reference
    against = "the float tensorflow model" if order.reference is None else "the reference given"
    slow, fast = _seconds(before, lite)
    latency = Latency(slow, fast, int(inputs[0].shape[0]), _REPEATS, f"{hardware()}, CPU time, LiteRT")
    floats = [one.layer for one in placed if one.reason]
    if floats and not order.force and not order.dynamic:
        raise ExportError(f"LiteRT computes in float what was to be integer: {', '.join(floats[:5])}. force=True writes the file.")
    if fast > slow * _SLOWER and not order.force:
        times = f"{1000 * fast:.3f} ms against {1000 * slow:.3f} ms in float"
        raise ExportError(f"the quantised file is slower: {times} ({latency.conditions}). force=True writes it all the same.")
    outputs = lite.run()
    apart = _apart(outputs, _Lite(small, inputs, delegates=False).run())
    wrong = f"LiteRT's fast kernels (XNNPACK) give other outputs for this file than its plain ones, by {apart:.0f} steps of 8 bits"
    if apart > _STEPS and not order.force:
        raise ExportError(f"{wrong}; a layer is computed wrongly here. force=True writes the file.")
    notes = (f"{wrong}: run it without default delegates.",) if apart > _STEPS else ()
    difference = _difference(outputs, reference)
    return ExportResult(path, "tflite", len(small), difference, against, None, placed, len(plain), latency, notes)


def _converted(frozen: Any, data: Sequence[Sequence[Array]] | None, quantise: bool) -> bytes:
    """Return the file that LiteRT's converter makes. Raises `ExportError` with its reason."""
    with quiet():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    if quantise:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if data is not None:
        converter.representative_dataset = lambda: _samples(data)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bytes(converter.convert())
        except Exception as error:
            raise ExportError(f"LiteRT's converter cannot take this model: {str(error).strip().partition(chr(10))[0]}") from error


def _samples(batches: Sequence[Sequence[Array]]) -> Iterator[list[Array]]:
    """Yield the samples of all batches one by one, each as a batch of its own, which is what the converter calibrates on."""
    for arrays in batches:
        for number in range(len(arrays[0])):
            yield [array[number : number + 1] for array in arrays]


def _batches(data: Any, example_inputs: Any) -> list[list[Array]]:
    """Return batches of data as arrays in the order of the example inputs, and like them but for the first axis.

    Raises `ConfigError` for what LiteRT's converter cannot measure; it would end the process, or measure nothing.
    """
    if hasattr(data, "shape") or isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise ConfigError(f"data: {type(data).__name__} is no list of batches; give [batch, batch, ...], each like example_inputs.")
    wanted = [tensor.numpy() for tensor in tensors_of(example_inputs)]
    names = list(example_inputs) if isinstance(example_inputs, Mapping) else None
    found = [_batch(batch, names, wanted, f"data[{number}]") for number, batch in enumerate(data)]
    if not found:
        raise ConfigError("data: is empty; give some batches that are like those the model will see.")
    return found


def _batch(batch: Any, names: list[str] | None, wanted: Sequence[Array], place: str) -> list[Array]:
    if isinstance(batch, Mapping) and names is not None:
        if set(batch) != set(names):
            raise ConfigError(f"{place}: has {', '.join(map(str, batch))}; the example inputs are {', '.join(names)}.")
        batch = [batch[name] for name in names]
    arrays = [tensor.numpy() for tensor in tensors_of(batch, place)]
    shapes = [[array.shape for array in arrays], [array.shape for array in wanted]]
    given, like = (", ".join(str(("any", *shape[1:])) for shape in each) for each in shapes)
    if given != like:
        raise ConfigError(f"{place}: holds arrays of shape {', '.join(map(str, shapes[0]))}; the example inputs are {like}.")
    if not len(arrays[0]):
        raise ConfigError(f"{place}: is a batch of no samples; give some that are like those the model will see.")
    if any(np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all() for array in arrays):
        raise ConfigError(f"{place}: holds NaN or an infinite number, which has no range.")
    return [array.astype(example.dtype, copy=False) for array, example in zip(arrays, wanted, strict=True)]


class _Lite:
    """A file in LiteRT's interpreter, on one thread, with inputs set; by the plain kernels where it has no `delegates`."""

    def __init__(self, content: bytes, inputs: Sequence[Array], delegates: bool = True) -> None:
        known = tf.lite.experimental.OpResolverType
        kernels = known.AUTO if delegates else known.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.interpreter = tf.lite.Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
        places = self.interpreter.get_input_details()
        for place, array in zip(places, inputs, strict=True):
            self.interpreter.resize_tensor_input(place["index"], array.shape)
        self.interpreter.allocate_tensors()
        for place, array in zip(places, inputs, strict=True):
            self.interpreter.set_tensor(place["index"], array)

    def run(self) -> list[Array]:
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(place["index"]) for place in self.interpreter.get_output_details()]

    def placed(self) -> tuple[Placed, ...]:
        """Return each product by the name of its output, and whether what it reads is int8."""
        tensors = {place["index"]: place for place in self.interpreter.get_tensor_details()}
        found = []
        for operation in self.interpreter._get_ops_details():
            if operation["op_name"] in _PRODUCTS:
                integer = tensors[operation["inputs"][0]]["dtype"] == np.int8
                name = tensors[operation["outputs"][0]]["name"].partition(";")[0]
                found.append(Placed(name, operation["op_name"], "" if integer else "its input is float"))
        return tuple(found)


def _seconds(before: _Lite, after: _Lite) -> tuple[float, float]:
    """Return the median CPU seconds of both, by turns."""
    spent: list[tuple[float, float]] = []
    for _ in range(_REPEATS + 3):
        marks = [process_time()]
        for one in (before, after):
            one.interpreter.invoke()
            marks.append(process_time())
        spent.append((marks[1] - marks[0], marks[2] - marks[1]))
    slow, fast = zip(*spent[3:], strict=True)
    return median(slow), median(fast)


def _apart(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """Return the root mean square of the difference in steps of 8 bits of an output's range, the largest of all outputs."""
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(found, expected, strict=True)]
    return max(255 * float(np.sqrt(((a - b) ** 2).mean()) / max(max(b.max(), 0.0) - min(b.min(), 0.0), 1e-30)) for a, b in pairs)


def _difference(found: Sequence[Array], expected: Sequence[Array]) -> float:
    pairs = list(zip(found, expected, strict=True))
    return max(float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-30)) for a, b in pairs)
