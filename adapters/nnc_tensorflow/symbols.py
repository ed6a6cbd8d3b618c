"""The symbolic tensors of a copied Functional or Sequential model, brought in step with its cut layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from nnc_tensorflow.names import is_graph


def follow_graphs(model: keras.Layer) -> None:
    """Give every graph of layers in a model the shapes that its layers make now, for inputs' checks, `summary()` and saving.

    A layer that still has a size hard-coded stops its graph there; what comes behind is done once that layer is rewritten.
    """
    for layer in _outermost_graphs(model):
        try:
            _follow(layer)
        except (ValueError, TypeError):
            continue  # tracing the small model names the line that failed; rewriting it comes back here


def _outermost_graphs(layer: keras.Layer) -> Iterator[keras.Layer]:
    if is_graph(layer):
        yield layer
    else:
        for child in layer._layers:
            yield from _outermost_graphs(child)


def _follow(model: keras.Layer) -> None:
    graph = getattr(model, "_functional", None) or model  # a Sequential model keeps its graph inside
    for node in _in_order(graph):
        operation = node.operation
        if node.is_input:
            continue
        if isinstance(operation, keras.Layer):
            if is_graph(operation):
                _accept(operation, node.input_tensors)
                _follow(operation)
            _rebuilt_for(operation, node.input_tensors)
        made = operation.compute_output_spec(*node.arguments.args, **node.arguments.kwargs)
        for tensor, new in zip(node.outputs, keras.tree.flatten(made), strict=True):
            tensor._shape = new.shape  # KerasTensor.shape refuses to be set


def _in_order(graph: Any) -> list[Any]:
    return [node for depth in sorted(graph._nodes_by_depth, reverse=True) for node in graph._nodes_by_depth[depth]]


def _accept(model: keras.Layer, tensors: list[Any]) -> None:
    """Let an inner model take inputs of the shapes of `tensors`; the sizes that it left open stay open."""
    graph = getattr(model, "_functional", None) or model
    for own, given in zip(graph._inputs, tensors, strict=True):
        shape = tuple(None if old is None else new for old, new in zip(own.shape, given.shape, strict=True))
        own._shape = shape
        layer = own._keras_history.operation
        if isinstance(layer, keras.layers.InputLayer):
            layer._batch_shape = shape
            layer._inbound_nodes[0].outputs[0]._shape = shape


def _rebuilt_for(layer: keras.Layer, tensors: list[Any]) -> None:
    """Note the shape that a layer of one input would be built for in a fresh process."""
    shapes = layer.__dict__.get("_build_shapes_dict")
    if shapes and len(shapes) == 1 and len(tensors) == 1:
        layer.__dict__["_build_shapes_dict"] = dict.fromkeys(shapes, tuple(tensors[0].shape))
