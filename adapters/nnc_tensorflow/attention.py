"""What Keras' attention layers hold about their projections, so that heads can leave.

MultiHeadAttention and GroupedQueryAttention keep query, key, value and output as EinsumDense layers, with kernels (in, heads, dim) and
(heads, dim, out). The numbers of heads that the layers hold, and write into their config, follow from those kernels. The width of a head
fixes the scale of the scores in Keras' own code, so it stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from nnc.graph.ir import Shape
from nnc_tensorflow.layouts import is_a

_GROUPED = ("GroupedQueryAttention", "GroupQueryAttention")
PROJECTIONS = ("_query_dense", "_key_dense", "_value_dense", "_output_dense")


def is_attention(layer: Any) -> bool:
    """Tell whether a layer is one of Keras' attentions with heads."""
    return is_a(layer, ("MultiHeadAttention",)) or is_grouped(layer)


def is_grouped(layer: Any) -> bool:
    """Tell whether several query heads share a key and a value head."""
    return any(isinstance(layer, cls) for cls in (getattr(keras.layers, name, None) for name in _GROUPED) if cls is not None)


def attributes(layer: keras.Layer, kernels: Mapping[str, Shape]) -> dict[str, Any]:
    """Return the sizes that an attention holds, given its projections' kernel shapes."""
    query, key, value, out = (kernels[name] for name in PROJECTIONS)
    if is_grouped(layer):
        heads = {"num_query_heads": query[1], "num_key_value_heads": key[1], "num_repeats": query[1] // key[1]}
        return {**heads, "feature_dim": out[-1]}
    made = layer._output_shape if layer._output_shape is None and out[2:] == query[:1] else out[2:]
    return {"_num_heads": query[1], "_value_dim": value[2], "_output_shape": made}


def config(layer: keras.Layer, kernels: Mapping[str, Shape]) -> dict[str, Any]:
    """Return the entries of an attention's config that follow from its projections."""
    named = {name.removeprefix("_"): size for name, size in attributes(layer, kernels).items()}
    return {name: size for name, size in named.items() if name in layer.get_config()}


def follow_projections(layer: keras.Layer) -> None:
    """Bring a copied attention in step with its projections, which have their new kernels already."""
    kernels = {name: tuple(getattr(layer, name)._kernel.shape) for name in PROJECTIONS}
    layer.__dict__.update(attributes(layer, kernels))
    shapes = layer.__dict__.get("_build_shapes_dict") or {}
    widths = {f"{name.split('_')[1]}_shape": kernels[name][0] for name in PROJECTIONS[:3]}
    built = {key: (*shape[:-1], widths[key]) if key in widths and shape is not None else shape for key, shape in shapes.items()}
    if built:
        layer.__dict__["_build_shapes_dict"] = built


def heads(layer: keras.Layer) -> dict[str, int]:
    """Return the numbers of heads that an attention has, by the names that Keras gives them."""
    names = ("num_query_heads", "num_key_value_heads") if is_grouped(layer) else ("num_heads",)
    return {name: int(getattr(layer, name)) for name in names}
