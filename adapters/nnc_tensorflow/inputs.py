"""Example inputs, as a user gives them, in the form in which the model is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nnc.errors import ConfigError, nearest


def tensors_of(example_inputs: Any, place: str = "example_inputs") -> list[tf.Tensor]:
    """Return the example inputs as tensors, flattened in order: an array, a sequence of them, or a dict by input name.

    Raises `ConfigError` for what is no array.
    """
    values = [example_inputs[name] for name in example_inputs] if isinstance(example_inputs, Mapping) else example_inputs
    values = list(values) if isinstance(values, (list, tuple)) else [values]
    try:
        return [_tensor(value) for value in values]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{place}: {error}. Give an array or a tensor, a list of them, or a dict by input name.") from None


def caller(model: keras.Layer, example_inputs: Any, training: bool = False, place: str = "example_inputs") -> Callable[..., Any]:
    """Return a function of the flattened tensors that calls the model, in inference mode unless `training`.

    Raises `ConfigError` where the model's inputs have other names, another number, or other shapes.
    """
    declared = getattr(model, "inputs", None)
    tensors = tensors_of(example_inputs, place)
    if isinstance(example_inputs, Mapping):
        return _by_name(model, list(example_inputs), tensors, declared, training, place)
    if declared:
        _fits(declared, tensors, place)
        single = not isinstance(example_inputs, (list, tuple))
        structure = model.input if hasattr(model, "input") else declared
        if len(declared) == 1 and (single or not isinstance(structure, (list, tuple))):
            return _called(model, lambda values: ((values[0],), {}), training)
        return _called(model, lambda values: ((keras.tree.pack_sequence_as(structure, list(values)),), {}), training)
    if isinstance(example_inputs, (list, tuple)) and _positions(model) < len(tensors):
        return _called(model, lambda values: ((list(values),), {}), training)
    return _called(model, lambda values: (values, {}), training)


def _tensor(value: Any) -> tf.Tensor:
    """Python and NumPy float64 become the float type that Keras works in, as `model.fit` makes them."""
    if hasattr(value, "detach"):
        raise TypeError("a torch tensor was given to a Keras model")
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype == tf.string:
        raise TypeError("text was given")
    narrow = tensor.dtype == tf.float64 and not isinstance(value, tf.Tensor)
    return tf.cast(tensor, keras.config.floatx()) if narrow else tensor


def calling(model: keras.Layer, training: bool) -> Callable[..., Any]:
    """Return the model as a function that says whether it trains, to a model that asks."""
    return partial(model, training=training) if "training" in _call_parameters(model) else model


def _called(
    model: keras.Layer, arguments: Callable[[tuple[Any, ...]], tuple[tuple[Any, ...], dict[str, Any]]], training: bool
) -> Callable[..., Any]:
    call = calling(model, training)

    def run(*values: Any) -> Any:
        positional, named = arguments(values)
        return call(*positional, **named)

    return run


def _by_name(
    model: keras.Layer, names: list[str], tensors: Sequence[tf.Tensor], declared: Any, training: bool, place: str
) -> Callable[..., Any]:
    if declared:
        known = {tensor.name: tensor for tensor in declared}
        for name in names:
            if name not in known:
                raise ConfigError(f"{place}: the model has no input {name!r}{nearest(name, known)}. It has {', '.join(known)}.")
        _fits([known[name] for name in names], tensors, place)
    elif set(names) <= set(_call_parameters(model)):
        return _called(model, lambda values: ((), dict(zip(names, values, strict=True))), training)
    return _called(model, lambda values: ((dict(zip(names, values, strict=True)),), {}), training)


def _call_parameters(model: keras.Layer) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(model.call).parameters


def _positions(model: keras.Layer) -> int:
    """Return how many tensors `call` takes by position."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = _call_parameters(model).values()
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return 1_000
    return sum(p.kind in positional and p.name not in ("training", "mask") for p in parameters)


def _fits(declared: Sequence[Any], tensors: Sequence[tf.Tensor], place: str) -> None:
    """Compare the shapes of tensors with those of the model's inputs; None there fits any size."""
    if len(declared) != len(tensors):
        raise ConfigError(f"{place}: {len(tensors)} given, but the model has {len(declared)} inputs: {_shapes(declared)}.")
    for number, (expected, given) in enumerate(zip(declared, tensors, strict=True)):
        shape = tuple(given.shape)
        if len(shape) != len(expected.shape) or any(e not in (None, g) for e, g in zip(expected.shape, shape, strict=True)):
            which = f"{place}[{number}]" if len(declared) > 1 else place
            wanted = f"{expected.name!r} has {tuple(expected.shape)} (None: any size)"
            raise ConfigError(f"{which}: the shape is {shape}, but the model's input {wanted}.")


def _shapes(declared: Sequence[Any]) -> str:
    return ", ".join(f"{tensor.name!r} {tuple(tensor.shape)}" for tensor in declared)


def arrays_of(outputs: Any) -> tuple[np.ndarray[Any, Any], ...]:
    """Return a model's outputs as arrays, flattened in Keras' order; what is None is left out."""
    return tuple(np.asarray(value) for value in keras.tree.flatten(outputs) if value is not None)
