"""Masks: boolean arrays over parameters; True stays, False is masked.

Adapters get complete masks, {layer: {"weight": ..., "bias": ...}} in the canonical shapes. A user may hand in less, in
any array type, and under the framework's own names and layouts; `normalise` makes the one of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from nnc.adapter import Adapter, Layer, Masks
from nnc.arrays import to_numpy
from nnc.columns import channel_axis
from nnc.errors import ConfigError, nearest
from nnc.graph.ir import Array, Shape

_LIST = "`nnc layers` lists them all."


def normalise(masks: Any, layers: Sequence[Layer]) -> Masks:
    """Return complete canonical masks for every layer that `masks` names.

    Values may be bool, or numbers that are 0 or 1; arrays, lists or tensors. Keys may be native names ("kernel") with native layouts.
    Raises `ConfigError` for an unknown layer or parameter (nearest named), a wrong shape, or other values.
    """
    if not isinstance(masks, Mapping):
        raise ConfigError(f"masks: a {type(masks).__name__} was given; {_EXPECTED}")
    known = {layer.name: layer for layer in layers}
    return {name: complete(_given(name, given, known), known[name]) for name, given in masks.items()}


def paths(layers: Sequence[Layer]) -> set[str]:
    """Return the path of every parameter that a mask can be given for."""
    return {".".join(filter(None, (layer.name, parameter))) for layer in layers for parameter in layer.parameters}


def complete(masks: Mapping[str, Array], layer: Layer) -> dict[str, Array]:
    """Return `masks` with an all-True mask for each of the layer's weight and bias that it lacks."""
    shapes = layer.parameters
    lacking = [name for name in ("weight", "bias") if name in shapes and name not in masks]
    return {**masks, **{name: np.ones(shapes[name], bool) for name in lacking}}


def from_kept(keep: Array, layer: Layer) -> dict[str, Array]:
    """Return the masks of a layer of which `keep` stays: shape `(out,)` for channels, the weight's shape for elements.

    A channel is a row of the weight, of an embedding a column, and its entry of the bias; an element is one weight. A unit of a
    recurrent layer, `keep` of shape `(units,)`, is a row of each gate in all of the layer's parameters; a row of an attention's queries
    one of the keys and values, too, where these have weights of their own.
    """
    shape, axis = layer.parameters["weight"], channel_axis(layer)
    if keep.shape == layer.parameters.get("recurrent_weight", ())[1:]:
        return {name: _each_gate(keep, name, rows) for name, rows in layer.parameters.items() if name in _GATES}
    if keep.shape == shape[:1] and "key_weight" in layer.parameters:
        return {name: _each_gate(keep, name, rows) for name, rows in layer.parameters.items() if name in _APART}
    if keep.shape == shape and len(shape) > 1:
        return complete({"weight": keep}, layer)
    rows = np.broadcast_to(keep.reshape(-1, *(1,) * (len(shape) - 1 - axis)), shape).copy()
    return complete({"weight": rows} | ({"bias": keep.copy()} if "bias" in layer.parameters else {}), layer)


#: The parameters of a recurrent layer, which hold its units gate behind gate.
_GATES = ("weight", "bias", "recurrent_weight", "recurrent_bias")


#: The parameters of an attention whose queries, keys and values have a weight each; their biases lie one behind the other.
_APART = ("weight", "key_weight", "value_weight", "bias")


def _each_gate(keep: Array, name: str, shape: Shape) -> Array:
    rows = shape if name.endswith("bias") else shape[:1]
    gates = np.tile(keep, int(np.prod(rows)) // keep.size).reshape(rows)
    return gates if name.endswith("bias") else np.repeat(gates[:, None], shape[1], axis=1)


def merge(old: Masks, new: Masks) -> Masks:
    """Return masks that keep what both keep: pruning again never revives what left before."""
    both = {name: {key: old[name].get(key, mask) & mask for key, mask in new[name].items()} for name in new if name in old}
    return {**old, **new, **both}


@contextmanager
def unmasked(adapter: Adapter) -> Iterator[None]:
    """Take a model's masks off, and put them back whatever happens."""
    masks = adapter.masks()
    if masks:
        adapter.set_masks({})
    try:
        yield
    finally:
        if masks:
            adapter.set_masks(masks)


_EXPECTED = 'masks are {layer name: {"weight": array, "bias": array}}, True where a number stays.'


def _given(name: str, given: Any, known: Mapping[str, Layer]) -> dict[str, Array]:
    """Check one layer's masks and bring them to canonical names and shapes."""
    if name not in known:
        raise ConfigError(f"masks: {name!r} is no layer{nearest(str(name), known)}. {_LIST}")
    layer = known[name]
    if not isinstance(given, Mapping):
        needed = ", ".join(f'"{key}": array of shape {shape}' for key, shape in layer.parameters.items() if key in ("weight", "bias"))
        raise ConfigError(f"masks[{name!r}]: a {type(given).__name__} was given; it is a dict of masks: {{{needed}}}.")
    return {layer.native.get(key, key): _mask(f"masks[{name!r}][{key!r}]", key, value, layer) for key, value in given.items()}


def _mask(place: str, key: str, value: Any, layer: Layer) -> Array:
    shapes = layer.parameters
    if key not in shapes and key not in layer.native:
        close = nearest(str(key), [*shapes, *layer.native])
        raise ConfigError(f"{place}: {layer.name!r} has no such parameter{close}. It has {', '.join(shapes)}.")
    mask = _booleans(place, value)
    if key in shapes:
        return _of_shape(place, mask, shapes[key])
    return _of_shape(place, _canonical(place, key, mask, layer), shapes[layer.native[key]])


def _canonical(place: str, key: str, mask: Array, layer: Layer) -> Array:
    try:
        return layer.canonical(key, mask)
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{place}: the mask has shape {mask.shape}, which is not {key!r}'s layout: {error}.") from None


def _of_shape(place: str, mask: Array, shape: Shape) -> Array:
    if mask.shape != tuple(shape):
        raise ConfigError(f"{place}: the mask has shape {mask.shape}, the parameter has {tuple(shape)}, as (out, in, *kernel).")
    return mask


def _booleans(place: str, value: Any) -> Array:
    try:
        array = to_numpy(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{place}: {type(value).__name__} is no array: {error}.") from None
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{place}: the values are of type {array.dtype}; a mask holds booleans, or 0 and 1.")
    if array.dtype.kind != "b" and not np.isin(array, (0, 1)).all():
        stray = array[~np.isin(array, (0, 1))].flat[0]
        raise ConfigError(f"{place}: {stray} is neither 0 nor 1; a mask says of each number whether it stays (1) or not (0).")
    return array.astype(bool, copy=False)
