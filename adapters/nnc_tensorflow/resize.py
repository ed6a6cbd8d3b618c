"""A layer of a small model gets a `call` in which a hard-coded size is the new one, or an attribute that gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any

import keras
import tensorflow as tf

from nnc.bodies import body
from nnc.errors import SpeedupError
from nnc.graph.plan import Reshape, Size
from nnc.resize import held_sizes, resized
from nnc_tensorflow.symbols import follow_graphs


def _as_written(function: Callable[..., Any], reshape: Reshape, layer: keras.Layer) -> Reshape:
    """Return `reshape` as the code gives it: `tf.split` takes the sizes of the parts, `ops.split` the places between them."""
    places = replace(reshape, old=tuple(accumulate(reshape.old[:-1])), new=tuple(accumulate(reshape.new[:-1])))
    try:
        held_sizes(function, reshape, layer)
    except SpeedupError:
        if reshape.op != "SplitV":
            raise
        return places
    return reshape


def _take(x: Any, places: list[int], axis: int) -> Any:
    return tf.gather(x, tf.constant(places), axis=axis)


def rewrite_call(layers: Mapping[str, keras.Layer], reshape: Reshape) -> tuple[Size, ...]:
    """Change the one layer instance that `reshape` names; return the attributes that were set where the code needed no change.

    Raises `SpeedupError` that names the line.
    """
    layer = layers.get(reshape.layer)
    found = body(layer, reshape.function, "call") if layer is not None else None
    if layer is None or found is None:
        whose = f"the layer {reshape.layer or 'model'!r} has no method of that name to change, and calls no such function by name"
        raise SpeedupError(f"{reshape.function}, line {reshape.line}: {reshape.fault}, but {whose}. {reshape.remedy}")
    reshape = _as_written(found.function, reshape, layer)
    held = () if reshape.rewrite else held_sizes(found.function, reshape, layer)
    if held:
        layer.__dict__.update({size.attribute: size.in_place_of(getattr(layer, size.attribute)) for size in held})
    else:  # the signature stays the same, so what Keras noted of it still holds
        layer.__dict__.update(found.replace(resized(found.function, reshape, layer, _take), reshape))
    follow_graphs(layers[""])
    return held
