"""How the trained variables of views and objectives learn: by optimizers of their own, whenever the user's steps.

During a training step the model lists those variables among its trainable ones, and the optimizer hands their gradients on. So whoever
wrote the step - Keras, or the user in a `train_step` of their own - takes one backward pass for both, and the user's optimizer keeps
its slots, its schedule and its clipping to itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import keras
import tensorflow as tf

from nnc.errors import ConfigError, nearest
from nnc.views import Learning
from nnc_tensorflow.outside import outside
from nnc_tensorflow.swap import set_class

_LEARNERS = "_nnc_learners"

Trained = Sequence[tuple[str, Any]]


def _optimizer(learning: Learning, steps: int | None) -> Any:
    if learning.rule == "sgd":
        return keras.optimizers.SGD(learning.rate, gradient_accumulation_steps=steps)
    return keras.optimizers.Adam(learning.rate, epsilon=1e-8, gradient_accumulation_steps=steps)


def _built(learning: Learning, steps: int | None, members: list[Any], beside: Any) -> Any:
    """Return the optimizer of some variables, as far into its `steps` of accumulation as the one beside which it steps."""
    made = _optimizer(learning, steps)
    made.build(members)
    if steps:
        made._iterations.assign(tf.cast(beside._iterations.value, tf.int64) % steps)
    return made


@dataclass
class Learners:
    """The optimizers of the groups, with the variables that each steps. Adam's moments last while a group's variables stay the same."""

    groups: Mapping[str, Learning] = field(default_factory=dict)
    optimizer: Any = None
    listing: bool = False
    _members: dict[str, list[Any]] = field(default_factory=dict)
    _optimizers: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def use(self, groups: Mapping[str, Learning], optimizer: Any = None) -> None:
        """Learn as `groups` say. `optimizer` is that of a loop of the user's own, whose gradients are of all that the model lists."""
        if self.optimizer is not None:
            detach(self.optimizer)
        self.groups, self.optimizer, self.listing = dict(groups), optimizer, optimizer is not None
        if optimizer is not None:
            attach(optimizer, self)

    def follow(self, trained: Trained) -> None:
        """Take over the trained variables as they are now, each with its group."""
        self._members = {group: [v for g, v in trained if g == group] for group, _ in trained} if self.groups else {}

    def check(self) -> None:
        """Raise `ConfigError` for a group that nobody said how to train."""
        for group in self._members:
            if group not in self.groups:
                known = ", ".join(map(repr, self.groups))
                raise ConfigError(f"learn: nothing says how the group {group!r} learns{nearest(group, self.groups)}; known: {known}.")

    @property
    def variables(self) -> list[Any]:
        return [variable for members in self._members.values() for variable in members]

    @property
    def optimizers(self) -> list[Any]:
        return [self._optimizers[group][1] for group in self._members if group in self._optimizers]

    @property
    def state(self) -> list[Any]:
        """The optimizers' variables, in a fixed order."""
        return [variable for optimizer in self.optimizers for variable in optimizer.variables]

    def ready(self, optimizer: Any) -> None:
        """Make the optimizers that step with `optimizer`: variables cannot be made in the middle of a compiled step."""
        self.check()
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        steps = inner.gradient_accumulation_steps
        for group, members in self._members.items():
            key = (self.groups[group], steps, tuple(id(variable) for variable in members))
            if self._optimizers.get(group, (None,))[0] == key:
                continue
            self._optimizers[group] = (key, outside(partial(_built, self.groups[group], steps, members, inner)))

    def apply(self, optimizer: Any, gradients: Mapping[int, Any], others: Sequence[Any]) -> None:
        """Step the variables by gradients ({id: gradient}) as `optimizer` would: what scales its loss is taken out again.

        `others` are the gradients of the user's variables: where one is not finite, a loss-scaling optimizer skips the step.
        """
        if not hasattr(optimizer, "inner_optimizer"):
            self._step(gradients, optimizer.loss_scale_factor)
            return
        scale = tf.convert_to_tensor(optimizer.dynamic_scale.value if optimizer.built else optimizer.initial_scale)
        finite = optimizer.check_finite([*gradients.values(), *others])
        tf.cond(finite, lambda: self._step(gradients, scale), lambda: tf.constant(0))

    def _step(self, gradients: Mapping[int, Any], scale: Any) -> Any:
        for group, members in self._members.items():
            pairs = [(gradients[id(v)], v) for v in members if gradients.get(id(v)) is not None]
            if pairs:
                self._optimizers[group][1].apply_gradients([(g if scale is None else g / tf.cast(scale, g.dtype), v) for g, v in pairs])
        return tf.constant(0)

    @contextmanager
    def stepping(self, optimizer: Any) -> Iterator[None]:
        """List the variables among the model's, and let `optimizer` hand their gradients on."""
        if optimizer is None or not self.variables:
            yield
            return
        self.ready(optimizer)
        before, kept = self.listing, _LEARNERS in optimizer.__dict__
        self.listing = True
        attach(optimizer, self)
        try:
            yield
        finally:
            self.listing = before
            if not kept:
                detach(optimizer)


def fill_up(optimizer: Any) -> bool:
    """Let the next step be the last of an accumulation, by the mean of the batches so far and no other; return whether there are any."""
    steps = optimizer.gradient_accumulation_steps
    left = int(optimizer._iterations) % steps if steps else 0
    if not left:
        return False
    for gradient in optimizer._accumulated_gradients:
        if gradient is not None:
            gradient.assign(gradient * (steps / left))  # Keras divides what has come by `steps`
    optimizer._iterations.assign_add(steps - left - 1)
    return True


def attach(optimizer: Any, learners: Learners) -> None:
    """Let an optimizer hand on the gradients of the learners' variables."""
    optimizer.__dict__[_LEARNERS] = learners
    set_class(optimizer, _handing_on(optimizer.__class__))


def detach(optimizer: Any) -> None:
    optimizer.__dict__.pop(_LEARNERS, None)
    set_class(optimizer, optimizer.__class__)


@cache
def _handing_on(cls: type) -> type:
    """Return a subclass of an optimizer's class that keeps the learners' variables out of its own work."""

    def apply(self: Any, grads: Any, trainable_variables: Any = None) -> Any:
        learners = self.__dict__.get(_LEARNERS)
        if learners is None or trainable_variables is None:
            return cls.apply(self, grads, trainable_variables)
        learners.ready(self)
        theirs = {id(variable) for variable in learners.variables}
        pairs = list(zip(grads, trainable_variables, strict=True))
        own = [(gradient, variable) for gradient, variable in pairs if id(variable) not in theirs]
        handed = {id(variable): gradient for gradient, variable in pairs if id(variable) in theirs and gradient is not None}
        learners.apply(self, handed, [gradient for gradient, _ in own if gradient is not None])
        return cls.apply(self, *(list(each) for each in zip(*own, strict=True))) if own else None

    def build(self: Any, variables: Any) -> Any:
        learners = self.__dict__.get(_LEARNERS)
        theirs = {id(variable) for variable in learners.variables} if learners else set()
        return cls.build(self, [variable for variable in variables if id(variable) not in theirs])

    body = {"__class__": property(lambda self: cls), "__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls)(cls.__name__, (cls,), {**body, "apply": apply, "build": build})
