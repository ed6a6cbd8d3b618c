"""How Keras lays a parameter out, and the way to the canonical orientation and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nnc.graph.ir import Array, Shape
from nnc_tensorflow.recurrent import is_cell

#: Where a canonical tensor notes what it was made of: (layout, tensor).
_STORED = "_nnc_stored"


@dataclass(frozen=True)
class Layout:
    """canonical = native transposed by `permutation`, after which runs of axes are joined: `joined` gives the length of each run.

    Conv2D kernel (3, 3, in, out)            (3, 2, 0, 1), joined (1, 1, 1, 1)    (out, in, 3, 3)
    DepthwiseConv2D kernel (3, 3, C, m)      (2, 3, 0, 1), joined (2, 0, 1, 1)    (C * m, 1, 3, 3); a run of none is an axis of size 1
    an attention's query (in, heads, dim)    (1, 2, 0),    joined (2, 1)          (heads * dim, in)
    """

    permutation: tuple[int, ...]
    joined: tuple[int, ...] = ()

    @property
    def runs(self) -> tuple[int, ...]:
        """Return `joined`, every axis for itself where nothing is joined."""
        return self.joined or (1,) * len(self.permutation)

    @property
    def plain(self) -> bool:
        """Tell whether the canonical orientation is Keras' own."""
        return not self.regroups and self.permutation == tuple(range(len(self.permutation)))

    @property
    def regroups(self) -> bool:
        """Tell whether axes are joined, or added."""
        return any(run != 1 for run in self.runs)

    @property
    def depthwise(self) -> bool:
        return self.runs[:2] == (2, 0)

    @property
    def inverse(self) -> tuple[int, ...]:
        return tuple(int(axis) for axis in np.argsort(self.permutation))

    def turned(self, native: Shape) -> Shape:
        """Return Keras' shape after the transpose, before axes are joined."""
        return tuple(native[axis] for axis in self.permutation)

    def shape(self, native: Shape) -> Shape:
        """Return the canonical shape of a parameter that Keras stores as `native`."""
        return tuple(int(np.prod(sizes, dtype=int)) for sizes in self._split(self.turned(native)))

    def canonical(self, tensor: Any) -> Any:
        """Bring a tensor in Keras' layout to the canonical one, which `as_stored` can tell from others."""
        if self.plain:
            return tensor
        found = tf.reshape(tf.transpose(tensor, self.permutation), self.shape(tuple(tensor.shape)))
        if tf.is_tensor(tensor):
            setattr(found, _STORED, (self, tensor))
        return found

    def native(self, array: Array, native: Shape) -> Array:
        """Bring a canonical array to Keras' layout, whose shape is `native`."""
        return np.array(array.reshape(self.turned(native)).transpose(self.inverse), order="C", copy=None)

    def native_tensor(self, tensor: Any, native: Shape) -> Any:
        """Bring a canonical tensor to Keras' layout, with gradients."""
        layout, stored = as_stored(tensor)
        if layout == self and tuple(stored.shape) == native:
            return stored
        return tensor if self.plain else tf.transpose(tf.reshape(tensor, self.turned(native)), self.inverse)

    def cut(self, native: Shape, kept: Mapping[int, Array]) -> Shape:
        """Return Keras' shape after a cut that leaves the indices `kept` of canonical axes.

        Raises ValueError where what stays of joined axes is no block: heads of different widths, say.
        """
        sizes = [_block(run, kept[axis]) if axis in kept else run for axis, run in enumerate(self._split(self.turned(native)))]
        turned = [size for run in sizes for size in run]
        return tuple(turned[axis] for axis in self.inverse)

    def _split(self, turned: Shape) -> list[Shape]:
        """Return the sizes of each run."""
        ends = np.cumsum(self.runs)
        return [tuple(turned[end - run : end]) for run, end in zip(self.runs, ends, strict=True)]


def as_stored(tensor: Any) -> tuple[Layout, Any]:
    """Return how a tensor was laid out before it was brought to the canonical orientation, and that tensor; else itself, as it is.

    A compiled function leaves out what nobody reads: where numbers are treated each by itself, it need not turn them.
    """
    found: tuple[Layout, Any] = getattr(tensor, _STORED, (PLAIN, tensor))
    return found


def _block(sizes: Shape, kept: Array) -> Shape:
    """Return the sizes of joined axes when the flat indices `kept` stay."""
    left = tuple(len(np.unique(place)) for place in np.unravel_index(kept, sizes)) if len(sizes) > 1 else (len(kept),)
    if int(np.prod(left)) != len(kept):
        raise ValueError(f"Keras stores this axis as {' x '.join(map(str, sizes))}, of which only a whole block can stay")
    return left


_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_CONV = ("Conv1D", "Conv2D", "Conv3D")


def is_a(layer: keras.Layer, names: tuple[str, ...]) -> bool:
    """Tell whether a layer is, or derives from, one of Keras' own layers of these names."""
    return any(isinstance(layer, getattr(keras.layers, name)) for name in names)


@dataclass(frozen=True)
class Einsum:
    """The equation of an EinsumDense that is a linear layer: kernel axes are summed over, or new in the output, and in the input's order.

    `abc,cde->abde` is summed over c and makes d, e.
    """

    given: str
    kernel: str
    made: str

    @property
    def summed(self) -> str:
        return "".join(letter for letter in self.given if letter in self.kernel)

    @property
    def new(self) -> str:
        return "".join(letter for letter in self.made if letter in self.kernel)

    @property
    def layout(self) -> Layout:
        order = tuple(self.kernel.index(letter) for letter in self.new + self.summed)
        return Layout(order, (len(self.new), len(self.summed)))

    def sizes(self, kernel: Shape) -> dict[str, int]:
        return dict(zip(self.kernel, kernel, strict=True))


def linear_einsum(layer: keras.Layer) -> Einsum | None:
    """Return the equation of an EinsumDense that does what a Dense does, on one axis or on several in a row; None for any other layer.

    Its output ends in the axes that the kernel makes, its bias, if any, has just these.
    """
    if not is_a(layer, ("EinsumDense",)):
        return None
    left, _, made = layer.equation.replace(" ", "").partition("->")
    given, _, kernel = left.partition(",")
    if given.endswith("...") or "..." in kernel:
        return None
    einsum = Einsum(given.replace("...", ""), kernel, made.replace("...", ""))
    carried = einsum.given[: len(einsum.given) - len(einsum.summed)]
    whole = sorted(einsum.new + einsum.summed) == sorted(kernel) and einsum.given == carried + einsum.summed
    bias = getattr(layer, "bias_axes", None)
    fits = bias is None or (sorted(bias) == sorted(einsum.new))
    return einsum if whole and fits and einsum.summed and einsum.new and einsum.made == carried + einsum.new else None


def layout_of(layer: keras.Layer, attribute: str, variable: Any) -> Layout:
    """Return the layout of one parameter of a layer."""
    rank = len(variable.shape)
    plain = tuple(range(rank))
    each = (1,) * (rank - 2)
    if attribute == "depthwise_kernel" or (attribute == "kernel" and is_a(layer, _DEPTHWISE)):
        return Layout((rank - 2, rank - 1, *plain[:-2]), (2, 0, *each))
    if attribute == "kernel" and is_a(layer, _TRANSPOSED):
        return Layout((rank - 2, rank - 1, *plain[:-2]))
    if (attribute == "kernel" and is_a(layer, _CONV)) or (attribute == "pointwise_kernel" and is_a(layer, _SEPARABLE)):
        return Layout((rank - 1, rank - 2, *plain[:-2]))
    if attribute == "kernel" and rank == 2 and is_a(layer, ("Dense",)):
        return LINEAR
    if attribute in ("kernel", "recurrent_kernel") and is_cell(layer):
        return LINEAR
    einsum = linear_einsum(layer)
    if einsum is not None and attribute == "kernel":
        return LINEAR if einsum.layout.permutation == (1, 0) else einsum.layout
    if einsum is not None and attribute == "bias" and rank > 1:
        return Layout(plain, (rank,))
    return Layout(plain)


#: The canonical orientation itself, of any rank.
PLAIN = Layout(())

#: Keras stores (in, out), the canonical orientation is (out, in).
LINEAR = Layout((1, 0))
