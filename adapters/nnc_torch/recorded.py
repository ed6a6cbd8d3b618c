"""The last graph that was recorded, for whoever asks for it again: a pruner scores groups by it, then ModelSpeedup plans by it.

A graph is the same as long as nothing has changed that it follows from: the example inputs, the modules, their code and what they hold.
Weights may have other numbers by then, since a graph reads those when it is asked. A pass whose code looked at numbers is not kept.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import FunctionType, MethodType, NoneType
from typing import Any

import numpy as np
import torch
from torch import nn

from nnc.graph.ir import Graph
from nnc_torch.copies import address
from nnc_torch.layers import layers_of

#: Plain data that says all by its value.
_PLAIN = frozenset([int, float, complex, bool, str, bytes, NoneType, torch.dtype, torch.device])
_DICTS = (dict, OrderedDict)
_LISTS = (list, tuple, set, frozenset)
#: How deep what a module holds is read: config.text_config.layer_types[0].
_DEPTH = 6
#: So many items are read in all, and of an array.
_MOST, _FEW = 50_000, 1024


@dataclass(frozen=True)
class _Recording:
    """A graph and what it was recorded from. The model and the inputs are not kept alive."""

    model: weakref.ref[nn.Module]
    inputs: tuple[weakref.ref[torch.Tensor], ...]
    state: Hashable
    graph: Graph


_last: _Recording | None = None


def recalled(model: nn.Module, example_inputs: Any, state: Hashable | None) -> Graph | None:
    """Return the graph of a model in a `state` on these inputs, if that is what was recorded last."""
    last = _last
    if last is None or state is None or last.model() is not model or last.state != state:
        return None
    given = list(_tensors(example_inputs))
    same = len(given) == len(last.inputs) and all(ref() is tensor for ref, tensor in zip(last.inputs, given, strict=True))
    return replace(last.graph) if same else None


def keep(model: nn.Module, example_inputs: Any, state: Hashable, graph: Graph) -> None:
    """Keep a graph until another one is recorded, or the model is gone."""
    global _last
    inputs = tuple(weakref.ref(tensor) for tensor in _tensors(example_inputs))
    _last = _Recording(weakref.ref(model, _forget), inputs, state, replace(graph))


def _forget(gone: weakref.ref[nn.Module]) -> None:
    global _last
    if _last is not None and _last.model is gone:
        _last = None


def state_of(model: nn.Module, example_inputs: Any) -> Hashable | None:
    """Return what a graph follows from besides the tensors of the inputs: equal where it may be taken to be the same graph.

    None where a model holds so much, a dataset perhaps, that looking at all of it costs more than another pass.
    """
    modes = torch.get_default_dtype(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")
    marks = _Marks()
    try:
        return modes, marks.of(example_inputs, _DEPTH), tuple([(path, marks.held(module)) for path, module in layers_of(model)])
    except _TooMuch:
        return None


class _TooMuch(Exception):
    """A model holds more than is worth looking at."""


class _Marks:
    """Marks of values: equal for two values that code would treat alike."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        self._left = _MOST

    def held(self, module: nn.Module) -> Hashable:
        """Return what a module is and holds, but for the modules in it and whether it trains."""
        marks: list[Hashable] = []
        for name, value in vars(module).items():
            if type(value) in _PLAIN:
                marks.append((name, value) if name != "training" else None)
            elif name in ("_parameters", "_buffers"):
                marks.append(frozenset((own, _tensor(tensor)) for own, tensor in value.items() if tensor is not None))
            elif name != "_modules" and (type(value) not in _DICTS or value):  # most hooks are none
                marks.append((name, self.of(value, _DEPTH)))
        return id(module), type(module), id(type(module).forward), tuple(marks)

    def of(self, value: Any, depth: int) -> Hashable:
        """Return the mark of a value; what it holds `depth` levels down is told by its identity."""
        kind = type(value)
        if kind in _PLAIN:
            return kind, value
        if isinstance(value, torch.Tensor):
            return _tensor(value)
        if kind is tuple and len(value) < _FEW and _PLAIN.issuperset(map(type, value)):
            return value
        if id(value) in self._seen:
            return self._seen[id(value)]
        self._seen[id(value)] = number = len(self._seen)
        if not depth or isinstance(value, FunctionType | MethodType | type | nn.Module):
            return id(value)
        if isinstance(value, np.ndarray):
            return id(value), value.dtype, value.shape, value.tobytes() if value.size < _FEW else None
        if kind in _DICTS or kind in _LISTS:
            return number, kind, self._items(value, depth - 1)
        return number, kind, id(value), self._items(vars(value), depth - 1) if hasattr(value, "__dict__") else None

    def _items(self, value: Any, depth: int) -> Hashable:
        """Return the marks of what a dict, a list or the like holds."""
        self._left -= len(value)
        if self._left < 0:
            raise _TooMuch
        items = value.values() if isinstance(value, Mapping) else value
        keys = tuple([key if type(key) in _PLAIN else self.of(key, depth) for key in value]) if isinstance(value, Mapping) else None
        if _PLAIN.issuperset(map(type, items)):
            return keys, tuple(items), tuple(map(type, items))
        return keys, tuple([self.of(item, depth) for item in items])


def _tensor(tensor: torch.Tensor) -> Hashable:
    # Weights may be trained; whole numbers are positions, and may be in the graph as such.
    version = None if tensor.is_inference() or tensor.is_floating_point() else tensor._version
    return id(tensor), address(tensor), tensor.dtype, tuple(tensor.shape), tensor.requires_grad, version


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
