"""A smaller copy of any Keras model, its own classes in place: a structural copy in which every variable is its cut one.

`copy.deepcopy` would double the full-size model, and Keras lets it go through a saved file. Here every Keras object gets an empty
shell first and every variable its small successor; both stand in deepcopy's memo while the attributes are copied into the shells.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.utils import tracking
from keras.src.utils.backend_utils import DynamicBackend  # stands for a module, in the layers that prepare data
from tensorflow.python.trackable.base import TrackableReference  # no public name leads to it

from nnc.errors import ModelError
from nnc.graph.ir import Array
from nnc.graph.plan import Plan
from nnc_tensorflow.caches import follow_caches
from nnc_tensorflow.names import COMPILED, MASKS, PLANS, TAPS, TRAINING, VIEWS, named_layers, named_operations, own_variables
from nnc_tensorflow.specs import follow_plan, follow_weights
from nnc_tensorflow.surgery import Cut
from nnc_tensorflow.symbols import follow_graphs

#: What `compile` and `fit` leave on a model; the copy is as uncompiled as one just built.
_UNCOMPILED: dict[str, Any] = {
    "compiled": False,
    "loss": None,
    "_compile_loss": None,
    "_compile_metrics": None,
    "_loss_tracker": None,
    "train_function": None,
    "generate_function": None,
    "test_function": None,
    "predict_function": None,
    "_eval_epoch_iterator": None,
}
_LEFT_BEHIND = {"optimizer", "_compile_config", "_compiled_trainable_state", MASKS, VIEWS, TAPS, TRAINING, PLANS, COMPILED}
_WRAPPERS = {"build", "quantize"}  # closures over the layer, which Keras makes for each instance
_DEPENDENCIES = {"_self_unconditional_checkpoint_dependencies", "_self_unconditional_dependency_names"}
_TRACKED = (tracking.TrackedList, tracking.TrackedDict, tracking.TrackedOrderedDict, tracking.TrackedSet)


def copied(model: keras.Layer, cut: Mapping[str, Cut], plan: Plan) -> keras.Layer:
    """Return a new model with the sizes and the weights of `cut`, of the same classes, not compiled."""
    layers = named_layers(model)
    memo = _small_variables(layers, cut)
    shells = [(part, _shell(part)) for part in _parts(model)]
    memo |= {id(part): shell for part, shell in shells}
    memo |= {id(module): module for module in sys.modules.values()}  # an attribute may hold one; deepcopy fails on it
    memo |= {id(value): value for part, _ in shells for _, value in _state(part) if isinstance(value, DynamicBackend)}
    memo[id(tf.distribute.get_strategy())] = tf.distribute.get_strategy()  # a singleton
    for part, shell in shells:
        for name, value in _state(part):
            shell.__dict__[name] = _attribute(part, name, _inside(value, memo) if name == "_outbound_nodes" else value, memo)
    identities = {str(id(part)): str(id(shell)) for part, shell in shells}
    for _, shell in shells:
        _number_again(shell, identities)
    for name, layer in layers.items():
        follow_weights(layer, memo[id(layer)], cut.get(name), plan, name)
    for name, operation in named_operations(layers).items():
        follow_plan(memo[id(operation)], plan, name)
    small: keras.Layer = memo[id(model)]
    follow_graphs(small)
    follow_caches(model, small)
    return small


def _small_variables(layers: Mapping[str, keras.Layer], cut: Mapping[str, Cut]) -> dict[int, Any]:
    """Return the new variable of each of the model's variables, by the identity of the old one."""
    memo: dict[int, Any] = {}
    for name, layer in layers.items():
        for attribute, variable in own_variables(layer).items():
            memo.setdefault(id(variable), _variable(variable, cut[name].weights[attribute]))
    for variable in layers[""].variables:  # states of seed generators and metrics
        if id(variable) not in memo:
            memo[id(variable)] = _variable(variable, np.asarray(variable.value))
    return memo


def _variable(old: keras.Variable, numbers: Array) -> keras.Variable:
    """Return a variable like `old` that holds `numbers`."""
    new = keras.Variable(np.asarray(numbers), trainable=old.trainable, dtype=old.dtype, autocast=old._autocast, name=old.name)
    for name in ("_path", "_regularizer", "_constraint", "_overwrite_with_gradient"):
        setattr(new, name, getattr(old, name))
    return new


def _parts(model: keras.Layer) -> list[Any]:
    """Return every Keras object of a model (layers, operations, metrics) once: those that deepcopy must find in its memo."""
    found: dict[int, Any] = {}
    waiting = [model]
    while waiting:
        part = waiting.pop()
        if id(part) in found:
            continue
        found[id(part)] = part
        waiting += [inner for _, value in _state(part) for inner in _saveables(value)]
    return list(found.values())


def _saveables(value: Any) -> Iterator[Any]:
    if isinstance(value, (KerasSaveable, keras.random.SeedGenerator)) and not isinstance(value, keras.Variable):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _saveables(item)
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _saveables(item)


def _state(part: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that the copy takes over."""
    for name, value in part.__dict__.items():
        if isinstance(part, keras.Model) and name in _UNCOMPILED:
            yield name, _UNCOMPILED[name]
        elif name in _DEPENDENCIES:
            yield name, _without_training(value)
        elif not (name in _LEFT_BEHIND or isinstance(value, keras.Optimizer) or (name in _WRAPPERS and isinstance(part, keras.Layer))):
            yield name, value


def _without_training(dependencies: Any) -> Any:
    """Drop the optimizer, the loss and the like from what TensorFlow notes as a model's dependencies."""
    gone = {*_UNCOMPILED, *_LEFT_BEHIND}
    if isinstance(dependencies, dict):
        return {name: value for name, value in dependencies.items() if name not in gone}
    return [reference for reference in dependencies if reference.name not in gone]


def _shell(part: Any) -> Any:
    """Return an empty object of the same (unmasked) class; a layer's has Keras' wrappers around its own `build`."""
    cls = part.__class__
    if not isinstance(part, keras.Layer):
        return object.__new__(cls)
    made = keras.Layer.__new__(cls)
    wrappers = {name: made.__dict__[name] for name in _WRAPPERS if name in made.__dict__}
    made.__dict__.clear()
    made.__dict__.update(wrappers)
    return made


def _inside(nodes: Any, memo: dict[int, Any]) -> Any:
    """Leave out the calls of operations of other models: a layer notes all that ever read it, as where two models share it."""
    mine = [node for node in nodes if id(node.operation) in memo]
    if len(mine) == len(nodes):
        return nodes
    made = type(nodes)(mine)
    if isinstance(nodes, _TRACKED):
        made.tracker = nodes.tracker
    return _alive(made, memo)


def _alive(value: Any, memo: dict[int, Any]) -> Any:
    """Keep an object as long as the memo, as deepcopy does: an id says something only while its object lives."""
    memo.setdefault(id(memo), []).append(value)
    return value


def _attribute(part: Any, name: str, value: Any, memo: dict[int, Any]) -> Any:
    try:
        return _copy(value, memo)
    except Exception as error:
        raise ModelError(
            f"{part.__class__.__name__}.{name}: Python cannot copy this {type(value).__name__} ({error}), so no smaller copy of the model "
            "can be made. Create it where it is used, or give its class a __deepcopy__."
        ) from error


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    """Copy one attribute. Keras' tracking collections would report to their tracker while being filled, so they are filled bare."""
    if isinstance(value, inspect.Signature):  # immutable, and deepcopy fails on it
        return value
    if isinstance(value, _TRACKED):
        return _tracked(value, memo)
    if isinstance(value, TrackableReference):  # deepcopy fails on it
        return TrackableReference(value.name, _copy(value.ref, memo))
    if type(value) in (list, tuple):
        return _remembered(value, type(value)(_copy(item, memo) for item in value), memo)
    if type(value) is dict:
        return _remembered(value, {_copy(key, memo): _copy(item, memo) for key, item in value.items()}, memo)
    return copy.deepcopy(value, memo)


def _remembered(value: Any, made: Any, memo: dict[int, Any]) -> Any:
    """Note a copy, so that the same object is copied once."""
    _alive(value, memo)
    return memo.setdefault(id(value), made)


def _tracked(value: Any, memo: dict[int, Any]) -> Any:
    if id(value) in memo:
        return memo[id(value)]
    items = value.items() if isinstance(value, dict) else value
    made = memo[id(value)] = type(value)([_copy(item, memo) for item in items])
    made.tracker = copy.deepcopy(value.tracker, memo)
    return made


def _number_again(shell: Any, identities: Mapping[str, str]) -> None:
    """Keras' trackers and graphs know what they hold by identity; the copies have identities of their own."""
    if "_nodes" in getattr(shell, "__dict__", {}):  # keys such as "1234_ib-0": an operation and its n-th call
        keys = (key.split("_", 1) for key in shell._nodes)
        shell.__dict__["_nodes"] = {f"{identities.get(operation, operation)}_{call}" for operation, call in keys}
    tracker = getattr(shell, "__dict__", {}).get("_tracker")
    if tracker is not None:
        tracker.stored_ids = {name: {id(item) for item in store} for name, (_, store) in tracker.config.items()}
