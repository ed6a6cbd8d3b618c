"""Masks that are seen through: a masked layer's `kernel` is its stored variable times a mask, whoever reads it.

The layer instance changes its class to a subclass whose `kernel` is such a product; the stored variable, its optimizer slots and its
gradients stay (those of masked entries are zero by the product rule). The mask is a variable that no layer tracks, so a compiled
function sees it change. `layer.__class__` still answers with the user's class, and saving stores the user's weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import keras
import numpy as np

from nnc.adapter import Masks
from nnc.errors import ConfigError
from nnc.graph.ir import Array
from nnc_tensorflow.layers import KerasLayer
from nnc_tensorflow.names import MASKS

_set_class = vars(object)["__class__"].__set__  # the masked class answers `__class__` itself, so the plain assignment is taken


def current_masks(layers: Sequence[KerasLayer]) -> Masks:
    """Return the masks that the layers are seen through now."""
    found: Masks = {}
    for layer in layers:
        held = layer.layer.__dict__.get(MASKS, {})
        masked = {name: slot.attribute for name, slot in layer.slots.items() if slot.attribute in held}
        masks = {name: layer.canonical(attribute, np.asarray(held[attribute].value)) > 0 for name, attribute in masked.items()}
        if masks:
            found[layer.name] = masks
    return found


def apply_masks(layers: Sequence[KerasLayer], masks: Masks) -> None:
    """See the layers through `masks` and no others. After an exception every layer is as it was."""
    native = {layer.name: _native(layer, masks[layer.name]) for layer in layers if masks.get(layer.name)}
    before = [(layer.layer, _state(layer.layer)) for layer in layers]
    try:
        for layer in layers:
            _see_through(layer.layer, native.get(layer.name, {}))
    except BaseException:
        for layer, state in before:
            _restore(layer, state)
        raise


@contextmanager
def seen_through(layers: Sequence[KerasLayer], masks: Masks) -> Iterator[None]:
    """See the layers through `masks` for a while; compiled functions of the model must not run meanwhile."""
    before = [(layer.layer, _state(layer.layer)) for layer in layers]
    held = [layer.layer.__dict__.pop(MASKS, None) for layer in layers]  # kept aside, so that their numbers stay
    try:
        apply_masks(layers, masks)
        yield
    finally:
        for (layer, state), masks_held in zip(before, held, strict=True):
            _restore(layer, state)
            if masks_held is not None:
                layer.__dict__[MASKS] = masks_held


def forget_compiled(model: keras.Layer) -> None:
    """Drop the compiled steps of a model and of the models inside it: they hold the parameters as they were seen before."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model):
            layer.train_function = layer.test_function = layer.predict_function = None


def _native(layer: KerasLayer, masks: Mapping[str, Array]) -> dict[str, Array]:
    """Return one layer's masks by Keras' attribute, in Keras' layout, as numbers."""
    found = {}
    for name, mask in masks.items():
        slot = layer.slots[name]
        if "." in slot.attribute or not slot.attribute.isidentifier():
            raise ConfigError(f"masks[{layer.name!r}][{name!r}]: Keras holds this parameter in a list or dict, where it cannot be masked.")
        found[slot.attribute] = slot.layout.native(np.asarray(mask, slot.variable.dtype), tuple(slot.variable.shape))
    return found


def _state(layer: keras.Layer) -> tuple[type, dict[str, tuple[Any, Array]] | None]:
    """Return a layer's class, and its mask variables with their numbers."""
    held = layer.__dict__.get(MASKS)
    return type(layer), None if held is None else {name: (variable, np.asarray(variable.value)) for name, variable in held.items()}


def _restore(layer: keras.Layer, state: tuple[type, dict[str, tuple[Any, Array]] | None]) -> None:
    cls, held = state
    _set_class(layer, cls)
    layer.__dict__.pop(MASKS, None)
    if held is not None:
        for variable, numbers in held.values():
            variable.assign(numbers)
        layer.__dict__[MASKS] = {name: variable for name, (variable, _) in held.items()}


def _see_through(layer: keras.Layer, masks: Mapping[str, Array]) -> None:
    """Give one layer masks ({attribute: numbers}); none gives it its own class back."""
    held = layer.__dict__.pop(MASKS, {})
    if not masks:
        _set_class(layer, layer.__class__)
        return
    for name, mask in masks.items():
        if name in held:
            held[name].assign(mask)
        else:
            held[name] = keras.Variable(mask, trainable=False, dtype=mask.dtype.name, name=f"{name}_mask")
    layer.__dict__[MASKS] = {name: held[name] for name in masks}
    _set_class(layer, _masked_class(layer.__class__, tuple(sorted(masks))))


@cache
def _masked_class(cls: type, attributes: tuple[str, ...]) -> type:
    """Return a subclass of `cls` that reads the given attributes through the instance's masks."""

    def save_own_variables(self: Any, store: Any) -> None:
        with _bare(self):
            self.save_own_variables(store)

    def load_own_variables(self: Any, store: Any) -> None:
        with _bare(self):
            self.load_own_variables(store)

    body: dict[str, Any] = {name: _masked_property(cls, name) for name in attributes}
    body |= {
        "__class__": property(lambda self: cls),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "save_own_variables": save_own_variables,
        "load_own_variables": load_own_variables,
    }
    return type(cls)(cls.__name__, (cls,), body)


def _masked_property(cls: type, name: str) -> property:
    """Return the data descriptor that stands in front of a property of `cls`, or of an entry of the instance's `__dict__`."""
    own = getattr(cls, name, None)

    def read(self: Any) -> Any:
        value = own.__get__(self, cls) if isinstance(own, property) else self.__dict__[name]
        return value if value is None else keras.ops.multiply(value, self.__dict__[MASKS][name])

    def write(self: Any, value: Any) -> None:
        if isinstance(own, property):
            own.__set__(self, value)
        else:
            self.__dict__[name] = value

    return property(read, write)


@contextmanager
def _bare(layer: Any) -> Iterator[None]:
    """Give a masked layer its own class for a moment, so that what is stored is read and written, not what is seen."""
    masked = type(layer)
    _set_class(layer, layer.__class__)
    try:
        yield
    finally:
        _set_class(layer, masked)
