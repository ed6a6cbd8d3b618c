"""Labels that outputs are compared with: one class for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnc.arrays import to_numpy
from nnc.errors import ConfigError
from nnc.graph.ir import Array

_ONE = "one whole number a sample is needed, the class"


def checked_labels(labels: Any, samples: Sequence[int]) -> Array:
    """Return labels as `(n,)` whole numbers, `(n, 1)` flattened; `samples` is how many each input has.

    Raises `ConfigError` for labels, or inputs, that are not one for each sample, and for none at all.
    """
    array = to_numpy(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ConfigError(f"labels: have the shape {array.shape}; {_ONE}{'; argmax(axis=1) of one-hot rows' if array.ndim == 2 else ''}.")
    whole = array.dtype.kind in "iu" or (array.dtype.kind == "f" and bool((array == np.rint(array)).all()))
    if not whole:
        raise ConfigError(f"labels: are of the type {array.dtype}; {_ONE}.")
    if not len(array):
        raise ConfigError("labels: are empty; at least one sample is needed.")
    if set(samples) != {len(array)}:
        raise ConfigError(f"labels: {len(array)} of them, and the inputs have {', '.join(map(str, samples))} samples; {_ONE}.")
    return array.astype(np.int64)


def right_answers(scores: Array, labels: Array) -> int:
    """Return in how many rows of the scores, `(n, classes)`, the largest stands at the label. Raises `ConfigError` for other labels."""
    if scores.ndim != 2 or len(scores) != len(labels):
        raise ConfigError(f"labels: the model's first output has the shape {scores.shape}; accuracy needs ({len(labels)}, classes).")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        span = f"{labels.min()} to {labels.max()}"
        raise ConfigError(f"labels: go from {span}; the model has {scores.shape[1]} classes, 0 to {scores.shape[1] - 1}.")
    return int((scores.argmax(axis=-1) == labels).sum())
