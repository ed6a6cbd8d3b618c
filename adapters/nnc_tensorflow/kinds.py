"""Keras' layer classes in nnc's neutral vocabulary."""

from __future__ import annotations

import keras

from nnc_tensorflow.layouts import linear_einsum
from nnc_tensorflow.recurrent import cell_of

#: Keras' class name -> the neutral name, and the more general one where there is one.
_NEUTRAL: dict[str, tuple[str, ...]] = {
    "Dense": ("Linear",),
    "Conv1D": ("Conv1d",),
    "Conv2D": ("Conv2d",),
    "Conv3D": ("Conv3d",),
    "Conv1DTranspose": ("ConvTranspose1d",),
    "Conv2DTranspose": ("ConvTranspose2d",),
    "Conv3DTranspose": ("ConvTranspose3d",),
    "DepthwiseConv1D": ("DepthwiseConv1d", "Conv1d"),
    "DepthwiseConv2D": ("DepthwiseConv2d", "Conv2d"),
    "SeparableConv1D": ("SeparableConv1d", "Conv1d"),
    "SeparableConv2D": ("SeparableConv2d", "Conv2d"),
    "Embedding": ("Embedding",),
    "ReversibleEmbedding": ("Embedding",),
    "LayerNormalization": ("LayerNorm",),
    "GroupNormalization": ("GroupNorm",),
    "RMSNormalization": ("RMSNorm",),
    "PReLU": ("PReLU",),
    "SimpleRNN": ("RNN",),
    "SimpleRNNCell": ("RNNCell",),
}

#: Neutral types whose weight has output channels.
PRUNABLE = {
    *("Linear", "Embedding"),
    *("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"),
    *(f"{kind}{rank}d" for kind in ("Conv", "ConvTranspose", "DepthwiseConv", "SeparableConv") for rank in (1, 2, 3)),
}


def op_types(layer: keras.Layer) -> tuple[str, ...]:
    """Return every name under which a config_list may ask for a layer: the neutral ones first, its own class last."""
    own = layer.__class__.__name__
    ancestors = (cls for cls in layer.__class__.__mro__ if cls is not keras.Layer)
    base = next((cls.__name__ for cls in ancestors if getattr(keras.layers, cls.__name__, None) is cls), own)
    names = (*_neutral(layer, base), base, own)
    return tuple(dict.fromkeys(names))


def _neutral(layer: keras.Layer, base: str) -> tuple[str, ...]:
    if base == "BatchNormalization":
        return (f"BatchNorm{max(1, _rank(layer) - 2)}d",)
    if base == "EinsumDense" and linear_einsum(layer):
        return ("Linear",)
    if base == "RNN" and cell_of(layer) is not None:
        kind = layer.cell.__class__.__name__.removesuffix("Cell")
        return _NEUTRAL.get(kind, (kind,))
    return _NEUTRAL.get(base, ())


def _rank(layer: keras.Layer) -> int:
    """Return the rank of the input that a layer was built for."""
    spec = layer.input_spec
    if getattr(spec, "ndim", None):
        return int(spec.ndim)
    shapes = getattr(layer, "_build_shapes_dict", None) or {}
    return len(next(iter(shapes.values()), (None, None)))
