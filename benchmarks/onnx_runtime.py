"""Models as .onnx files, and how fast ONNX Runtime runs them on one thread."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Feed = dict[str, np.ndarray]


def export_torch(model: Any, inputs: dict[str, Any], path: Path) -> Path:
    """Write a torch model for inputs of these shapes, with its own names."""
    import torch

    names = list(inputs)

    class Named(torch.nn.Module):
        """Takes inputs by position and gives the logits only: caches and hidden states are no part of the comparison."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(**dict(zip(names, given, strict=True)))["logits"]
            return logits

    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(Named().eval(), tuple(inputs.values()), path, dynamo=True, input_names=names, verbose=False)
    return path


def export_keras(model: Any, inputs: Any, path: Path) -> Path:
    """Write a Keras model for inputs of these shapes. tf2onnx knows opsets up to 17, and a NumPy older than 2."""
    np.object = object  # type: ignore[attr-defined]
    import tensorflow as tf
    import tf2onnx

    specs = tf.nest.map_structure(lambda array: tf.TensorSpec(array.shape, array.dtype), inputs)
    names = list(inputs) if isinstance(inputs, dict) else None
    function = tf.function(lambda *given: model(dict(zip(names, given, strict=True)) if names else given[0], training=False))
    flat = [tf.TensorSpec(inputs[name].shape, inputs[name].dtype, name=name) for name in names] if names else [specs]
    logging.disable(logging.WARNING)
    tf2onnx.convert.from_function(function, input_signature=flat, opset=17, output_path=str(path))
    return path


def runner(path: Path, inputs: Sequence[np.ndarray]) -> Callable[[], Any]:
    """Return a call that runs a file on inputs, given in the order of the file's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = dict(zip((given.name for given in session.get_inputs()), inputs, strict=True))
    return lambda: session.run(None, feed)
