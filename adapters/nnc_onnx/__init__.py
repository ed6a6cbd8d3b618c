"""nnc on ONNX files, in NumPy and ONNX Runtime: no training framework is needed, and importing this package loads no onnx."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnc.hookspecs import hookimpl


def recognises(model: Any) -> bool:
    """Tell whether `model` is the path of an .onnx file or an `onnx.ModelProto`; looks in `sys.modules` only."""
    if isinstance(model, (str, Path)):
        return str(model).endswith(".onnx")
    proto = getattr(sys.modules.get("onnx"), "ModelProto", None)
    return proto is not None and isinstance(model, proto)


@hookimpl
def nnc_register_adapters(register: Callable[..., None]) -> None:
    register("onnx", recognises=recognises, load=_adapter, extra="onnx")


@hookimpl
def nnc_register_examples(register: Callable[[str, Callable[[], Any]], None]) -> None:
    register("onnx", _example)


@hookimpl
def nnc_register_files(register: Callable[[str, Callable[[Any], Any]], None]) -> None:
    register(".onnx", _read)


@hookimpl
def nnc_register_formats(register: Callable[[str, Callable[[], Any]], None]) -> None:
    register("onnx", _format)


def _format() -> Any:
    from nnc_onnx.write import OnnxFormat

    return OnnxFormat()


def _adapter() -> Any:
    from nnc_onnx.adapter import OnnxAdapter

    return OnnxAdapter


def _example() -> Any:
    from nnc_onnx.examples import residual_network

    return residual_network()


def _read(path: Any) -> Any:
    from nnc_onnx.protos import read

    return read(path)
