"""Inference as Keras' users run it on batches: the model in inference mode, through one compiled function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from nnc_tensorflow.inputs import caller, tensors_of
from nnc_tensorflow.names import COMPILED
from nnc_tensorflow.trace import failure


def infer(model: keras.Layer, example_inputs: Any) -> Any:
    """Return the model's outputs. The compiled function is kept with the model, so that whoever masks the model can drop it.

    Raises `ConfigError` or `TraceError` where the model does not run on these inputs.
    """
    tensors, call = tensors_of(example_inputs), caller(model, example_inputs)
    compiled = model.__dict__.setdefault(COMPILED, {}).setdefault(_form(example_inputs), tf.function(call, reduce_retracing=True))
    try:
        return compiled(*tensors)
    except Exception as error:
        raise failure(error, tensors) from error


def forget_inference(model: keras.Layer) -> None:
    """Drop what is compiled: the parameters are seen differently now."""
    model.__dict__.pop(COMPILED, None)


def _form(example_inputs: Any) -> Any:
    """Return what tells apart the ways in which inputs are handed to the model: the names, the number, or a single one."""
    if isinstance(example_inputs, Mapping):
        return tuple(example_inputs)
    return len(example_inputs) if isinstance(example_inputs, (list, tuple)) else None
