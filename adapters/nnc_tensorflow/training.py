"""One training step for `nnc.Trainer`: compiled, objectives and the variables of views included.

The compiled step stays with the model: the next training goes on with it where loss, optimizer, trainable variables and precision are the
same, as in rounds and in ADMM, until the model is seen differently.

Mixed precision is Keras' own: for as long as training lasts the layers compute in the narrow type and keep their variables in float32;
float16 scales the loss (`LossScaleOptimizer`). A step whose loss or gradients are not finite changes no weight; one more, eager, pass
then finds the layer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from nnc.errors import ConfigError, TrainingError
from nnc.graph.ir import Array
from nnc_tensorflow.inference import STEP, compiled, forget_passes
from nnc_tensorflow.learning import fill_up
from nnc_tensorflow.losses import NO_GRADIENT, Loss, scalar, task, tensors_in
from nnc_tensorflow.names import TRAINING
from nnc_tensorflow.nonfinite import blame
from nnc_tensorflow.objectives import Training, instrumented
from nnc_tensorflow.swap import forget_compiled, held_by, hold

_POLICIES = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


class KerasStep:
    """Implements `nnc.adapter.TrainStep` for one model."""

    def __init__(self, model: keras.Layer, loss: Loss, optimizer: Any, precision: str, accumulate: int) -> None:
        self.model, self.loss = model, loss
        found = _optimizer(model, optimizer)
        self._settings = None if isinstance(optimizer, keras.Optimizer) or found.built else _settings(found)
        self.optimizer = _ready(found, model, precision, accumulate)
        self._require_variables()
        self._policies = _compute_in(model, precision)
        self._compiled_loss = getattr(model, "_compile_loss", None)
        self._serves = (accumulate, *_served(self))
        self._function: Any = None
        self._reached: list[Any] = []
        self._steps = 0
        self._lent = TRAINING not in model.__dict__
        self._go_on()

    def _require_variables(self) -> None:
        held = self.model.__dict__.get(TRAINING)
        if not self.model.trainable_variables and not (held is not None and held.learners.variables):
            raise ConfigError(
                f"Trainer: all {len(self.model.weights)} weights of the model are frozen (trainable=False), so it has nothing to train; "
                "layer.trainable = True lets those of a layer learn."
            )

    def _go_on(self) -> None:
        """Take over the optimizer of an earlier step that is like this one, so that what was compiled for it serves."""
        earlier = compiled(self.model).get(STEP)
        if earlier is not None and self._settings is not None and (earlier._settings, earlier._serves) == (self._settings, self._serves):
            _take_over(self.optimizer, earlier.optimizer)
            earlier.optimizer = self.optimizer

    @property
    def training(self) -> Training:
        """What the model adds to its training; a model that adds nothing is lent an empty one while it trains."""
        if TRAINING not in self.model.__dict__:
            hold(self.model, {**held_by(self.model), TRAINING: Training()})
        training: Training = self.model.__dict__[TRAINING]
        return training

    def __call__(self, batch: Any) -> float:
        self._steps += 1
        tensors = tensors_in(batch)
        with self.training.step(self.optimizer):
            try:
                owner = self._owner
                value, finite = owner._function(tensors)
            except TrainingError as error:
                raise TrainingError(f"step {self._steps}: {error}") from None
            if not finite:
                raise TrainingError(f"step {self._steps}: {self._blame(tensors, float(value))}")
        self._reached = owner._reached
        return float(value)

    def rest(self) -> None:
        with self.training.step(self.optimizer):
            if not fill_up(getattr(self.optimizer, "inner_optimizer", self.optimizer)):
                return
            for each in self.training.learners.optimizers:
                fill_up(each)
            self.optimizer.apply([tf.zeros(variable.shape, variable.dtype) for variable in self._reached], self._reached)

    @property
    def _owner(self) -> KerasStep:
        """The step whose compiled function serves, kept with it; who lets the model be seen differently, in training too, drops it."""
        kept = compiled(self.model)
        owner: KerasStep | None = kept.get(STEP)
        if owner is None or owner.optimizer is not self.optimizer or owner._serves != self._serves:
            self._function = tf.function(self._step, reduce_retracing=True, autograph=False)
            owner = kept[STEP] = self
        return owner

    def _step(self, batch: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            value = self._total(batch)
            scaled = self.optimizer.scale_loss(value)
        variables = self.model.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if all(gradient is None for gradient in gradients):
            raise TrainingError(f"Trainer.loss: {NO_GRADIENT}.")
        finite = tf.math.is_finite(value)
        if hasattr(self.optimizer, "inner_optimizer"):  # it skips steps whose gradients are not finite, to scale by less
            self._apply(gradients, variables)
        else:
            finite &= _all_finite(gradients)
            tf.cond(finite, lambda: self._apply(gradients, variables), lambda: tf.constant(0))
        return value, finite

    def _total(self, batch: Any) -> Any:
        own = task(self.model, self.loss, batch, training=True)
        return scalar(own if own is None and not self.training.objectives else self.training.total(self.model, own))

    def _apply(self, gradients: Any, variables: Any) -> Any:
        self._reached = [variable for gradient, variable in zip(gradients, variables, strict=True) if gradient is not None]
        self.optimizer.apply(gradients, variables)
        return tf.constant(0)

    def _blame(self, batch: Any, value: float) -> str:
        found = blame(self.model, lambda: self._total(batch), batch)
        what = f"the loss is {value}" if not np.isfinite(value) else f"the loss is {value:.4g}, but its gradient is not finite"
        return f"{what}; {found}. No weight was changed by this step. Lower the learning rate, or look at what that layer is given."

    def state(self) -> dict[str, Array]:
        return {str(number): variable.numpy().copy() for number, variable in enumerate(self._variables())}

    def load_state(self, state: Mapping[str, Array]) -> None:
        variables = self._variables()
        if [tuple(variable.shape) for variable in variables] != [np.shape(state.get(str(number))) for number in range(len(state))]:
            raise ConfigError(
                f"state: {len(state)} arrays that are not those of this optimizer on this model, which keeps {len(variables)}."
            )
        for number, variable in enumerate(variables):
            variable.assign(state[str(number)])

    def _variables(self) -> list[Any]:
        learners = self.training.learners
        if learners.variables:
            learners.ready(self.optimizer)
        return [*self.optimizer.variables, *learners.state]

    def close(self) -> None:
        if self._lent and not instrumented(self.model, self.training):
            hold(self.model, {**held_by(self.model), TRAINING: None})
        for layer, policy in self._policies:
            layer.dtype_policy = policy
        if self._policies:
            _forget(self.model)


def _optimizer(model: keras.Layer, given: Any) -> Any:
    """Return the optimizer that was given, named, or made by a function of the model's variables; None takes the compiled one."""
    if given is None:
        given = getattr(model, "optimizer", None)
        if given is None:
            raise ConfigError("optimizer: none is given, and the model is not compiled with one; nnc.Trainer(optimizer='adam') say.")
    if isinstance(given, type) and issubclass(given, keras.Optimizer):
        return given()
    if callable(given) and not isinstance(given, keras.Optimizer):
        given = given(model.trainable_variables)
        if not isinstance(given, (keras.Optimizer, str)):
            raise ConfigError(f"Trainer.optimizer: the function returned a {type(given).__name__}, no keras.Optimizer.")
    try:
        return keras.optimizers.get(given)
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"Trainer.optimizer: {given!r} is no Keras optimizer, nor the name of one, nor a function that returns one: {error}"
        ) from None


def _ready(optimizer: Any, model: keras.Layer, precision: str, accumulate: int) -> Any:
    """Return the optimizer, built on the model's variables, accumulating so many batches, scaling the loss for float16."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    variables = model.trainable_variables
    if inner.built:
        known = {id(variable) for variable in inner._trainable_variables}
        if not all(id(variable) in known for variable in variables):
            raise ConfigError(
                f"optimizer: this {type(inner).__name__} was built for other variables; a model that was made smaller has new ones. "
                "Give its name, or a function: nnc.Trainer(optimizer=lambda variables: keras.optimizers.Adam(1e-4))."
            )
    if accumulate > 1 and inner.gradient_accumulation_steps != accumulate:
        if inner.built or inner.gradient_accumulation_steps:
            raise ConfigError(f"accumulate: {accumulate}, but the optimizer is set to {inner.gradient_accumulation_steps or 1} already.")
        inner.gradient_accumulation_steps = accumulate
    if precision == "float16" and inner is optimizer:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    if not optimizer.built:
        optimizer.build(variables)
    return optimizer


def _compute_in(model: keras.Layer, precision: str) -> list[tuple[keras.Layer, Any]]:
    """Let layers that compute in float32 compute in `precision`, and return those layers with the policies that they had."""
    if precision not in _POLICIES:
        return []
    before = [(layer, layer.dtype_policy) for layer in model._flatten_layers() if layer.dtype_policy.name == "float32"]
    for layer, _ in before:
        layer.dtype_policy = _POLICIES[precision]
    if before:
        _forget(model)
    return before


def _forget(model: keras.Layer) -> None:
    """Drop what was compiled for another type; a step is kept with its type, and serves when training computes in that again."""
    forget_compiled(model)
    forget_passes(model)


def _served(step: KerasStep) -> tuple[Any, ...]:
    """Return what a compiled step was compiled for, its optimizer apart. The step keeps alive what is known by its identity here."""
    policies = tuple(layer.dtype_policy.name for layer in step.model._flatten_layers())
    return id(step.loss), id(step._compiled_loss), tuple(map(id, step.model.trainable_variables)), policies


def _settings(optimizer: Any) -> str | None:
    """Return what tells an optimizer apart from others of Keras', or None for one that may hold more than it says."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if not all(type(each).__module__.startswith("keras.") for each in (optimizer, inner, inner._learning_rate)):
        return None
    said = keras.optimizers.serialize(optimizer)
    said["config"].pop("name")  # Keras numbers them
    return json.dumps(said, default=str, sort_keys=True)


def _take_over(new: Any, old: Any) -> None:
    """Begin again with the variables of an optimizer that has the same settings: compiled functions know it by them."""
    for variable, first in zip(old.variables, new.variables, strict=True):
        variable.assign(first)
    new.__dict__.update(old.__dict__)


def _all_finite(gradients: Any) -> Any:
    given = [gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient for gradient in gradients if gradient is not None]
    return tf.reduce_all([tf.math.is_finite(tf.reduce_sum(tf.abs(each))) for each in given]) if given else tf.constant(True)
