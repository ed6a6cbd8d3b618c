"""nnc on Keras 3 with the TensorFlow backend. Importing this package imports neither keras nor tensorflow."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from nnc.hookspecs import hookimpl


def recognises(model: Any) -> bool:
    """Tell whether `model` is a Keras layer or model, on whatever backend; looks in `sys.modules` only."""
    layer = getattr(sys.modules.get("keras"), "Layer", None)
    return layer is not None and isinstance(model, layer)


@hookimpl
def nnc_register_adapters(register: Callable[..., None]) -> None:
    register("tensorflow", recognises=recognises, load=_adapter, extra="tensorflow")


@hookimpl
def nnc_register_demos(register: Callable[..., None]) -> None:
    register("tensorflow", load=_demo)


@hookimpl
def nnc_register_examples(register: Callable[..., None]) -> None:
    register("tensorflow", _example, trainer=_trainer)


@hookimpl
def nnc_register_files(register: Callable[[str, Callable[[Any], Any]], None]) -> None:
    register(".keras", _read)


@hookimpl
def nnc_register_formats(register: Callable[[str, Callable[[], Any]], None]) -> None:
    register("tflite", _lite)


def _lite() -> Any:
    from nnc_tensorflow.lite import LiteFormat

    return LiteFormat()


def _adapter() -> Any:
    from nnc_tensorflow.adapter import TensorFlowAdapter

    return TensorFlowAdapter


def _demo() -> Any:
    from nnc_tensorflow.demo import TensorFlowDemo

    return TensorFlowDemo()


def _example() -> Any:
    from nnc_tensorflow.examples import residual_network

    return residual_network()


def _trainer() -> Any:
    from nnc_tensorflow.examples import trainer

    return trainer()


def _read(path: Any) -> Any:
    from keras.saving import load_model

    return load_model(path)
