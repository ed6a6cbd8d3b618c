"""A torch model as an ONNX file: torch's own exporter, and for each node the layer that it comes from.

Initialisers keep the names of the parameters, because torch's optimiser stays off; what can be folded is folded later, by nnc itself
and by ONNX Runtime.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from ast import literal_eval
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnc.errors import ConfigError, ExportError
from nnc.export import LABEL
from nnc_torch.inference import arguments, inference
from nnc_torch.layers import layers_of

#: What torch's exporter writes. GELU is one node from opset 20 on.
OLDEST, USUAL, NEWEST = 18, 21, 23
_SCOPES = "pkg.torch.onnx.name_scopes"


def export(model: nn.Module, path: Path, example_inputs: Any, opset: int | None) -> None:
    """Write the model in inference mode to `path`; the first axis of every input that has the same size is the batch, of any size."""
    wanted = USUAL if opset is None else opset
    if not OLDEST <= wanted <= NEWEST:
        raise ConfigError(f"opset: {wanted} is outside {OLDEST} to {NEWEST}, what torch's exporter writes.")
    args, kwargs = arguments(model, example_inputs)
    with inference(model), _quiet():
        program = _program(model, args, kwargs, wanted)
        _label(program.model.graph, {name for name, _ in layers_of(model)})
        program.save(str(path), external_data=False)


def _program(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], opset: int) -> Any:
    """Return torch's ONNX program, of any batch size where the model allows that, else of the size of the example inputs."""
    options: dict[str, Any] = {"dynamo": True, "optimize": False, "verbose": False, "opset_version": opset}
    options["output_names"] = _names(model, args, kwargs)
    shapes = _batches(args, kwargs)
    try:
        return torch.onnx.export(model, args, kwargs=dict(kwargs), dynamic_shapes=shapes, **options)
    except Exception as flexible:
        try:
            return torch.onnx.export(model, args, kwargs=dict(kwargs), **options)
        except Exception:
            reason = str(flexible.__cause__ or flexible).strip().partition("\n")[0]
            raise ExportError(f"torch cannot export this {type(model).__name__} to ONNX: {reason}") from flexible


def _names(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str] | None:
    """Return the keys of a dict of tensors that the model gives, None for other outputs, and for names that inputs have."""
    try:
        given = model(*args, **kwargs)
    except Exception:
        return None  # the exporter says what is wrong
    if not isinstance(given, Mapping):
        return None
    held = {name: value for name, value in given.items() if value is not None}
    taken = set(kwargs) | set(inspect.signature(model.forward).parameters)
    fit = all(isinstance(name, str) and isinstance(value, torch.Tensor) and name not in taken for name, value in held.items())
    return list(held) if fit else None


def _batches(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return torch's description of which axes may have any size: the first one, of all inputs as long as the first input."""
    given = [*args, *kwargs.values()]
    sizes = [value.shape[0] for value in given if isinstance(value, torch.Tensor) and value.ndim]

    def axes(value: Any) -> Any:
        free = isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == sizes[0]
        return {0: torch.export.Dim.DYNAMIC} if free else None

    return tuple(axes(value) for value in args) if args else {name: axes(value) for name, value in kwargs.items()}


def _label(graph: Any, layers: set[str]) -> None:
    """Note on every node the innermost module that it belongs to."""
    for node in graph:
        scopes = literal_eval(node.metadata_props.get(_SCOPES, "[]"))
        inner = next((name for name in reversed(scopes) if name in layers), None)
        node.metadata_props.clear()
        if inner:
            node.metadata_props[LABEL] = inner


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from reporting on its progress, and from printing each failed attempt with its traceback.

    The one that counts is raised, with the exporter's own error as its cause.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
