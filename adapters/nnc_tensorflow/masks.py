"""Masks that are seen through: a masked layer's `kernel` is its stored variable times a mask, whoever reads it.

The stored variable, its optimizer slots and its gradients stay (those of masked entries are zero by the product rule). The mask is a
variable that no layer tracks, so a compiled function sees it change. How a layer comes to be read differently is told in swap.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from nnc.adapter import Masks
from nnc.errors import ConfigError
from nnc.graph.ir import Array
from nnc_tensorflow.layers import KerasLayer
from nnc_tensorflow.names import MASKS
from nnc_tensorflow.swap import Held, held_by, hold


def current_masks(layers: Sequence[KerasLayer]) -> Masks:
    """Return the masks that the layers are seen through now."""
    found: Masks = {}
    for layer in layers:
        held = layer.holder.__dict__.get(MASKS, {})
        masked = {name: slot.attribute for name, slot in layer.slots.items() if slot.attribute in held}
        masks = {name: layer.canonical(attribute, np.asarray(held[attribute].value)) > 0 for name, attribute in masked.items()}
        if masks:
            found[layer.name] = masks
    return found


def apply_masks(layers: Sequence[KerasLayer], masks: Masks) -> bool:
    """See the layers through `masks` and no others, and tell whether compiled functions no longer fit.

    After an exception every layer is as it was.
    """
    native = {layer.name: _native(layer, masks[layer.name]) for layer in layers if masks.get(layer.name)}
    before = [(layer.holder, held_by(layer.holder), _numbers(layer.holder)) for layer in layers]
    try:
        changed = [_see_through(layer.holder, native.get(layer.name, {})) for layer in layers]
    except BaseException:
        for layer, held, numbers in before:
            _restore(layer, held, numbers)
        raise
    return any(changed)


@contextmanager
def seen_through(layers: Sequence[KerasLayer], masks: Masks, others: Sequence[keras.Layer] = ()) -> Iterator[None]:
    """See the layers through `masks`, and nothing else, for a while; compiled functions of the model must not run meanwhile.

    `others` are layers without parameters, of which nothing is seen meanwhile either.
    """
    every = [layer.holder for layer in layers]
    every += [layer for layer in others if not any(layer is known for known in every)]
    before = [(layer, held_by(layer)) for layer in every]
    try:
        for layer in every:
            hold(layer, {})
        apply_masks(layers, masks)
        yield
    finally:
        for layer, held in before:
            hold(layer, held)


def _native(layer: KerasLayer, masks: Mapping[str, Array]) -> dict[str, Array]:
    """Return one layer's masks by Keras' attribute, in Keras' layout, as numbers."""
    found = {}
    for name, mask in masks.items():
        slot = layer.slots[name]
        if "." in slot.attribute or not slot.attribute.isidentifier():
            raise ConfigError(f"masks[{layer.name!r}][{name!r}]: Keras holds this parameter in a list or dict, where it cannot be masked.")
        found[slot.attribute] = slot.layout.native(np.asarray(mask, slot.variable.dtype), tuple(slot.variable.shape))
    return found


def _numbers(layer: keras.Layer) -> dict[str, Array]:
    return {name: np.asarray(variable.value) for name, variable in layer.__dict__.get(MASKS, {}).items()}


def _restore(layer: keras.Layer, held: Held, numbers: Mapping[str, Array]) -> None:
    hold(layer, held)
    for name, mask in numbers.items():
        held[MASKS][name].assign(mask)


def _see_through(layer: keras.Layer, masks: Mapping[str, Array]) -> bool:
    """Give one layer masks ({attribute: numbers}); a mask that is there already takes the new numbers."""
    held = held_by(layer)
    variables = dict(held.get(MASKS, {}))
    for name, mask in masks.items():
        if name in variables:
            variables[name].assign(mask)
        else:
            variables[name] = _variable(name, mask)
    before = set(held.get(MASKS, {}))
    changed = hold(layer, {**held, MASKS: {name: variables[name] for name in masks}})
    return changed or before != set(masks)


def _variable(name: str, mask: Array) -> Any:
    return keras.Variable(mask, trainable=False, dtype=mask.dtype.name, name=f"{name}_mask")
