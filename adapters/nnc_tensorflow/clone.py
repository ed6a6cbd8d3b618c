"""A smaller Functional or Sequential model: Keras' own clone with edited configs, so that it saves and loads as any Keras model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from nnc.graph.plan import Plan
from nnc_tensorflow import attention
from nnc_tensorflow.names import is_graph, is_ops_reshape, is_ops_split, named_layers, named_operations, own_variables, split_points
from nnc_tensorflow.recurrent import cell_of, edited
from nnc_tensorflow.surgery import Cut


def clonable(model: keras.Layer) -> bool:
    """Tell whether a model is Functional or Sequential, of Keras' own layers only, with no model inside.

    The clone of an inner model would keep its old input size.
    """
    return plain(model) and not any(is_graph(layer) for layer in model.layers)


def plain(model: keras.Layer) -> bool:
    """Tell whether a model is a graph of Keras' own layers throughout, so that its config says all of it."""
    return is_graph(model) and all(_built_in(layer) for layer in model._flatten_layers())


def _built_in(layer: keras.Layer) -> bool:
    return layer.__class__.__module__.startswith("keras.src.") and "call" not in layer.__dict__


def cloned(model: keras.Model, cut: Mapping[str, Cut], plan: Plan) -> keras.Model:
    """Return a new model with the sizes and the weights of `cut`; layer names and trainable flags stay."""
    layers = named_layers(model)
    names = {id(part): name for name, part in (*layers.items(), *named_operations(layers).items())}

    def rebuilt(part: keras.Operation) -> keras.Operation:
        return part.__class__.from_config(_edited(part, names, cut, plan))

    with _uncompiled(model):
        small = keras.models.clone_model(model, _inputs(model), rebuilt)
    if not small.built:
        small.build(model.input_shape)
    _order(model, small)
    _fill(model, small, cut)
    return small


def _inputs(model: keras.Model) -> Any:
    """Return inputs for the clone of a Functional model: Keras would name them by their tensors, not by their layers."""
    if isinstance(model, keras.Sequential):
        return None
    return keras.tree.map_structure(_input, model.input)


def _input(tensor: Any) -> Any:
    layer = tensor._keras_history.operation
    optional = getattr(layer, "optional", False)
    return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, sparse=tensor.sparse, name=layer.name, optional=optional)


@contextmanager
def _uncompiled(model: keras.Model) -> Iterator[None]:
    """Keep Keras from cloning optimizer and loss, which need not be of a kind that can be cloned."""
    compiled = [part for part in model._flatten_layers() if part.__dict__.get("compiled")]
    for part in compiled:
        part.__dict__["compiled"] = False
    try:
        yield
    finally:
        for part in compiled:
            part.__dict__["compiled"] = True


def _edited(layer: keras.Operation, names: Mapping[int, str], cut: Mapping[str, Cut], plan: Plan) -> dict[str, Any]:
    """Return the config of a layer, or of an operation of a Functional model, in the small model."""
    name = names.get(id(layer), "")
    config: dict[str, Any] = layer.get_config()
    config.pop("build_config", None)
    if name in cut:
        config |= {key: value for key, value in cut[name].sizes.items() if key in config}
    for reshape in (reshape for reshape in plan.reshapes if reshape.layer == name):
        if isinstance(layer, keras.layers.Reshape):
            config["target_shape"] = reshape.new[1:]
        elif is_ops_reshape(layer):
            config["newshape"] = reshape.new
        elif is_ops_split(layer):
            config["indices_or_sections"] = split_points(layer, reshape.new)
    if isinstance(layer, keras.layers.EinsumDense) and name in cut:
        config["output_shape"] = cut[name].sizes.get("partial_output_shape", layer.partial_output_shape)
    if cell_of(layer) is not None:
        config = edited(config, cut[name].sizes)
    if isinstance(layer, keras.layers.Bidirectional):
        for side in ("forward_layer", "backward_layer"):
            _edit_side(config["layer" if side == "forward_layer" else side], cut.get(f"{name}.{side}"))
    if attention.is_attention(layer):
        projections = {name: cut[names[id(getattr(layer, name))]].weights["kernel"].shape for name in attention.PROJECTIONS}
        config |= attention.config(layer, projections)
    return config


def _edit_side(config: dict[str, Any], cut: Cut | None) -> None:
    """Give the config of one direction of a Bidirectional its new size."""
    config["build_config"] = None
    if cut is not None and "units" in cut.sizes:
        config["config"] = edited(config["config"], cut.sizes)


def _order(model: keras.Model, small: keras.Model) -> None:
    """Let the clone run its layers in the model's order: Keras picks one of those that the graph allows, not always the same."""
    old, new = (getattr(each, "_functional", None) or each for each in (model, small))
    for depth, nodes in old._nodes_by_depth.items():
        place = {_call(node): number for number, node in enumerate(nodes)}
        new._nodes_by_depth[depth].sort(key=lambda node: place.get(_call(node), -1))


def _call(node: Any) -> tuple[str, int]:
    """Return a call of a layer by the layer's name and the number of the call."""
    return node.operation.name, node.operation._inbound_nodes.index(node)


def _fill(model: keras.Model, small: keras.Model, cut: Mapping[str, Cut]) -> None:
    """Copy weights, states and trainable flags, layer by layer."""
    layers = named_layers(small)
    for name, layer in named_layers(model).items():
        if isinstance(layer, keras.layers.InputLayer):
            continue  # clone_model names an unnamed input afresh; it holds nothing
        new, before = own_variables(layers[name]), own_variables(layer)
        for attribute, variable in new.items():
            variable.assign(cut[name].weights[attribute])
            variable.trainable = before[attribute].trainable if attribute in before else layer.trainable
        layers[name]._trainable = layer._trainable
        for old, fresh in zip(layer._seed_generators, layers[name]._seed_generators, strict=True):
            fresh.state.assign(old.state.value)
