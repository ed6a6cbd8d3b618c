"""How Keras lays a parameter out, and the way to the canonical orientation and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nnc.graph.ir import Array, Shape


@dataclass(frozen=True)
class Layout:
    """canonical = native transposed by `permutation`; a depthwise kernel then joins its first two axes, (C, m) -> (C * m, 1)."""

    permutation: tuple[int, ...]
    depthwise: bool = False

    @property
    def plain(self) -> bool:
        """Tell whether the canonical orientation is Keras' own."""
        return not self.depthwise and self.permutation == tuple(range(len(self.permutation)))

    @property
    def inverse(self) -> tuple[int, ...]:
        return tuple(int(axis) for axis in np.argsort(self.permutation))

    def shape(self, native: Shape) -> Shape:
        """Return the canonical shape of a parameter that Keras stores as `native`."""
        turned = tuple(native[axis] for axis in self.permutation)
        return (turned[0] * turned[1], 1, *turned[2:]) if self.depthwise else turned

    def canonical(self, tensor: Any) -> Any:
        """Bring a tensor in Keras' layout to the canonical one."""
        if self.plain:
            return tensor
        shape = self.shape(tuple(tensor.shape))
        return tf.reshape(tf.transpose(tensor, self.permutation), shape)

    def native(self, array: Array, native: Shape) -> Array:
        """Bring a canonical array to Keras' layout, whose shape is `native`."""
        turned = [native[axis] for axis in self.permutation]
        return np.ascontiguousarray(array.reshape(turned).transpose(self.inverse))

    def cut(self, native: Shape, kept: Mapping[int, Array]) -> Shape:
        """Return Keras' shape after a cut that leaves the indices `kept` of canonical axes.

        Raises ValueError for a depthwise kernel whose channels would keep different numbers of multiplier outputs.
        """
        turned = [native[axis] for axis in self.permutation]
        if self.depthwise and 0 in kept:
            channels, multiplier = np.unique(kept[0] // turned[1]), np.unique(kept[0] % turned[1])
            if len(channels) * len(multiplier) != len(kept[0]):
                raise ValueError("a depthwise convolution keeps the same number of outputs for each of its channels")
            turned[:2] = len(channels), len(multiplier)
        elif not self.depthwise:
            turned = [len(kept[axis]) if axis in kept else size for axis, size in enumerate(turned)]
        return tuple(turned[axis] for axis in self.inverse)


_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_CONV = ("Conv1D", "Conv2D", "Conv3D")


def is_a(layer: keras.Layer, names: tuple[str, ...]) -> bool:
    """Tell whether a layer is, or derives from, one of Keras' own layers of these names."""
    return any(isinstance(layer, getattr(keras.layers, name)) for name in names)


def linear_einsum(layer: keras.Layer) -> bool:
    """Tell whether an EinsumDense does what a Dense does: `...x,xy->...y`."""
    if not is_a(layer, ("EinsumDense",)):
        return False
    left, _, out = layer.equation.replace(" ", "").partition("->")
    x, _, kernel = left.replace("...", "").partition(",")
    out = out.replace("...", "")
    return len(kernel) == 2 and x[-1:] == kernel[0] and out[-1:] == kernel[1] and x[:-1] == out[:-1]


def layout_of(layer: keras.Layer, attribute: str, variable: Any) -> Layout:
    """Return the layout of one parameter of a layer."""
    rank = len(variable.shape)
    plain = tuple(range(rank))
    if attribute == "depthwise_kernel" or (attribute == "kernel" and is_a(layer, _DEPTHWISE)):
        return Layout((rank - 2, rank - 1, *plain[:-2]), depthwise=True)
    if attribute == "kernel" and is_a(layer, _TRANSPOSED):
        return Layout((rank - 2, rank - 1, *plain[:-2]))
    if (attribute == "kernel" and is_a(layer, _CONV)) or (attribute == "pointwise_kernel" and is_a(layer, _SEPARABLE)):
        return Layout((rank - 1, rank - 2, *plain[:-2]))
    if attribute == "kernel" and rank == 2 and (is_a(layer, ("Dense",)) or linear_einsum(layer)):
        return Layout((1, 0))
    return Layout(plain)
