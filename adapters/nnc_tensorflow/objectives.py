"""Objectives in Keras' own training: a model whose `compute_loss` adds their terms to the user's loss.

    fit -> train_step -> model(x)            the forward pass is tapped
                      -> compute_loss        total = task_weight * loss + sum(terms), each term a metric in fit's logs
                      -> tape, optimizer     see learning.py

The teacher runs on what the model was called with, in inference mode, outside the tape. A loop of the user's own calls `total`.
"""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state  # the only place that tells whether a call is running
from tensorflow.python.eager.record import stop_recording  # GradientTape.stop_recording needs the tape, which is the user's

from nnc import objective
from nnc.adapter import Numbers
from nnc.errors import ConfigError, TrainingError, nearest
from nnc.objective import Objective
from nnc.views import Learning, Site
from nnc_tensorflow import ops
from nnc_tensorflow.compiling import compiling
from nnc_tensorflow.inputs import calling
from nnc_tensorflow.learning import Learners
from nnc_tensorflow.modes import in_training
from nnc_tensorflow.names import TRAINING, named_layers
from nnc_tensorflow.outside import outside
from nnc_tensorflow.parts import parts_of
from nnc_tensorflow.swap import around, descriptor
from nnc_tensorflow.taps import Record, tap, untap
from nnc_tensorflow.views import KerasState, current_views, layer_at, slot_at

_MASKS = ("padding_mask", "attention_mask")
_INSIDE = (
    "nnc: this model runs inside another one. Its objectives and trained variables learn in its own fit only; "
    "call nnc.compress on the model that is trained."
)
_now = threading.local()


@dataclass(eq=False)
class Training:
    """What a model adds to its own training."""

    objectives: tuple[Objective, ...] = ()
    teacher: keras.Layer | None = None
    states: dict[str, KerasState] = field(default_factory=dict)
    learners: Learners = field(default_factory=Learners)
    student: Record = field(default_factory=Record)
    shown: Record = field(default_factory=Record)
    called: tuple[Any, Any] | None = None
    told: Any = None
    stepping: bool = False
    asked: bool = False
    means: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)

    def begin(self, args: Any, kwargs: Any) -> None:
        """Note a new forward pass of the model; one that is told that it does not train has no terms."""
        self.student.seen.clear()
        self.told = kwargs.get("training")
        self.called = args, {name: value for name, value in kwargs.items() if name != "training"}
        if global_state.get_global_attribute("current_call_ctx") is not None and (self.objectives or self.learners.variables):
            warnings.warn(_INSIDE, stacklevel=3)

    def told_to_train(self, model: keras.Layer, args: Any, kwargs: Any) -> Any:
        """In a step of `nnc.Trainer` a model trains unless it is told not to: a loss f(model, batch) need not say so on any framework."""
        if not self.stepping:
            return kwargs
        signature = inspect.signature(model.call)
        asked = "training" in signature.parameters and "training" not in signature.bind_partial(*args, **kwargs).arguments
        return {**kwargs, "training": True} if asked else kwargs

    @contextmanager
    def step(self, optimizer: Any) -> Iterator[None]:
        """Let the model train, and its trained variables learn, while the block runs."""
        self.stepping = True
        try:
            with in_training(), self.learners.stepping(optimizer):
                yield
        finally:
            self.stepping = False

    def total(self, model: keras.Layer, loss: Any, mask: Any = None) -> Any:
        """Return the loss of the forward pass that has just run, with all terms; `loss` None means no task loss."""
        self.asked = True
        if loss is None and not self.objectives:
            raise ConfigError("loss: None was given, and no objective adds a term to it; give the task's own loss.")
        if not self.objectives or (self.told is False and loss is not None):
            return loss
        if self.called is None:
            raise ConfigError("loss: the model has not run since the last one. Call the model, then this, once each.")
        self._ask_teacher()
        seen = {objective.name: self._seen(model, objective, mask) for objective in self.objectives}
        terms = {
            f"{each.name}.{name}": _scalar(term, f"{each.name}.{name}")
            for each in self.objectives
            for name, term in each.terms(seen[each.name], ops).items()
        }
        self.student.seen.clear()
        self.shown.seen.clear()
        self.called = None
        task = {} if loss is None else {"task": _scalar(loss, "the task's loss")}
        self._report({**task, **terms})
        weight = prod(each.task_weight for each in self.objectives)
        return tf.add_n([*(weight * own for own in task.values()), *terms.values()])

    def _seen(self, model: keras.Layer, each: Objective, mask: Any) -> objective.Seen:
        layers = named_layers(model)
        return objective.Seen(
            student={site: _shown(layers, site, self.student) for site in each.student},
            teacher=self._of_teacher(each),
            state=self.states[each.name],
            views={(site, view.name): state for site, seen in current_views(layers).items() for view, state in seen.views},
            mask=self._mask() if mask is None else mask,
        )

    def _of_teacher(self, each: Objective) -> dict[Site, Any]:
        if not each.teacher:
            return {}
        layers = named_layers(self.teacher)
        return {site: tf.stop_gradient(_shown(layers, site, self.shown)) for site in each.teacher}

    def _ask_teacher(self) -> None:
        """Run the teacher on what the model was called with. Raises `ConfigError` where it does not take that."""
        if not any(not site.is_parameter for each in self.objectives for site in each.teacher):
            return
        args, kwargs = self.called
        self.shown.seen.clear()
        try:
            with stop_recording(), in_training(False):
                calling(self.teacher, training=False)(*args, **kwargs)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"teacher: it does not run on what the model is given: {error}") from error

    def _mask(self) -> Any:
        """Return the token mask among the inputs, `(batch, length)`, or None."""
        args, kwargs = self.called
        named = {str(path[-1]): tensor for path, tensor in parts_of(keras.tree.map_structure(_tensor, (args, kwargs)))}
        masks = [named[name] for name in _MASKS if name in named]
        return next((mask for mask in masks if mask.shape.rank == 2), None)

    def _report(self, terms: Mapping[str, Any]) -> None:
        for name, term in terms.items():
            if name not in self.means:
                self.means[name], self.last[name] = outside(partial(_kept, name))
            self.means[name].update_state(term)
            self.last[name].assign(tf.cast(term, tf.float32))

    @staticmethod
    def members(cls: type) -> dict[str, Any]:
        """Return what a model's subclass does differently in training."""

        def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
            training = self.__dict__[TRAINING]
            kwargs = training.told_to_train(self, args, kwargs)
            training.begin(args, kwargs)
            with compiling(self):
                return cls.__call__(self, *args, **kwargs)

        return {
            "__call__": __call__,
            "train_step": around(cls, "train_step", _train_step),
            "test_step": around(cls, "test_step", _test_step),
            "compute_loss": around(cls, "compute_loss", _compute_loss),
            "metrics": descriptor(cls, "metrics", _with_terms),
            "trainable_variables": descriptor(cls, "trainable_variables", _with_trained),
            "trainable_weights": descriptor(cls, "trainable_weights", _with_trained),
        }


def _kept(name: str) -> tuple[Any, Any]:
    """Return what keeps the mean of a term, and its last value."""
    last = keras.Variable(0.0, trainable=False, dtype="float32", name=f"{name}_last".replace("/", "_"))
    return keras.metrics.Mean(name=name), last


def _tensor(value: Any) -> Any:
    return tf.convert_to_tensor(value) if hasattr(value, "__array__") or tf.is_tensor(value) else value


def _train_step(self: Any, own: Any, data: Any) -> Any:
    training = self.__dict__[TRAINING]
    training.asked = False
    with in_training(), training.learners.stepping(self.optimizer):
        logs = own(data)
    if training.objectives and not training.asked:
        names = ", ".join(each.name for each in training.objectives)
        remedy = "take loss = self.compute_loss(x, y, y_pred), or compressed.loss(loss), in it after the model has run"
        raise ConfigError(f"{type(self).__name__}.train_step: what {names} adds to the loss is missing; {remedy}.")
    return logs


def _test_step(self: Any, own: Any, data: Any) -> Any:
    _now.testing = True
    try:
        return own(data)
    finally:
        _now.testing = False


def _compute_loss(self: Any, own: Any, *args: Any, **kwargs: Any) -> Any:
    training = self.__dict__[TRAINING]
    given = inspect.signature(own).bind(*args, **kwargs).arguments
    if not given.get("training", True) or not training.objectives:
        return own(*args, **kwargs)
    with compiling(self):
        return training.total(self, task_loss(self, own, *args, **kwargs))


def task_loss(model: Any, compute_loss: Any, *args: Any, **kwargs: Any) -> Any:
    """Return a model's own loss, or None where it has none, or no labels: Keras' `compute_loss` refuses that."""
    given = inspect.signature(compute_loss).bind(*args, **kwargs).arguments
    users = getattr(compute_loss, "__func__", None) is not keras.Model.compute_loss
    if users or (model._compile_loss is not None and given.get("y") is not None):
        return compute_loss(*args, **kwargs)
    return tf.add_n([tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in model.losses]) if model.losses else None


def _with_terms(self: Any, metrics: Any) -> Any:
    """The terms are metrics of training; an evaluation reports the user's alone."""
    return metrics if getattr(_now, "testing", False) else [*metrics, *self.__dict__[TRAINING].means.values()]


def _with_trained(self: Any, variables: Any) -> Any:
    learners = self.__dict__[TRAINING].learners
    if not learners.listing:
        return variables
    known = {id(variable) for variable in variables}
    return [*variables, *(variable for variable in learners.variables if id(variable) not in known)]


def _scalar(value: Any, name: str) -> Any:
    tensor = tf.convert_to_tensor(value)
    if tensor.shape.rank != 0:
        raise TrainingError(f"{name}: the loss has the shape {tuple(tensor.shape)}; a scalar is needed, tf.reduce_mean(loss) say.")
    return tf.cast(tensor, tf.float32)


def _shown(layers: Mapping[str, keras.Layer], site: Site, record: Record) -> Any:
    """Return a stored parameter in the canonical shape, or what passed a layer, floats in float32."""
    if site.is_parameter:
        slot = slot_at(layer_at(layers, site, "objective"), site, "objective")
        return slot.layout.canonical(tf.convert_to_tensor(slot.variable.value))
    tensor = record.last(site)
    return tf.cast(tensor, tf.float32) if tensor.dtype in (tf.float16, tf.bfloat16) else tensor


def with_objectives(model: keras.Layer, training: Training, objectives: Sequence[Objective], teacher: keras.Layer | None) -> Training:
    """Return the training that has these objectives and no others; their taps are set, the old ones' gone.

    Variables of an objective that stays (same name) keep their numbers. Everything that can fail is done first.
    """
    _check(objectives, model, teacher)
    states = {each.name: training.states.get(each.name) or KerasState(each.variables(), each.name) for each in objectives}
    new = Training(tuple(objectives), teacher, states, training.learners)
    taps = [(model, new.student, _passing(each.student for each in objectives))]
    if teacher is not None:
        taps.append((teacher, new.shown, _passing(each.teacher for each in objectives)))
    for part, record, sites in taps:
        tap(named_layers(part), sites, record, "objectives")
    release(model, training)
    return new


def release(model: keras.Layer, training: Training) -> None:
    """Take the taps of a training away."""
    untap(named_layers(model), training.student)
    if training.teacher is not None:
        untap(named_layers(training.teacher), training.shown)


def instrumented(model: keras.Layer, training: Training) -> bool:
    """Tell whether a model has views or objectives, and so trains in a way of its own."""
    return bool(training.objectives) or bool(current_views(named_layers(model)))


def trained(model: keras.Layer, training: Training) -> list[tuple[str, Any]]:
    """Return the trained variables of views and objectives, each with its group."""
    states = states_of(model, training).values()
    found = {id(variable): (state.specs[name].group, variable) for state in states for name, variable in state.trained().items()}
    return list(found.values())  # views may share a variable


def _check(objectives: Sequence[Objective], model: keras.Layer, teacher: Any) -> None:
    names = [each.name for each in objectives]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"objectives: {twice[0]!r} is the name of two; each needs its own.")
    reading = [each.name for each in objectives if each.teacher]
    if reading and teacher is None:
        raise ConfigError(f"objectives[{reading[0]!r}]: it reads a teacher, but none is given.")
    if teacher is model:
        raise ConfigError("teacher: the model itself was given; give a copy of it, or another model.")
    if teacher is not None and not isinstance(teacher, keras.Layer):
        raise ConfigError(f"teacher: a built Keras model is needed; a {type(teacher).__name__} was given.")


def _passing(lists: Iterator[Sequence[Site]]) -> list[Site]:
    return [site for sites in lists for site in sites if not site.is_parameter]


def states_of(model: keras.Layer, training: Training) -> dict[tuple[str, str], KerasState]:
    """Return the states of all views, by site and view name, and of all objectives, by name and ""."""
    found = {(str(site), view.name): state for site, seen in current_views(named_layers(model)).items() for view, state in seen.views}
    return found | {(name, ""): state for name, state in training.states.items()}


def set_numbers(states: Mapping[tuple[str, str], KerasState], numbers: Numbers) -> None:
    """Set numbers of variables. Raises `ConfigError` for one that there is none of, before any is set."""
    given = [(key, name, array) for key, arrays in numbers.items() for name, array in arrays.items()]
    for key, name, array in given:
        place = f"numbers[{key!r}][{name!r}]"
        if key not in states or name not in states[key].cells:
            raise ConfigError(f"{place}: no view or objective keeps such a variable.")
        shape = states[key].cells[name].shape
        if shape != np.shape(array):
            raise ConfigError(f"{place}: the shape is {np.shape(array)}, the variable's {shape}.")
    for key, name, array in given:
        states[key].cells[name].assign(array)


def learn(model: keras.Layer, training: Training, groups: Mapping[str, Learning], optimizer: Any) -> None:
    """Say how the trained variables learn. An optimizer that is given steps in a loop of the user's own.

    The model then lists the trained variables among its trainable ones, for the loop's tape to see; otherwise only while it steps.
    """
    if optimizer is not None and not isinstance(optimizer, keras.Optimizer):
        raise ConfigError(f"optimizer: a Keras optimizer is needed; a {type(optimizer).__name__} was given.")
    variables = trained(model, training)
    missing = [group for group, _ in variables if group not in groups] if groups else []
    if missing:
        raise ConfigError(f"learn: nothing says how the group {missing[0]!r} learns{nearest(missing[0], groups)}.")
    training.learners.use(groups, optimizer)
