"""The user's own loss of one batch, in whichever of the forms that `nnc.Trainer` takes it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nnc.errors import ConfigError, TrainingError
from nnc.losses import calls_model, of_pair
from nnc.trainer import inputs_and_targets
from nnc_tensorflow.inputs import caller, tensors_of
from nnc_tensorflow.objectives import task_loss
from nnc_tensorflow.swap import own_method

Loss = Callable[..., Any] | None

#: Of a loss without a gradient.
NO_GRADIENT = (
    "the loss depends on no trainable weight of the model, so it has no gradient; compute it from the model's outputs, in TensorFlow or "
    "keras.ops, without stop_gradient() or NumPy"
)


def batch_loss(model: keras.Layer, loss: Loss, batch: Any, training: bool = True) -> Any:
    """Return the loss of one batch as a scalar tensor. Raises `TrainingError` for one that is no scalar."""
    return scalar(task(model, loss, tensors_in(batch), training))


def task(model: keras.Layer, loss: Loss, batch: Any, training: bool) -> Any:
    """Return the user's loss of a batch of tensors, without what objectives add; None where there is none."""
    if loss is not None and calls_model(loss):
        return _returned(loss(model, batch))
    if loss is not None:
        inputs, targets = inputs_and_targets(batch)
        return tf.add_n([_mean(loss, targets, _run(model, inputs, training)), *_added(model)])
    x, y = _split(model, batch)
    outputs = _run(model, x, training)
    carried = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    if carried is not None:
        return carried
    return task_loss(model, own_method(model, "compute_loss"), x, y, outputs, None, training=training)


def _split(model: keras.Layer, batch: Any) -> tuple[Any, Any]:
    """Return inputs and targets for a compiled loss; without one a dict, or what is no pair, is inputs alone."""
    compiled = getattr(model, "_compile_loss", None) is not None
    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    return inputs_and_targets(batch) if compiled or pair else (batch, None)


def _run(model: keras.Layer, inputs: Any, training: bool) -> Any:
    return caller(model, inputs, training, "Trainer.data")(*tensors_of(inputs, "Trainer.data"))


def scalar(value: Any) -> Any:
    """Return a loss as a float32 scalar. Raises `TrainingError` for what is none."""
    if value is None:
        raise TrainingError("loss: the outputs carry none, and the model is compiled with none; give one: nnc.Trainer(loss=...).")
    tensor = tf.convert_to_tensor(value)
    if tensor.shape.num_elements() != 1:
        raise TrainingError(f"loss: its shape is {tuple(tensor.shape)}; a scalar is needed, tf.reduce_mean(loss) say.")
    return tf.cast(tf.reshape(tensor, ()), tf.float32)


def _mean(loss: Callable[..., Any], targets: Any, outputs: Any) -> Any:
    """Call a Keras loss, whose order is always (targets, outputs), or a function of the user's own, whose names tell its order."""
    outputs = keras.tree.map_structure(_wide, outputs)
    own = (lambda y_true, y_pred: loss(y_true, y_pred)) if isinstance(loss, keras.losses.Loss) else loss
    return scalar(_returned(of_pair(own, outputs, targets)))


def _returned(value: Any) -> Any:
    if value is None:
        raise TrainingError("Trainer.loss: returned a NoneType; one number is needed, as tf.reduce_mean(loss) gives.")
    return value


def _wide(output: Any) -> Any:
    narrow = tf.is_tensor(output) and output.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(output, tf.float32) if narrow else output


def _added(model: keras.Layer) -> list[Any]:
    """Return what layers add to any loss: regularisers, `add_loss`."""
    return [tf.reduce_sum(tf.cast(each, tf.float32)) for each in model.losses]


def tensors_in(batch: Any) -> Any:
    """Return a batch with its arrays as tensors; NumPy's float64 becomes Keras' float type, as in `fit`."""
    return keras.tree.map_structure(_tensor, batch)


def _tensor(value: Any) -> Any:
    if value is None or tf.is_tensor(value):
        return value
    if hasattr(value, "detach"):
        raise ConfigError("Trainer.data: a batch holds a torch tensor, but the model is Keras'; give NumPy arrays or TensorFlow's tensors.")
    array = np.asarray(value)
    return tf.convert_to_tensor(array.astype(keras.config.floatx()) if array.dtype == np.float64 else array)
