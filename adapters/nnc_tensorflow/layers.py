"""Keras layers as nnc sees them: dotted names, neutral types, parameters in the canonical orientation.

Conv2D kernel (3, 3, in, out)          -> weight (out, in, 3, 3)
DepthwiseConv2D kernel (3, 3, C, m)    -> weight (C * m, 1, 3, 3), index c * m + j
BatchNormalization gamma, moving_mean  -> weight, running_mean
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType, ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nnc.graph.ir import Array, Shape
from nnc_tensorflow import ops
from nnc_tensorflow.attention import heads, is_attention
from nnc_tensorflow.kinds import PRUNABLE, op_types
from nnc_tensorflow.layouts import Layout, layout_of
from nnc_tensorflow.names import MASKS, VIEWS, is_graph, named_layers, own_variables
from nnc_tensorflow.recurrent import cell_of, holder

_CANONICAL = {
    "kernel": "weight",
    "pointwise_kernel": "weight",
    "depthwise_kernel": "depthwise_weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "embeddings": "weight",
    "recurrent_kernel": "recurrent_weight",
}


@dataclass(frozen=True)
class Slot:
    """One parameter of one layer: where Keras stores it, under which name code reads it, how it is laid out."""

    name: str
    attribute: str
    variable: Any
    layout: Layout

    @property
    def shape(self) -> Shape:
        return self.layout.shape(tuple(self.variable.shape))


@dataclass(frozen=True)
class KerasLayer:
    """Implements `nnc.adapter.Layer` over one Keras layer."""

    name: str
    layer: Any

    @property
    def holder(self) -> Any:
        """The Keras layer that stores the parameters: of a recurrent layer, its cell."""
        return holder(self.layer)

    @cached_property
    def slots(self) -> dict[str, Slot]:
        """The layer's own parameters by canonical name."""
        found = {}
        for attribute, variable in own_variables(self.holder).items():
            name = _CANONICAL.get(attribute, attribute)
            if name in found:
                name = attribute
            found[name] = Slot(name, attribute, variable, layout_of(self.holder, attribute, variable))
        return found

    @cached_property
    def op_types(self) -> tuple[str, ...]:
        return op_types(self.layer)

    @property
    def op_type(self) -> str:
        return self.op_types[0]

    @property
    def prunable(self) -> bool:
        return self.op_type in PRUNABLE and "weight" in self.slots

    @property
    def parameters(self) -> Mapping[str, Shape]:
        return {name: slot.shape for name, slot in self.slots.items()}

    @property
    def native(self) -> Mapping[str, str]:
        return MappingProxyType({slot.attribute: name for name, slot in self.slots.items() if slot.attribute != name})

    @property
    def ops(self) -> ModuleType:
        return ops

    @property
    def weight(self) -> Any:
        return self.seen("weight")

    @property
    def bias(self) -> Any | None:
        return self.seen("bias") if "bias" in self.slots else None

    def effective(self, parameter: str) -> Any:
        """Return a parameter with its mask applied, a tensor in the canonical shape."""
        slot = self.slots[parameter]
        value = tf.convert_to_tensor(slot.variable.value)
        mask = self.holder.__dict__.get(MASKS, {}).get(slot.attribute)
        return slot.layout.canonical(value if mask is None else value * tf.cast(mask.value, value.dtype))

    def seen(self, parameter: str) -> Any:
        """Return a parameter as the model sees it now, masks and views applied, in the canonical shape."""
        slot = self.slots[parameter]
        if slot.attribute not in self.holder.__dict__.get(VIEWS, {}):
            return self.effective(parameter)
        return slot.layout.canonical(tf.convert_to_tensor(getattr(self.holder, slot.attribute)))

    def stored(self, parameter: str) -> Any:
        """Return a parameter without masks and views, a tensor in the canonical shape."""
        slot = self.slots[parameter]
        return slot.layout.canonical(tf.convert_to_tensor(slot.variable.value))

    def numbers(self, parameter: str) -> Array:
        """Return a parameter with its mask applied as a NumPy array in the canonical shape."""
        return np.asarray(self.effective(parameter))

    def canonical(self, parameter: str, array: Array) -> Array:
        slot = self.slots[self.native.get(parameter, parameter)]
        if np.shape(array) != tuple(slot.variable.shape):
            raise ValueError(f"{parameter} has the shape {tuple(slot.variable.shape)} in Keras")
        return np.asarray(slot.layout.canonical(tf.convert_to_tensor(array)))


def keras_layers(model: keras.Layer) -> list[KerasLayer]:
    """Return the layers that hold parameters of their own, in the order in which the model defines them."""
    named = named_layers(model)
    cells = {id(cell_of(layer)) for layer in named.values()}
    wrapped = (KerasLayer(name, layer) for name, layer in named.items() if id(layer) not in cells)
    return [layer for layer in wrapped if layer.slots]


def numbers_of(layers: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the whole numbers above 1 that layers of the user's own classes, and Keras' attentions, note in attributes, by layer."""
    held = ((name, _numbers_in(layer)) for name, layer in layers.items())
    return {name: numbers for name, numbers in held if numbers}


def _numbers_in(layer: Any) -> dict[str, int]:
    if is_attention(layer):
        return {name: number for name, number in heads(layer).items() if number > 1}
    if is_graph(layer) or layer.__class__.__module__.startswith("keras.src."):
        return {}
    own = vars(layer).items()
    return {name: value for name, value in own if type(value) is int and value > 1 and not name.startswith("_")}
