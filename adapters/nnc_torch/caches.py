"""Tensors that a layer keeps from one pass for the next in a dict of its own, as biases of attention that it gathered from a table.

    if device not in self.biases:
        self.biases[device] = self.table[:, self.places]

They follow from weights, so that a pass must make them anew where the weights are masked, or have become fewer. What a pass fills again is
such a dict; one that it does not is the model's own, and stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from nnc_torch.layers import layers_of

Result = TypeVar("Result")

_TORCHS_OWN = frozenset(vars(nn.Module()))

#: The dicts that a pass of a model filled again, by layer and attribute.
_refilled: WeakKeyDictionary[nn.Module, list[tuple[str, str]]] = WeakKeyDictionary()


def afresh(model: nn.Module, run: Callable[[], Result]) -> Result:
    """Return `run()`, a pass of the model that finds no tensors kept from an earlier one. What the model keeps is as before afterwards."""
    held = list(_dicts(model))
    if any(kept for *_, kept in held):
        try:
            result = _from(held, run, empty=True)
        except _Missing:
            pass
        else:
            _refilled[model] = [(layer, name) for layer, _, name, _ in held]
            return result
    return _from(held, run, empty=False)


def forget(model: nn.Module, small: nn.Module) -> None:
    """Empty in a small copy what passes of the model were seen to fill again."""
    for layer, name in _refilled.get(model, ()):
        vars(small.get_submodule(layer))[name] = {}


class _Missing(Exception):
    """A pass needs what the model keeps, or does not make it anew."""


#: Layer, its attributes, the name of one of them, the dict in it.
Held = tuple[str, dict[str, Any], str, dict[Any, torch.Tensor]]


def _from(held: Sequence[Held], run: Callable[[], Result], empty: bool) -> Result:
    """Return `run()`, with the dicts emptied before or not, and put back what was in them."""
    before = [dict(kept) for *_, kept in held]
    if empty:
        for *_, kept in held:
            kept.clear()
    try:
        result = run()
        same = all(own[name].keys() == contents.keys() for (_, own, name, _), contents in zip(held, before, strict=True))
    except Exception as error:
        if empty:
            raise _Missing from error
        raise
    finally:
        for (_, own, name, kept), contents in zip(held, before, strict=True):
            kept.clear()
            kept.update(contents)
            own[name] = kept
    if empty and not same:
        raise _Missing
    return result


def _dicts(model: nn.Module) -> Iterator[Held]:
    """Yield the dicts of layers in which nothing is, or tensors only."""
    for layer, module in layers_of(model):
        for name, value in vars(module).items():
            if type(value) is dict and name not in _TORCHS_OWN and all(isinstance(item, torch.Tensor) for item in value.values()):
                yield layer, vars(module), name, value
