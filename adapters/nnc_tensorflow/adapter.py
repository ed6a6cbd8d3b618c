"""The Keras 3 adapter on the TensorFlow backend: implements `nnc.adapter.Adapter` by delegating to one module for each idea."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from nnc.adapter import Masks, Trace
from nnc.errors import ModelError
from nnc.graph.ir import Array, Graph
from nnc.graph.plan import Plan, Reshape, Size
from nnc_tensorflow import storage
from nnc_tensorflow.clone import clonable, cloned
from nnc_tensorflow.copies import copied
from nnc_tensorflow.inference import forget_inference, infer
from nnc_tensorflow.inputs import arrays_of, caller, tensors_of
from nnc_tensorflow.layers import KerasLayer, keras_layers
from nnc_tensorflow.masks import apply_masks, current_masks, forget_compiled, seen_through
from nnc_tensorflow.names import PLANS, named_layers, named_operations
from nnc_tensorflow.read import Reader
from nnc_tensorflow.readings import READINGS
from nnc_tensorflow.resize import rewrite_call
from nnc_tensorflow.surgery import cuts
from nnc_tensorflow.trace import Recording, record, unfused


class TensorFlowAdapter:
    """One built Keras model."""

    framework = "tensorflow"

    def __init__(self, model: keras.Layer) -> None:
        _check_backend(model)
        _check_built(model)
        self.model = model

    def layers(self) -> Sequence[KerasLayer]:
        return keras_layers(self.model)

    def masks(self) -> Masks:
        return current_masks(keras_layers(self.model))

    def set_masks(self, masks: Masks) -> None:
        apply_masks(keras_layers(self.model), masks)
        forget_compiled(self.model)
        forget_inference(self.model)

    def trace(self, example_inputs: Any, masks: Masks) -> Trace:
        layers, tensors, call = keras_layers(self.model), tensors_of(example_inputs), caller(self.model, example_inputs)
        named = named_layers(self.model)
        with seen_through(layers, masks):
            recording = Recording(named | named_operations(named))
            reader = Reader(recording, layers, READINGS)
            function = record(call, tensors, recording, reader.read)
            graph = reader.read(function.outputs)
            with unfused():
                outputs = arrays_of(function(*tensors))
        return Trace(graph, outputs)

    def structure(self, example_inputs: Any) -> Graph:
        layers, tensors, call = keras_layers(self.model), tensors_of(example_inputs), caller(self.model, example_inputs)
        named = named_layers(self.model)
        with seen_through(layers, {}):
            recording = Recording(named | named_operations(named))
            reader = Reader(recording, layers, READINGS)
            return reader.read(record(call, tensors, recording, reader.read).outputs)

    def run(self, example_inputs: Any) -> tuple[Array, ...]:
        return arrays_of(infer(self.model, example_inputs))

    def shrink(self, plan: Plan, masks: Masks, folds: Mapping[str, Array]) -> keras.Layer:
        cut = cuts(keras_layers(self.model), plan, masks, folds)
        small = cloned(self.model, cut, plan) if clonable(self.model) else copied(self.model, cut, plan)
        TensorFlowAdapter(small).remember((*self.plans(), plan))
        return small

    def rewrite(self, reshape: Reshape) -> tuple[Size, ...]:
        sizes = rewrite_call(named_layers(self.model), reshape)
        forget_compiled(self.model)
        forget_inference(self.model)
        return sizes

    def plans(self) -> tuple[Plan, ...]:
        return tuple(self.model.__dict__.get(PLANS, ()))

    def remember(self, plans: tuple[Plan, ...]) -> None:
        self.model.__dict__[PLANS] = tuple(plans)  # written past Keras' own attribute tracking

    def tensors(self) -> dict[str, Array]:
        return storage.tensors(self.model)

    def load_tensors(self, tensors: Mapping[str, Array]) -> None:
        storage.load_tensors(self.model, tensors)

    def blueprint(self) -> dict[str, Any] | None:
        return storage.blueprint(self.model)

    @staticmethod
    def rebuild(blueprint: Mapping[str, Any]) -> keras.Layer:
        """Return the model that `blueprint` describes, with fresh weights. Runs no code that the data may hold."""
        return storage.rebuild(blueprint)


def _check_backend(model: keras.Layer) -> None:
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ModelError(
            f"model: this {model.__class__.__name__} is a Keras model on the {backend!r} backend; nnc works on Keras with TensorFlow. "
            "Set KERAS_BACKEND=tensorflow in the environment before keras is first imported (os.environ does in a notebook)."
        )


def _check_built(model: keras.Layer) -> None:
    empty = not model.weights and any(not layer.built for layer in model._flatten_layers())
    if empty or not model.built:
        raise ModelError(
            f"model: this {model.__class__.__name__} is not built yet, so it has no weights. Call it once on a batch, model(batch), "
            "or call model.build(input_shape)."
        )
