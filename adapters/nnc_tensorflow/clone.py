"""A smaller Functional or Sequential model: Keras' own clone with edited configs, so that it saves and loads as any Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from nnc.graph.plan import Plan
from nnc_tensorflow.names import is_graph, named_layers, own_variables
from nnc_tensorflow.surgery import Cut


def clonable(model: keras.Layer) -> bool:
    """Tell whether a model is Functional or Sequential throughout, of Keras' own layers only."""
    return is_graph(model) and all(_built_in(layer) for layer in model._flatten_layers())


def _built_in(layer: keras.Layer) -> bool:
    return layer.__class__.__module__.startswith("keras.src.") and "call" not in layer.__dict__


def cloned(model: keras.Model, cut: Mapping[str, Cut], plan: Plan) -> keras.Model:
    """Return a new model with the sizes and the weights of `cut`; layer names and trainable flags stay."""
    names = {id(layer): name for name, layer in named_layers(model).items()}

    def rebuilt(layer: keras.Layer) -> keras.Layer:
        config = _edited(layer, names.get(id(layer), ""), cut, plan)
        return layer.__class__.from_config(config)

    small = keras.models.clone_model(model, clone_function=rebuilt, recursive=True)
    if not small.built:
        small.build(model.input_shape)
    _fill(model, small, cut)
    return small


def _edited(layer: keras.Layer, name: str, cut: Mapping[str, Cut], plan: Plan) -> dict[str, Any]:
    config: dict[str, Any] = layer.get_config()
    config.pop("build_config", None)
    if name in cut:
        config |= {key: value for key, value in cut[name].sizes.items() if key in config}
    if isinstance(layer, keras.layers.Reshape):
        for reshape in plan.reshapes:
            if reshape.layer == name:
                config["target_shape"] = reshape.new[1:]
    if isinstance(layer, keras.layers.EinsumDense) and name in cut:
        config["output_shape"] = (*layer.partial_output_shape[:-1], cut[name].weights["kernel"].shape[-1])
    return config


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
