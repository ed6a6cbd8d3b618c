"""One batch looked at: what passed the model, and the gradients of a loss, with respect to what the model really computed with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager.record import stop_recording  # no public name leads to it

from nnc.errors import ConfigError, TrainingError
from nnc.graph.ir import Array
from nnc.views import Site
from nnc_tensorflow.inference import form_of, often
from nnc_tensorflow.inputs import caller, tensors_of
from nnc_tensorflow.losses import NO_GRADIENT, tensors_in
from nnc_tensorflow.names import named_layers
from nnc_tensorflow.taps import Record, tapped
from nnc_tensorflow.trace import failure
from nnc_tensorflow.views import layer_at, slot_at


def forward_pass(
    model: keras.Layer, batch: Any, sites: Collection[Site], training: bool, through: Callable[..., Any] | None = None
) -> tuple[Any, dict[Site, Any]]:
    """Return the outputs of one pass without gradients, and what passed `sites`; a parameter is the one that was read.

    Raises `ConfigError` where the model rejects the batch, or does not reach a site.
    """
    layers = named_layers(model)
    if through is None:
        call, tensors, form = caller(model, batch, training, "batch"), tensors_of(batch, "batch"), form_of(batch)
    else:
        call, tensors, form = partial(through, model), [tensors_in(batch)], through

    def run(*tensors: Any) -> tuple[Any, list[Any]]:
        record = Record()
        with tapped(layers, sites, record), stop_recording():
            outputs = call(*tensors)
        return outputs, [record.last(site) for site in sites]

    try:
        outputs, seen = often(model, (form, tuple(sites), training), run)(*tensors)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(str(failure(error, tf.nest.flatten(tensors), given="batch"))) from error
    return outputs, {site: _canonical(layers, site, each) for site, each in zip(sites, seen, strict=True)}


def gradients_of(
    model: keras.Layer, loss: Callable[..., Any], sites: Collection[Site], batch: tuple[Any, ...] = ()
) -> tuple[float, dict[Site, Any]]:
    """Return `loss(model, *batch)` and its gradients with respect to `sites`: zeros where the loss does not depend on what was seen there.

    A parameter counts each time that it is read; of a layer that runs several times the last input or output counts.
    Raises `TrainingError` for a loss that is no scalar.
    """
    layers = named_layers(model)

    def run(*batch: Any) -> tuple[Any, list[Any]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            record = Record(tape)
            with tapped(layers, sites, record):
                value = tf.convert_to_tensor(loss(model, *batch))
        if value.shape.rank != 0:
            raise TrainingError(f"loss: its shape is {tuple(value.shape)}; a scalar is needed, tf.reduce_mean(loss) say.")
        for site in sites:
            record.last(site)
        seen = [record.seen[site] if site.is_parameter else record.seen[site][-1:] for site in sites]
        found = tape.gradient(value, seen)
        if sites and all(each is None for every in found for each in every):
            raise TrainingError(f"Trainer.loss: {NO_GRADIENT}.")
        return value, [tf.add_n(list(map(_dense, given, every))) for given, every in zip(seen, found, strict=True)]

    # A loss that holds its batch would be compiled for that batch.
    function = often(model, ("gradients", loss, getattr(model, "_compile_loss", None), tuple(sites)), run) if batch else run
    value, found = function(*tensors_in(batch))
    return float(value), {site: _canonical(layers, site, each) for site, each in zip(sites, found, strict=True)}


def _dense(given: Any, gradient: Any) -> Any:
    """Return a gradient as a tensor: an embedding's is sparse, one of what the loss does not depend on is zero."""
    return tf.zeros_like(given) if gradient is None else tf.convert_to_tensor(gradient)


def _canonical(layers: Any, site: Site, tensor: Any) -> Any:
    return slot_at(layer_at(layers, site, "sites"), site, "sites").layout.canonical(tensor) if site.is_parameter else tensor


def write(layers: Mapping[str, keras.Layer], numbers: Mapping[Site, Array]) -> dict[Site, Array]:
    """Set stored parameters and return the numbers that they had, canonical. Raises `ConfigError` before any is set."""
    slots = {site: slot_at(layer_at(layers, site, "numbers"), site, "numbers") for site in numbers}
    for site, array in numbers.items():
        if np.shape(array) != slots[site].shape:
            raise ConfigError(f"numbers[{str(site)!r}]: the shape is {np.shape(array)}, the parameter's {slots[site].shape}.")
    before = {site: slot.layout.canonical(tf.identity(slot.variable.value)).numpy() for site, slot in slots.items()}
    for site, slot in slots.items():
        slot.variable.assign(slot.layout.native(np.asarray(numbers[site], slot.variable.dtype), tuple(slot.variable.shape)))
    return before
