"""A model's numbers by path, and its architecture as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from nnc.errors import StorageError
from nnc.graph.ir import Array
from nnc.storage import require_same_tensors
from nnc_tensorflow.clone import plain
from nnc_tensorflow.names import named_layers, own_variables


def tensors(model: keras.Layer) -> dict[str, Array]:
    """Return every stored variable by its path, in Keras' own layout."""
    return {path: np.asarray(variable.value) for path, variable in _variables(model)}


def load_tensors(model: keras.Layer, given: Mapping[str, Array]) -> None:
    """Set every stored variable. Raises `StorageError` before any is set."""
    variables = dict(_variables(model))
    require_same_tensors({path: tuple(variable.shape) for path, variable in variables.items()}, given)
    for path, variable in variables.items():
        variable.assign(given[path])


def blueprint(model: keras.Layer) -> dict[str, Any] | None:
    """Return the architecture of a Functional or Sequential model of Keras' own layers, None for any other."""
    return {"keras": json.loads(model.to_json())} if plain(model) else None


def rebuild(data: Mapping[str, Any]) -> keras.Layer:
    """Return a model with fresh weights. Raises `StorageError` where the data is no architecture that Keras can build safely."""
    try:
        return keras.saving.deserialize_keras_object(data["keras"], safe_mode=True)
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"Keras cannot build the saved architecture: {error}") from error


def _variables(model: keras.Layer) -> Iterator[tuple[str, keras.Variable]]:
    """Yield every variable once with its path; one that several layers share has the first one's."""
    seen = set()
    for name, layer in named_layers(model).items():
        own = own_variables(layer) | {f"seed_generator.{n}": generator.state for n, generator in enumerate(layer._seed_generators)}
        for attribute, variable in own.items():
            if id(variable) not in seen:
                seen.add(id(variable))
                yield f"{name}.{attribute}" if name else attribute, variable
