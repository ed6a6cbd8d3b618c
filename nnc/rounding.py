"""What rounding explains: how far two runs of the same computation may lie apart, and whether a model magnifies that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnc.adapter import Adapter, Masks, Trace
from nnc.arrays import to_numpy
from nnc.graph.ir import Array

#: (relative precision of the floats, the largest relative difference between masked and small outputs that rounding then explains):
#: float64, float32, float16, and what is coarser: bfloat16 and the floats of 8 bits.
TOLERANCES = ((1e-12, 1e-9), (1e-6, 1e-4), (1e-3, 3e-2), (float("inf"), 1e-1))


def tolerance(trace: Trace) -> float:
    """Return the largest relative difference between masked and small outputs that rounding explains."""
    epsilon = _precision(trace)
    return next(allowed for precision, allowed in TOLERANCES if epsilon <= precision)


def apart(a: Array, b: Array) -> float:
    """Return how far two outputs are apart, relative to the largest number; what is infinite, or NaN, in both alike is no difference."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) or 1.0
    return float(np.abs(a - b)[~same].max(initial=0.0)) / scale


def magnification(adapter: Adapter, example_inputs: Any, masks: Masks, trace: Trace) -> tuple[float, float]:
    """Return by how much the floats of the inputs are moved, relatively, and how far a model's own outputs are then apart."""
    step = 4 * _precision(trace)
    moved = adapter.trace(_moved(example_inputs, step), masks).outputs
    floats = ((a, b) for a, b in zip(trace.outputs, moved, strict=True) if a.dtype.kind == "f" and a.shape == b.shape)
    return step, max((apart(a, b) for a, b in floats), default=0.0)


def _precision(trace: Trace) -> float:
    floats = [float(np.finfo(output.dtype).eps) for output in trace.outputs if output.dtype.kind == "f"]
    return max([trace.graph.epsilon, *floats])


def _moved(inputs: Any, step: float) -> Any:
    if isinstance(inputs, Mapping):
        return {key: _moved(value, step) for key, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        moved = [_moved(value, step) for value in inputs]
        return moved if isinstance(inputs, list) else tuple(moved)
    return inputs * (1 + step) if hasattr(inputs, "dtype") and to_numpy(inputs).dtype.kind == "f" else inputs
