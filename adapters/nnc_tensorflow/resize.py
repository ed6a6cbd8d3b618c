"""A layer of a small model gets a `call` in which a hard-coded size is the new one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType

import keras

from nnc.errors import SpeedupError
from nnc.graph.plan import Reshape
from nnc.resize import resized
from nnc_tensorflow.symbols import follow_graphs


def rewrite_call(layers: Mapping[str, keras.Layer], reshape: Reshape) -> None:
    """Install the changed method on the one layer instance that `reshape` names. Raises `SpeedupError` that names the line."""
    layer = layers[reshape.layer]
    if isinstance(layer, keras.layers.Reshape):
        layer.target_shape = tuple(reshape.new[1:])
        return
    name = reshape.function.rpartition(".")[2] or "call"
    method = getattr(layer, name, None)
    if not callable(method) or not hasattr(method, "__func__"):
        raise SpeedupError(
            f"{reshape.function}, line {reshape.line}: {reshape.op} hard-codes the sizes {list(reshape.old)}, which must become {list(reshape.new)}, "
            f"but the layer {reshape.layer or 'model'!r} has no method {name!r} to change. Write -1 there, or take the size from the tensor's shape."
        )
    # The signature stays the same, so what Keras noted of it still holds.
    layer.__dict__[name] = MethodType(resized(method.__func__, reshape), layer)
    follow_graphs(layers[""])
