"""The Keras 3 adapter on the TensorFlow backend: implements `nnc.adapter.Adapter` by delegating to one module for each idea."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nnc.adapter import Masks, Numbers, Trace
from nnc.errors import ModelError
from nnc.graph.ir import Array, Graph
from nnc.graph.plan import Plan, Reshape, Size
from nnc.objective import Objective
from nnc.views import Learning, Site, Views
from nnc_tensorflow import storage
from nnc_tensorflow.callbacks import callback
from nnc_tensorflow.clone import clonable, cloned
from nnc_tensorflow.copies import copied
from nnc_tensorflow.datasets import data_state, set_data_state
from nnc_tensorflow.inference import forget_inference, infer
from nnc_tensorflow.inputs import arrays_of, caller, tensors_of
from nnc_tensorflow.layers import KerasLayer, keras_layers
from nnc_tensorflow.losses import batch_loss, tensors_in
from nnc_tensorflow.masks import apply_masks, current_masks, seen_through
from nnc_tensorflow.names import PLANS, TRAINING, named_layers, named_operations
from nnc_tensorflow.nonfinite import blame
from nnc_tensorflow.objectives import Training, instrumented, learn, set_numbers, states_of, trained, with_objectives
from nnc_tensorflow.optimizers import afresh
from nnc_tensorflow.passes import forward_pass, gradients_of, write
from nnc_tensorflow.read import Reader
from nnc_tensorflow.readings import READINGS
from nnc_tensorflow.resize import rewrite_call
from nnc_tensorflow.surgery import cuts
from nnc_tensorflow.swap import forget_compiled, held_by, hold
from nnc_tensorflow.trace import Recording, record, unfused
from nnc_tensorflow.training import KerasStep
from nnc_tensorflow.views import apply_views, current_views


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
        if apply_masks(keras_layers(self.model), masks):
            self._forget()

    def _forget(self) -> None:
        """Drop what is compiled: the model is seen differently now."""
        forget_compiled(self.model)
        forget_inference(self.model)

    def trace(self, example_inputs: Any, masks: Masks) -> Trace:
        layers, tensors, call = keras_layers(self.model), tensors_of(example_inputs), caller(self.model, example_inputs)
        named = named_layers(self.model)
        with seen_through(layers, masks, tuple(named.values())):
            recording = Recording(named | named_operations(named))
            reader = Reader(recording, layers, READINGS)
            function = record(call, tensors, recording, reader.read)
            graph = reader.read(function.outputs)
            with unfused():
                outputs = arrays_of(function(*tensors))
        return Trace(graph, lambda: outputs)

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
        # Keras' own clone takes the keys of `x[...]` from the model as they are.
        small = (
            cloned(self.model, cut, plan)
            if clonable(self.model) and not any(r.cut or r.looked_up for r in plan.reshapes)
            else copied(self.model, cut, plan)
        )
        TensorFlowAdapter(small).remember((*self.plans(), plan))
        return small

    def rewrite(self, reshape: Reshape) -> tuple[Size, ...]:
        sizes = rewrite_call(named_layers(self.model), reshape)
        self._forget()
        return sizes

    def export(self, path: Path, example_inputs: Any, opset: int | None) -> None:
        from nnc_tensorflow.export import export

        export(self.model, path, example_inputs, opset)

    def plans(self) -> tuple[Plan, ...]:
        return tuple(self.model.__dict__.get(PLANS, ()))

    def remember(self, plans: tuple[Plan, ...]) -> None:
        self.model.__dict__[PLANS] = tuple(plans)  # written past Keras' own attribute tracking

    def notes(self) -> tuple[str, ...]:
        return ()

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

    def forward(
        self, batch: Any, sites: Collection[Site] = (), training: bool = False, through: Callable[..., Any] | None = None
    ) -> tuple[Any, dict[Site, Any]]:
        return forward_pass(self.model, batch, sites, training, through)

    def gradients(self, loss: Callable[..., Any], sites: Collection[Site], *batch: Any) -> tuple[float, dict[Site, Any]]:
        return gradients_of(self.model, loss, sites, batch)

    def blame(self, loss: Callable[..., Any], batch: Any) -> str:
        tensors = tensors_in(batch)
        return blame(self.model, lambda: loss(self.model, tensors), tensors)

    def batch_loss(self, loss: Callable[..., Any] | None, batch: Any) -> Any:
        return batch_loss(self.model, loss, batch, training=False)

    def seed(self, seed: int) -> None:
        keras.utils.set_random_seed(seed)

    def afresh(self, optimizer: Any) -> Any:
        return afresh(self.model, optimizer)

    def data_state(self, data: Any, runs: int) -> dict[str, Any]:
        return data_state(data, runs)

    def set_data_state(self, data: Any, state: Mapping[str, Any], runs: int) -> None:
        set_data_state(data, state, runs)

    def write(self, numbers: Mapping[Site, Array]) -> dict[Site, Array]:
        return write(named_layers(self.model), numbers)

    def views(self) -> Views:
        return {site: tuple(view for view, _ in seen.views) for site, seen in current_views(named_layers(self.model)).items()}

    def set_views(self, views: Views) -> None:
        apply_views(named_layers(self.model), views)
        self._train(self._training)

    def objectives(self) -> Sequence[Objective]:
        return self._training.objectives

    def set_objectives(self, objectives: Sequence[Objective], teacher: Any = None) -> None:
        self._train(with_objectives(self.model, self._training, objectives, teacher))

    def learn(self, groups: Mapping[str, Learning], optimizer: Any = None) -> None:
        learn(self.model, self._training, groups, optimizer)
        self._train(self._training)

    def total(self, loss: Any, mask: Any = None) -> Any:
        return self._training.total(self.model, loss, mask)

    def terms(self) -> dict[str, float]:
        return {name: float(np.asarray(last.value)) for name, last in self._training.last.items()}

    def numbers(self) -> Numbers:
        return {key: state.numbers() for key, state in states_of(self.model, self._training).items() if state.variables}

    def set_numbers(self, numbers: Numbers) -> None:
        set_numbers(states_of(self.model, self._training), numbers)

    def callback(self, loop: str | None, done: Callable[[], Any]) -> keras.callbacks.Callback:
        return callback(loop, done)

    def trainer(self, loss: Any, optimizer: Any, precision: str, accumulate: int) -> KerasStep:
        return KerasStep(self.model, loss, optimizer, precision, accumulate)

    @property
    def _training(self) -> Training:
        """What the model adds to its training now; nothing where it was never instrumented."""
        return self.model.__dict__.get(TRAINING) or Training()

    def _train(self, training: Training) -> None:
        """Let the model train with this, and forget what is compiled; a model without views and objectives holds nothing."""
        training.learners.follow(trained(self.model, training))
        needed = instrumented(self.model, training)
        if not needed and TRAINING not in self.model.__dict__:
            return  # nothing was on the model: what is compiled serves
        if not needed:
            training.learners.use({})
        hold(self.model, {**held_by(self.model), TRAINING: training if needed else None})
        self._forget()


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
