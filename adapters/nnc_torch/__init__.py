"""nnc on PyTorch: registers the adapter, the demo's network and the network of the contract tests. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from nnc.hookspecs import hookimpl


def recognises(model: Any) -> bool:
    """Say whether a model is a torch Module, without importing torch. A Keras model never is one, whatever its backend."""
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    if torch is None or not isinstance(model, torch.nn.Module):
        return False
    return keras is None or not isinstance(model, keras.Layer)


def load_adapter() -> type:
    """Import torch and return the adapter's class."""
    from nnc_torch.adapter import TorchAdapter

    return TorchAdapter


def load_demo() -> Any:
    """Import torch and return the demo's network."""
    from nnc_torch.demo import TorchDemo

    return TorchDemo()


def build_example() -> tuple[Any, Any]:
    """Import torch and return a small model with inputs for it."""
    from nnc_torch.examples import build

    return build()


def build_trainer() -> Any:
    """Import torch and return a trainer of that model."""
    from nnc_torch.examples import trainer

    return trainer()


@hookimpl
def nnc_register_adapters(register: Callable[..., None]) -> None:
    register("torch", recognises=recognises, load=load_adapter, extra="torch")


@hookimpl
def nnc_register_demos(register: Callable[..., None]) -> None:
    register("torch", load=load_demo)


@hookimpl
def nnc_register_examples(register: Callable[..., None]) -> None:
    register("torch", build_example, trainer=build_trainer)
