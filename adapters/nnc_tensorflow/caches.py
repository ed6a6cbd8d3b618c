"""keras_hub's `generate` with fewer heads: the cache of keys and values is made as large as the attentions that are left.

keras_hub's language models make it in `_build_cache`, one tensor for all layers, from what their backbone was built with: so many heads,
each as wide as the hidden width divided by their number. Once heads have left that is wrong, and the backbone must keep saying what it
was built with. So a small model's `_build_cache` is its class's, run on a model whose backbone says the sizes of the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

import keras
import tensorflow as tf

from nnc.errors import SpeedupError
from nnc.graph.ir import Shape
from nnc_tensorflow.names import named_layers


def follow_caches(model: keras.Layer, small: keras.Layer) -> None:
    """Give each language model within a small model the cache that its attentions need, where it is another one than before."""
    before = named_layers(model)
    for name, layer in named_layers(small).items():
        if callable(getattr(type(layer), "_build_cache", None)) and hasattr(layer, "backbone"):
            sizes = _sizes(layer)
            if sizes != _sizes(before[name]):
                layer.__dict__["_build_cache"] = MethodType(_of(sizes), layer)


def _sizes(layer: keras.Layer) -> dict[str, Shape]:
    """Return (heads, width of a head) of the keys of each attention, by the name of the projection."""
    kernels = {name: inner.kernel.shape for name, inner in named_layers(layer).items() if name.endswith("key_dense") and inner.built}
    return {name: tuple(kernel[-2:]) for name, kernel in kernels.items() if len(kernel) == 3}


class _Saying:
    """Stands for an object, but says other values of some of its attributes."""

    def __init__(self, whole: Any, values: Mapping[str, Any]) -> None:
        self._whole, self._values = whole, values

    def __getattr__(self, name: str) -> Any:
        return self._values[name] if name in self._values else getattr(self._whole, name)


def _of(sizes: Mapping[str, Shape]) -> Any:
    """Return a `_build_cache` for attentions of these sizes; where they differ, one that says that there is no such cache."""

    @tf.autograph.experimental.do_not_convert
    def build_cache(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(set(sizes.values())) > 1:
            raise SpeedupError(_refusal(sizes))
        heads, width = next(iter(sizes.values()))
        said = {"num_heads": heads, "num_query_heads": heads, "num_key_value_heads": heads, "head_dim": width, "hidden_dim": heads * width}
        seen = _Saying(self, {"backbone": _Saying(self.backbone, said)})
        return type(self)._build_cache(seen, *args, **kwargs)

    return build_cache


def _refusal(sizes: Mapping[str, Shape]) -> str:
    shown = ", ".join(f"{name}: {heads}" for name, (heads, _) in list(sizes.items())[:4])
    return (
        f"generate: keras_hub caches the keys of all layers in one tensor, but the layers differ in their heads now ({shown}). Remove as "
        "many heads from each layer, with one sparsity for all, or call the model itself: it needs no cache."
    )
