"""ONNX files that the two frameworks' exporters write: name -> how to make one for a batch, and its inputs for that batch.

A file fixes its batch, so there is one for each; the weights are the same, and so is what leaves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx


def from_torch(name: str, batch: int) -> onnx.ModelProto:
    """Return a torch architecture as a file, with its parameters under their names."""
    from onnx_runtime import export_torch
    from torch_zoo import ARCHITECTURES

    build, inputs = ARCHITECTURES[name]
    return _written(lambda path: export_torch(build(), inputs(batch), path))


def from_keras(name: str, batch: int) -> onnx.ModelProto:
    """Return a Keras architecture as tf2onnx writes it."""
    from keras_zoo import ARCHITECTURES
    from onnx_runtime import export_keras

    build, inputs = ARCHITECTURES[name]
    return _written(lambda path: export_keras(build(), inputs(batch), path))


def large_from_keras(name: str, batch: int) -> onnx.ModelProto:
    """Return a Keras architecture as nnc writes it: tf2onnx by itself takes more than 17 GB for a BERT."""
    import nnc
    from keras_zoo import ARCHITECTURES

    build, inputs = ARCHITECTURES[name]
    return _written(lambda path: nnc.export(build(), path, inputs(batch)).path)


def _written(export: Callable[[Path], Path]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        return onnx.load(export(Path(folder) / "model.onnx"))


def torch_inputs(name: str, batch: int) -> list[np.ndarray]:
    from torch_zoo import ARCHITECTURES

    return [tensor.numpy() for tensor in ARCHITECTURES[name][1](batch).values()]


def keras_inputs(name: str, batch: int) -> list[np.ndarray]:
    from keras_zoo import ARCHITECTURES

    given = ARCHITECTURES[name][1](batch)
    return list(given.values()) if isinstance(given, dict) else [given]


ARCHITECTURES: dict[str, tuple[Callable[[int], onnx.ModelProto], Callable[[int], Any]]] = {
    **{f"{name} of torch": (partial(from_torch, name), partial(torch_inputs, name)) for name in ("ResNet-50", "MobileNetV2", "BERT-base")},
    **{f"{name} of Keras": (partial(from_keras, name), partial(keras_inputs, name)) for name in ("ResNet50", "MobileNetV2")},
    "BERT-base of Keras": (partial(large_from_keras, "BERT-base"), partial(keras_inputs, "BERT-base")),
}
