"""Optimizers that begin again: of an instance that the user gave, or compiled the model with, only what it says of itself is taken."""

from __future__ import annotations

from typing import Any

import keras

from nnc.errors import ConfigError


def afresh(model: keras.Layer, optimizer: Any) -> Any:
    """Return a function that builds an optimizer like an instance, or like the model's compiled one; a name or a function stays."""
    given = getattr(model, "optimizer", None) if optimizer is None else optimizer
    if not isinstance(given, keras.Optimizer):
        return optimizer
    kind, said = type(given), given.get_config()

    def build(_: Any = None) -> Any:
        return kind.from_config(said)

    try:
        build()
    except (TypeError, ValueError) as error:
        why = f"Trainer.optimizer: a {kind.__name__} is given, which cannot be built again for each round from its config: {error}"
        raise ConfigError(f"{why}. Pass a function that builds it, lambda variables: ...") from None
    return build
