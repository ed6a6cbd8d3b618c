"""One layer seen through something: its instance changes class for a subclass that reads parameters and passes calls through what it holds.

    masks      kernel * mask                     views    f(kernel), f(input), f(output)
    taps       what was read, or passed          training the terms that a model adds to its loss

Each of the four is an entry of the layer's `__dict__`; the subclass is chosen by which of them are there, and where none is left the
layer has its own class again. `layer.__class__` answers with the user's class all the while, and saving stores the user's numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import keras
import tensorflow as tf

from nnc_tensorflow.names import MASKS, TAPS, TRAINING, VIEWS

set_class = vars(object)["__class__"].__set__  # the subclass answers `__class__` itself, so the plain assignment is taken

#: What a layer may hold; `TRAINING` is a model's.
HELD = (MASKS, VIEWS, TAPS, TRAINING)
PASSING = ("input", "output")

Held = Mapping[str, Any]


def held_by(layer: keras.Layer) -> Held:
    """Return what a layer holds now."""
    return {name: layer.__dict__[name] for name in HELD if name in layer.__dict__}


def hold(layer: keras.Layer, held: Held) -> bool:
    """Let a layer hold exactly `held`, empty entries left out, and tell whether it is read or called differently from before."""
    before = type(layer)
    for name in HELD:
        layer.__dict__.pop(name, None)
        if held.get(name):
            layer.__dict__[name] = held[name]
    set_class(layer, _class_for(layer))
    return type(layer) is not before


def forget_compiled(model: keras.Layer) -> None:
    """Renew the compiled steps of a model and of the models inside it: they hold the parameters as they were seen before.

    A step that is there is made anew, not dropped, so that a callback may change what is seen in the middle of `fit`.
    """
    for layer in model._flatten_layers():
        if not isinstance(layer, keras.Model):
            continue
        for name in ("train", "test", "predict"):
            if layer.__dict__.get(f"{name}_function") is not None:
                getattr(layer, f"make_{name}_function")(force=True)


@contextmanager
def bare(layer: Any) -> Iterator[None]:
    """Give a layer its own class for a moment, so that what is stored is read and written, not what is seen."""
    swapped = type(layer)
    set_class(layer, layer.__class__)
    try:
        yield
    finally:
        set_class(layer, swapped)


def _class_for(layer: keras.Layer) -> type:
    own = layer.__class__
    held = held_by(layer)
    if not held:
        return own
    tensors = {name for entry in (MASKS, VIEWS, TAPS) for name in held.get(entry, ())}
    attributes = tuple(sorted(tensors - set(PASSING)))
    training = held.get(TRAINING)
    return _subclass(own, attributes, bool(tensors & set(PASSING)), type(training) if training else None)


@cache
def _subclass(cls: type, attributes: tuple[str, ...], calls: bool, training: Any) -> type:
    """Return a subclass of `cls` that reads `attributes`, and passes calls, through what the instance holds."""
    body: dict[str, Any] = {
        "__class__": property(lambda self: cls),
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    body |= {name: _parameter(cls, name) for name in attributes}
    if attributes:
        body |= {"save_own_variables": _stored("save_own_variables"), "load_own_variables": _stored("load_own_variables")}
    if calls:
        body["call"] = around(cls, "call", _call)
    if training is not None:
        body |= training.members(cls)
    return type(cls)(cls.__name__, (cls,), body)


def _stored(name: str) -> Callable[[Any, Any], None]:
    """Return a method that works on the stored variables."""

    def work(self: Any, store: Any) -> None:
        with bare(self):
            getattr(self, name)(store)

    return work


def descriptor(cls: type, name: str, seen: Callable[[Any, Any], Any]) -> property:
    """Return the data descriptor that stands in front of an attribute of `cls`, or of an entry of the instance's `__dict__`."""
    own = getattr(cls, name, None)

    def read(self: Any) -> Any:
        if hasattr(type(own), "__set__"):
            return seen(self, own.__get__(self, cls))
        if name in self.__dict__:
            return seen(self, self.__dict__[name])
        return seen(self, own.__get__(self, cls) if hasattr(own, "__get__") else own)

    def write(self: Any, value: Any) -> None:
        if hasattr(type(own), "__set__"):
            own.__set__(self, value)
        else:
            self.__dict__[name] = value

    return property(read, write)


def _parameter(cls: type, name: str) -> property:
    """Return the property through which one parameter is read: mask, then views, then tap."""

    def seen(self: Any, value: Any) -> Any:
        if value is None:
            return None
        held = self.__dict__
        mask, views, tap = (held.get(entry, {}).get(name) for entry in (MASKS, VIEWS, TAPS))
        if mask is not None:
            value = views.masked(value, mask) if views else _times(value, mask, name)
        if views is not None:
            value = views(value)
        return value if tap is None else tap(tf.convert_to_tensor(value))

    return descriptor(cls, name, seen)


def _times(value: Any, mask: Any, name: str) -> Any:
    return _Statistic(value, mask) if name == "moving_mean" else keras.ops.multiply(value, mask)


class _Statistic:
    """A masked running mean: read as zero where it is masked; training goes on counting where it is not."""

    def __init__(self, stored: Any, mask: Any) -> None:
        self._stored, self._mask = stored, mask

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> Any:
        return tf.convert_to_tensor(keras.ops.multiply(self._stored, self._mask), dtype)

    def assign(self, value: Any) -> Any:
        return self._stored.assign(keras.ops.where(keras.ops.cast(self._mask, "bool"), value, self._stored))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stored, name)


def around(cls: type, name: str, work: Callable[..., Any]) -> property:
    """Return a method that is `work(self, own, *args, **kwargs)`, `own` being the instance's own method of that name.

    A property, so that it stands in front of a method that the user put on the instance. Its signature is the own one's.
    """

    def seen(self: Any, own: Any) -> Any:
        @functools.wraps(own)
        def call(*args: Any, **kwargs: Any) -> Any:
            return work(self, own, *args, **kwargs)

        return tf.autograph.experimental.do_not_convert(call)

    return descriptor(cls, name, seen)


def _call(self: Any, own: Any, *args: Any, **kwargs: Any) -> Any:
    """Pass inputs and outputs through views, then taps."""
    views, taps = self.__dict__.get(VIEWS, {}), self.__dict__.get(TAPS, {})
    for through in (views.get("input"), taps.get("input")):
        if through is not None:
            args, kwargs = through.arguments(own, args, kwargs)
    outputs = own(*args, **kwargs)
    for through in (views.get("output"), taps.get("output")):
        if through is not None:
            outputs = through.passed(outputs)
    return outputs


def own_method(layer: Any, name: str) -> Any:
    """Return a method of a layer as the user has it, without what is around it."""
    with bare(layer):
        return getattr(layer, name)
