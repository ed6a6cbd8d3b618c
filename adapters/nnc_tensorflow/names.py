"""Dotted names for the layers and variables of any Keras model.

In a Functional or Sequential model a child is named by `layer.name`; in any other layer by the attribute that holds it: `conv1`,
`blocks.0`, `heads.a`. The model itself is "". The first name that reaches a layer is its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import keras
from keras.src.models.functional import Functional  # the class itself is not exported

#: Where a layer's `__dict__` keeps the variables that hold its masks, its views and its taps, and a model's what it adds to training, the
#: plans that made it, and its compiled inference.
MASKS = "_nnc_masks"
VIEWS = "_nnc_views"
TAPS = "_nnc_taps"
TRAINING = "_nnc_training"
PLANS = "_nnc_plans"
COMPILED = "_nnc_compiled"

# Keras' own bookkeeping, and what `compile` and `fit` leave on a model: none of it is part of the architecture.
_BOOKKEEPING = {
    "_tracker",
    "_layers",
    "_operations",
    "_trainable_variables",
    "_non_trainable_variables",
    "_metrics",
    "_seed_generators",
    "_functional",
    "_inbound_nodes",
    "_outbound_nodes",
    "_losses",
    "_tracked",
    "optimizer",
    "loss",
    "_compile_loss",
    "_compile_metrics",
    "_loss_tracker",
    MASKS,
    VIEWS,
    TAPS,
    TRAINING,
    PLANS,
    COMPILED,
}


def is_graph(layer: Any) -> bool:
    """Tell whether a model is a graph of layers (Functional or Sequential), whose children have names of their own."""
    return isinstance(layer, (Functional, keras.Sequential))


def named_layers(model: keras.Layer) -> dict[str, keras.Layer]:
    """Return every layer of a model by its dotted name, parents before children."""
    names: dict[int, str] = {}
    found: dict[str, keras.Layer] = {}

    def visit(name: str, layer: keras.Layer) -> None:
        if id(layer) in names:
            return
        names[id(layer)], found[name] = name, layer
        for child_name, child in children(layer):
            visit(f"{name}.{child_name}" if name else child_name, child)

    visit("", model)
    return found


def named_operations(layers: Mapping[str, keras.Layer]) -> dict[str, keras.Operation]:
    """Return the operations of Functional models that are no layers, named as layers are: `keras.ops` and `+` on symbolic tensors."""
    found = {}
    for name, layer in layers.items():
        for operation in getattr(layer, "_operations", ()) if is_graph(layer) else ():
            if not isinstance(operation, keras.Layer):
                found.setdefault(f"{name}.{operation.name}" if name else operation.name, operation)
    return found


def children(layer: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """Yield a layer's children with their names within it."""
    if is_graph(layer):
        yield from ((child.name, child) for child in layer.layers)
        return
    seen = set()
    for path, value in _attributes(layer):
        if isinstance(value, keras.Layer) and not isinstance(value, keras.Metric):
            seen.add(id(value))
            yield _public(layer, path), value
    # Layers that the attributes do not show, as those inside a foreign object, are tracked all the same.
    yield from ((child.name, child) for child in layer._layers if id(child) not in seen)


def own_variables(layer: keras.Layer) -> dict[str, keras.Variable]:
    """Return the variables that a layer holds itself by the name under which code reads them, in the order of creation."""
    if is_graph(layer):
        return {}
    paths = {id(value): _public(layer, path) for path, value in reversed(list(_attributes(layer))) if isinstance(value, keras.Variable)}
    own = [*layer._trainable_variables, *layer._non_trainable_variables]
    return {paths.get(id(variable), variable.name): variable for variable in own}


def _public(layer: keras.Layer, path: str) -> str:
    """Return `kernel` for `_kernel`, `query_dense` for `_query_dense`, where the class has a property of that name."""
    return path[1:] if path.startswith("_") and isinstance(getattr(type(layer), path[1:], None), property) else path


def _attributes(layer: keras.Layer) -> Iterator[tuple[str, Any]]:
    """Yield what a layer's attributes hold, lists and dicts opened: ("blocks.0", layer)."""
    for name, value in layer.__dict__.items():
        if name not in _BOOKKEEPING and not name.startswith("_self_"):
            yield from _opened(name, value)


def _opened(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _opened(f"{path}.{key}", item)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _opened(f"{path}.{number}", item)
    else:
        yield path, value


def is_ops_reshape(operation: Any) -> bool:
    """Tell whether an operation of a Functional model is `keras.ops.reshape` on a symbolic tensor."""
    return type(operation).__name__ == "Reshape" and isinstance(getattr(operation, "newshape", None), (tuple, list))


def is_ops_split(operation: Any) -> bool:
    """Tell whether an operation of a Functional model is `keras.ops.split` on a symbolic tensor."""
    return type(operation).__name__ == "Split" and hasattr(operation, "indices_or_sections")


def is_get_item(operation: Any) -> bool:
    """Tell whether an operation of a Functional model is `x[...]` on a symbolic tensor."""
    return type(operation).__name__ == "GetItem" and type(operation).__module__.startswith("keras.src.")


def is_ops_take(operation: Any) -> bool:
    """Tell whether an operation of a Functional model is `keras.ops.take` along an axis of a symbolic tensor."""
    own = type(operation).__name__ == "Take" and type(operation).__module__.startswith("keras.src.")
    return own and operation.axis is not None


def split_points(operation: Any, sizes: Sequence[int]) -> int | tuple[int, ...]:
    """Return what a `keras.ops.split` is given for parts of `sizes`: their number, where that was given and fits, or the cuts."""
    if isinstance(operation.indices_or_sections, int) and len(set(sizes)) == 1:
        return len(sizes)
    return tuple(accumulate(sizes[:-1]))
