"""Views: what a model sees instead of a parameter, or of what passes a layer.

A parameter is read as views(mask * stored), in the canonical orientation; what passes a layer keeps Keras' layout. Views compute in the
type in which Keras stores variables, under mixed precision too; the result is then cast. Their variables are Keras variables that no
layer tracks: compiled functions see them change, and saving the model leaves them out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state  # the only place that tells which call is running
from keras.src.backend.common.variables import AutocastScope, get_autocast_scope  # no public name tells what a layer computes in

from nnc.errors import ConfigError, nearest
from nnc.graph.ir import Array, Shape
from nnc.views import Site, Variable, View, Views
from nnc_tensorflow import ops
from nnc_tensorflow.layers import KerasLayer, Slot
from nnc_tensorflow.layouts import PLAIN, Layout
from nnc_tensorflow.modes import training_now
from nnc_tensorflow.names import VIEWS
from nnc_tensorflow.parts import part_of, replaced
from nnc_tensorflow.recurrent import holder_name
from nnc_tensorflow.swap import PASSING, held_by, hold


@dataclass(frozen=True)
class Cell:
    """One variable of Keras', and how its numbers are laid out in it."""

    variable: Any
    layout: Layout = PLAIN

    def tensor(self) -> Any:
        """Return the numbers in the canonical orientation."""
        return self.layout.canonical(tf.convert_to_tensor(self.variable.value))

    def assign(self, value: Any) -> None:
        self.variable.assign(self.layout.native_tensor(tf.convert_to_tensor(value), tuple(self.variable.shape)))

    @property
    def shape(self) -> Shape:
        stored = tuple(self.variable.shape)
        return stored if self.layout.plain else self.layout.shape(stored)

    def like(self, other: Cell) -> bool:
        return (self.shape, self.variable.dtype, self.variable.trainable) == (other.shape, other.variable.dtype, other.variable.trainable)


class KerasState:
    """Implements `nnc.views.State` over Keras variables; one that has a number for each of a parameter's is laid out as that is."""

    def __init__(self, specs: Mapping[str, Variable], name: str, slot: Slot | None = None) -> None:
        self.specs = dict(specs)
        self.cells = {key: _cell(f"{name}_{key}", spec, slot) for key, spec in specs.items()}

    def __getitem__(self, name: str) -> Any:
        return self.cells[name].tensor()

    def assign(self, name: str, value: Any) -> None:
        self.cells[name].assign(tf.stop_gradient(tf.convert_to_tensor(value)))

    @property
    def variables(self) -> dict[str, Any]:
        """Return Keras' variables by name; their numbers lie as `cells` say."""
        return {name: cell.variable for name, cell in self.cells.items()}

    def numbers(self) -> dict[str, Array]:
        """Return the variables' numbers, canonical."""
        return {name: cell.tensor().numpy().copy() for name, cell in self.cells.items()}

    def trained(self) -> dict[str, Any]:
        """Return the trained variables by name."""
        return {name: variable for name, variable in self.variables.items() if self.specs[name].trainable}


def _cell(name: str, spec: Variable, slot: Slot | None) -> Cell:
    value, layout = spec.value, PLAIN
    if slot is not None and not slot.layout.plain and np.shape(value) == slot.layout.shape(tuple(slot.variable.shape)):
        value, layout = slot.layout.native(np.asarray(value), tuple(slot.variable.shape)), slot.layout
    with tf.init_scope():
        made = keras.Variable(value, trainable=spec.trainable, dtype=_dtype(spec), autocast=False, name=name.replace("/", "_"))
    return Cell(made, layout)


def _dtype(spec: Variable) -> str:
    """Python and NumPy float64 become Keras' float type, as everywhere in Keras."""
    name = tf.convert_to_tensor(spec.value).dtype.name
    return keras.config.floatx() if name == "float64" else name


@dataclass
class Seen:
    """The views of one site in a layer, with their states."""

    site: Site
    views: list[tuple[View, KerasState]]

    def __call__(self, x: Any) -> Any:
        """Return what is seen instead of `x`; floats are computed with in float32 and given back as they came."""
        training, before = training_now(), x.dtype
        narrow = before in (tf.float16, tf.bfloat16)
        x = tf.cast(x, tf.float32) if narrow else x
        for view, state in self.views:
            x = _applied(view, x, state, training)
        return tf.cast(x, before) if narrow else x

    def remembered(self, x: Any) -> Any:
        """Return what is seen instead of `x`; what shared views made of it before in the same call of the model is made once."""
        context = global_state.get_global_attribute("current_call_ctx")
        training = training_now()
        names = tuple(view.shared for view, _ in self.views)
        if context is None or not all(names) or not isinstance(training, bool):
            return self(x)
        known = vars(context).setdefault("nnc_seen", {})
        key = (names, id(x), id(tf.compat.v1.get_default_graph()), training)
        if key not in known:
            known[key] = x, self(x)  # with `x` itself: its id is taken as long as the call lasts
        return known[key][1]


@dataclass
class SeenParameter(Seen):
    """The views of a parameter: between its mask and whoever reads it."""

    slot: Slot | None = None

    def masked(self, value: Any, mask: Any) -> Any:
        """Return mask * stored in the stored type, whatever the layer computes in: the views come after it."""
        with AutocastScope(None):
            return keras.ops.multiply(value, mask)

    def __call__(self, value: Any) -> Any:
        scope = get_autocast_scope()
        with AutocastScope(None):
            native = tf.convert_to_tensor(value)
            seen = super().__call__(self.slot.layout.canonical(native))
        seen = self.slot.layout.native_tensor(seen, tuple(native.shape))
        return scope.maybe_cast(seen) if scope is not None else seen


@dataclass
class SeenPassing:
    """The views of a layer's inputs, or of its outputs, by which of them they look at ("", "1", "logits")."""

    parts: dict[str, Seen] = field(default_factory=dict)

    def passed(self, value: Any) -> Any:
        """Return `value`, a tensor or any structure of them, with what is seen in place of its parts."""
        for key, seen in self.parts.items():
            path, tensor = part_of(value, key, str(seen.site))
            value = replaced(value, path, seen.remembered(tensor))
        return value

    def arguments(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        return through_arguments(self, call, args, kwargs)


def through_arguments(through: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Pass a call's arguments through views or taps, in the order of the layer's signature."""
    bound = inspect.signature(call).bind(*args, **kwargs)
    bound.arguments.update(through.passed(dict(bound.arguments)))
    return bound.args, bound.kwargs


def _applied(view: View, x: Any, state: KerasState, training: Any) -> Any:
    """`training` may be a tensor in a loop of the user's own; views know only Python's bool, so both ways are compiled."""
    if isinstance(training, bool):
        return view(x, state, ops, training)
    return tf.cond(tf.cast(training, tf.bool), lambda: view(x, state, ops, True), lambda: view(x, state, ops, False))


def current_views(layers: Mapping[str, keras.Layer]) -> dict[Site, Seen]:
    """Return what the layers are seen through now, by site."""
    found = {}
    for layer in layers.values():
        for entry in layer.__dict__.get(VIEWS, {}).values():
            for seen in entry.parts.values() if isinstance(entry, SeenPassing) else (entry,):
                found[seen.site] = seen
    return found


def apply_views(layers: Mapping[str, keras.Layer], views: Views) -> None:
    """See the layers through `views` and no others. Everything that can fail is done before a layer is touched."""
    before = current_views(layers)
    shared = _shared(before.values())
    seen = [_seen(layers, site, chain, before.get(site), shared) for site, chain in views.items() if chain]
    entries: dict[str, dict[str, Any]] = {}
    for each in seen:
        kind, _, part = each.site.tensor.partition(":")
        if isinstance(each, SeenParameter):
            entries.setdefault(holder_name(layers, each.site.layer), {})[each.slot.attribute] = each
        else:
            entry = entries.setdefault(each.site.layer, {})
            entry.setdefault(kind, SeenPassing()).parts[part] = each
    for name, layer in layers.items():
        hold(layer, {**held_by(layer), VIEWS: entries.get(name, {})})


def _shared(sites: Iterable[Seen]) -> dict[str, Cell]:
    """Return the variables that have a shared name, by that name."""
    states = (state for seen in sites for _, state in seen.views)
    return {spec.shared: state.cells[name] for state in states for name, spec in state.specs.items() if spec.shared}


def _seen(layers: Mapping[str, keras.Layer], site: Site, views: Sequence[View], before: Seen | None, shared: dict[str, Cell]) -> Seen:
    """Return the views of a site with their states; a view of a name that was there keeps its numbers, where they still fit."""
    layer = layer_at(layers, site, "views")
    chain = {view.name: view for view in views}  # the second of a name takes the first one's place
    kept = {view.name: state for view, state in before.views} if before else {}
    slot = slot_at(layer, site, "views") if site.is_parameter else None
    states = [(view, _state(view, site, kept.get(name), shared, slot)) for name, view in chain.items()]
    return Seen(site, states) if slot is None else SeenParameter(site, states, slot)


def _state(view: View, site: Site, kept: KerasState | None, shared: dict[str, Cell], slot: Slot | None) -> KerasState:
    state = KerasState(view.variables(), f"{site}_{view.name}", slot)
    for name, spec in state.specs.items():
        old = shared.get(spec.shared) if spec.shared else kept and kept.cells.get(name)
        if old is not None and old.like(state.cells[name]):
            state.cells[name] = old
        if spec.shared:
            shared[spec.shared] = state.cells[name]
    return state


def layer_at(layers: Mapping[str, keras.Layer], site: Site, place: str) -> KerasLayer:
    """Return the layer of a site. Raises `ConfigError` that names the nearest one."""
    if site.layer not in layers:
        raise ConfigError(f"{place}[{str(site)!r}]: {site.layer!r} is no layer of the model{nearest(site.layer, layers)}.")
    return KerasLayer(site.layer, layers[site.layer])


def slot_at(layer: KerasLayer, site: Site, place: str) -> Slot:
    """Return the parameter of a site, by its canonical or its Keras name."""
    name = layer.native.get(site.tensor, site.tensor)
    if name not in layer.slots:
        known = ", ".join([*layer.slots, *PASSING])
        owner = layer.name or "the model"
        raise ConfigError(f"{place}[{str(site)!r}]: {owner} has no {site.tensor!r}{nearest(site.tensor, layer.slots)}. It has {known}.")
    slot = layer.slots[name]
    if "." in slot.attribute or not slot.attribute.isidentifier():
        raise ConfigError(f"{place}[{str(site)!r}]: Keras holds this parameter in a list or dict, where it cannot be seen differently.")
    return slot
