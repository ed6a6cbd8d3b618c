"""Try a rule: remove random indices that it says may leave, and see whether the operation commutes with that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nnc.graph.axes import Axes
from nnc.graph.ir import Array, Node, Tensor
from nnc.graph.labels import solve
from nnc.graph.rules import Rule


def check_rule(
    rule: Rule, compute: Callable[..., Array], shapes: Sequence[Sequence[int]], attrs: Mapping[str, Any] | None = None, rounds: int = 50
) -> None:
    """Run an operation on random arrays of `shapes`, whole and without random indices that `rule` lets leave.

    `compute(*arrays)` is the operation in NumPy. The result on the smaller arrays must be the full result without the same
    indices. Raises AssertionError that names the indices where it is not.
    """
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape) for shape in shapes]
    whole = np.asarray(compute(*arrays))
    inputs = tuple(Tensor(tuple(shape)) for shape in shapes)
    output, axes = Tensor(whole.shape), Axes()
    rule(Node("unknown", inputs, (output,), attrs or {}), axes)
    named = [axes[tensor] for tensor in (*inputs, output)]
    labels = solve(axes)
    for _ in range(rounds):
        dead = ~labels.pinned & (random.random(len(labels.pin)) < random.random())
        keeps = [[labels.keep(axis, dead) for axis in of] for of in named]
        if all(keep.any() for of in keeps for keep in of):
            _compare(compute, arrays, whole, keeps)


def _compare(compute: Callable[..., Array], arrays: Sequence[Array], whole: Array, keeps: Sequence[Sequence[Array]]) -> None:
    gone = [[np.flatnonzero(~keep).tolist() for keep in of] for of in keeps]
    expected = _taken(whole, keeps[-1])
    try:
        small = np.asarray(compute(*(_taken(array, keep) for array, keep in zip(arrays, keeps, strict=False))))
    except Exception as error:
        raise AssertionError(f"without the indices {gone[:-1]} of its inputs the operation fails: {error}") from error
    if small.shape != expected.shape:
        raise AssertionError(f"without the indices {gone[:-1]} of its inputs the result has shape {small.shape}, not {expected.shape}.")
    if not np.allclose(small, expected):
        raise AssertionError(f"without the indices {gone[:-1]} of its inputs the result is not the whole one without {gone[-1]}.")


def _taken(array: Array, keeps: Sequence[Array]) -> Array:
    return array[np.ix_(*keeps)] if keeps else array
