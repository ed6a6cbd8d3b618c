"""What there is to choose from: the layers of a model, the algorithms that are installed, the keys of a config_list."""

from __future__ import annotations

from typing import Any

from nnc.adapter import Layer
from nnc.registry import Registered, adapter_for, registry


def layers(model: Any) -> tuple[Layer, ...]:
    """Return the model's layers that hold parameters: what `op_names` and `op_types` select from.

    Raises `ModelError` for a model that is of no known framework, or not built yet.
    """
    return tuple(adapter_for(model).layers())


def algorithms() -> tuple[Registered, ...]:
    """Return the installed algorithms by name, built-in and third-party alike."""
    return registry().algorithms


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a config_list."""
    from nnc_schemas import json_schema

    return json_schema([found.cls.spec for found in registry().algorithms])
