"""What is compiled for a model and kept with it until the model is seen differently: inference as Keras' users run it, and more.

by form                       inference on batches that are handed over in one way        infer
by form, sites, training      a pass that shows what passed there                         passes.py
STEP                          the step of `nnc.Trainer`                                   training.py
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from nnc_tensorflow.inputs import caller, tensors_of
from nnc_tensorflow.names import COMPILED
from nnc_tensorflow.trace import failure

#: Under which key the training step is kept.
STEP = "step"

#: So many passes of one kind are eager. Of a 6-layer BERT (8 x 64 tokens) compiling costs 1.4 s, or 3.9 s with gradients, and saves 0.3 s,
#: or 0.7 s, a pass.
_EAGER = 2


def compiled(model: keras.Layer) -> dict[Any, Any]:
    """Return what is compiled for a model by what it was compiled for; whoever lets the model be seen differently drops it."""
    kept: dict[Any, Any] = model.__dict__.setdefault(COMPILED, {})
    return kept


def infer(model: keras.Layer, example_inputs: Any) -> Any:
    """Return the model's outputs. Raises `ConfigError` or `TraceError` where the model does not run on these inputs."""
    tensors, call = tensors_of(example_inputs), caller(model, example_inputs)
    function = compiled(model).setdefault(form_of(example_inputs), tf.function(call, reduce_retracing=True))
    try:
        return function(*tensors)
    except Exception as error:
        raise failure(error, tensors) from error


def often(model: keras.Layer, key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` of tensors as it is for the first passes under a key, then compiled; it must do the same under the same key.

    What cannot be compiled, as code that looks at its numbers, stays as it is.
    """
    kept = compiled(model)
    passes = kept.get(key, 0)
    if callable(passes):
        return passes  # type: ignore[no-any-return]
    if passes < _EAGER:
        kept[key] = passes + 1
        return function
    graph = tf.function(function, reduce_retracing=True, autograph=False)

    def first(*tensors: Any) -> Any:
        try:
            found = graph(*tensors)
        except Exception:  # whatever it was, the pass as it is shows it, or is right
            kept[key] = function
            return function(*tensors)
        kept[key] = graph
        return found

    return first


def forget_inference(model: keras.Layer) -> None:
    """Drop all that is compiled: the parameters are seen differently now."""
    model.__dict__.pop(COMPILED, None)


def forget_passes(model: keras.Layer) -> None:
    """Drop all but the training step, which knows the type that it computes in."""
    kept = model.__dict__.pop(COMPILED, {})
    if STEP in kept:
        compiled(model)[STEP] = kept[STEP]


def form_of(example_inputs: Any) -> Any:
    """Return what tells apart the ways in which inputs are handed to the model: the names, the number, or a single one."""
    if isinstance(example_inputs, Mapping):
        return tuple(example_inputs)
    return len(example_inputs) if isinstance(example_inputs, (list, tuple)) else None
