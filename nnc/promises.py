"""What a contract looks at: the state of a model before and after, and what to say where it differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nnc.adapter import Masks
from nnc.graph.ir import Array
from nnc.registry import adapter_for


class Deliberate(Exception):
    """Thrown by a contract to see what an exception leaves behind."""


@dataclass(frozen=True)
class State:
    """What must be as it was: the model's class, its stored numbers, its masks, its views by site and name."""

    kind: type
    tensors: dict[str, Array]
    masks: Masks
    views: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, model: Any) -> State:
        adapter = adapter_for(model)
        seen: Any = adapter.views() if hasattr(adapter, "views") else {}
        views = frozenset((str(site), view.name) for site, given in seen.items() for view in given)
        return cls(type(model), {name: array.copy() for name, array in adapter.tensors().items()}, dict(adapter.masks()), views)

    def require_same(self, before: State, event: str, numbers: bool = True) -> None:
        if numbers:
            self.require_numbers(before, event)
        require(self.tensors.keys() == before.tensors.keys(), f"{event} adds or removes tensors.")
        require(self.views == before.views, f"{event} leaves other views on the model.")
        require(self.kind is before.kind, f"{event} changes the model's class.")
        require(same_masks(self.masks, before.masks), f"{event} changes the model's masks.")

    def require_numbers(self, before: State, event: str) -> None:
        require(self.tensors.keys() == before.tensors.keys(), f"{event} adds or removes tensors.")
        for name, array in self.tensors.items():
            require(
                np.array_equal(array, before.tensors[name], equal_nan=array.dtype.kind == "f"), f"{event} changes the numbers of {name!r}."
            )


def require(holds: bool, sentence: str) -> None:
    # Not `assert`: python -O would turn the contracts off.
    if not holds:
        raise AssertionError(sentence)


def same_masks(left: Masks, right: Masks) -> bool:
    same = {name: given.keys() for name, given in left.items()} == {name: given.keys() for name, given in right.items()}
    return same and all(np.array_equal(mask, right[name][key]) for name, given in left.items() for key, mask in given.items())


def require_equal(found: tuple[Array, ...], expected: tuple[Array, ...], what: str) -> None:
    require(len(found) == len(expected), f"{what} are {len(found)} arrays, not {len(expected)}.")
    for left, right in zip(found, expected, strict=True):
        scale = float(np.abs(right).max(initial=1.0))
        require(left.shape == right.shape, f"{what} have shape {left.shape}, not {right.shape}.")
        require(float(np.abs(left - right).max(initial=0.0)) <= 1e-5 * scale, f"{what} differ by more than 1e-5 of their scale.")
