"""From a framework's tensor to NumPy without importing the framework: a tensor knows how to leave its device itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnc.graph.ir import Array


def to_numpy(value: Any) -> Array:
    """Return `value` (an array, a list, a torch or a TensorFlow tensor on any device) as a NumPy array.

    bfloat16, which NumPy lacks, becomes float32. Raises TypeError or ValueError for what is no array.
    """
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        value = tensor.float() if "bfloat16" in str(tensor.dtype) else tensor
    elif hasattr(value, "numpy"):
        value = value.numpy()
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def to_float64(value: Any) -> Array:
    """Return `value` as float64: exact for every narrower number, so no order changes."""
    return to_numpy(value).astype(np.float64, copy=False)
