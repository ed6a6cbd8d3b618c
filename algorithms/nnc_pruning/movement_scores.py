"""The scores that movement learns, and the masks that they make: one for each row of a granule, block or element.

    hard    all but the lowest, so many as are due at the step
    soft    those whose sigmoid is above a threshold

The mask's gradient goes to the scores as if they were the mask: w * dL/dw, summed over what shares a score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnc.adapter import Ops
from nnc.errors import ConfigError
from nnc.graph.ir import Array
from nnc.objective import Objective, Seen
from nnc.views import Site, State, Variable, View
from nnc_schemas.learned import MovementSpec

#: The variable that counts the steps.
STEP = "step"


@dataclass(frozen=True)
class Part:
    """Scores of one group: which of them each row has (-1: none), or None where each element has its own, or each `block`.

    `shared` names them, so that all members of the group learn the same; `share` is a row's part of its granule's score.
    """

    shared: str
    rows: Array | None
    shape: tuple[int, ...]
    share: float
    block: tuple[int, int] | None = None


class Movement(View):
    """Shows a parameter times a mask of its scores' making; the mask's gradient goes to the scores as if they were the mask.

    `amount` is the fraction of each part's scores that is masked after `cool_down`.
    """

    name = "movement"

    def __init__(self, entry: MovementSpec, parts: tuple[Part, ...], amount: float) -> None:
        self.entry = entry
        self.parts = parts
        self.amount = amount
        self.group = f"movement scores at {entry.score_rate:g}"

    def variables(self) -> Mapping[str, Variable]:
        zeros = ((f"scores{index}", part, np.zeros(part.shape, np.float32)) for index, part in enumerate(self.parts))
        scores = {name: Variable(zero, True, self.group, f"movement of {part.shared}") for name, part, zero in zeros}
        return {**scores, STEP: Variable(np.zeros((), np.float32), shared="movement's step")}

    def __call__(self, x: Any, state: State, ops: Ops, training: bool) -> Any:
        for index, part in enumerate(self.parts):
            scores = state[f"scores{index}"]
            if part.rows is not None or part.block is not None:
                mask = ops.stop_gradient(ops.astype(self._keep(scores, part, state, ops), ops.float32) - scores) + scores
                x = x * _spread_mask(mask, part, x.shape, ops)
            elif self.entry.mode == "soft":
                x = _of_elements(x, scores, self._keep(scores, part, state, ops), ops)
            else:
                x = ops.only_highest(x, scores, self._leaving(part, state, ops))
        return x

    def _keep(self, scores: Any, part: Part, state: State, ops: Ops) -> Any:
        """Return True for what stays, False for what is masked, in the scores' shape."""
        scores = ops.stop_gradient(scores)
        if self.entry.mode == "soft":
            return ops.sigmoid(scores) > self.entry.threshold
        return ops.without_lowest(scores, self._leaving(part, state, ops))

    def _leaving(self, part: Part, state: State, ops: Ops) -> Any:
        """Return how many of a part's scores are masked at this step."""
        (count,) = ops.few(lambda ops, step: (self._due(step, int(np.prod(part.shape)), ops),), state[STEP])
        return ops.astype(count, ops.int32)

    def _due(self, step: Any, size: int, ops: Ops) -> Any:
        """Return how many of `size` are due at a step: amount * (1 - (1 - t)^3) between warm-up and cool-down (arXiv:1710.01878)."""
        length = max(1, self.entry.cool_down - self.entry.warm_up)
        left = 1.0 - ops.clip((step - self.entry.warm_up) / length, 0.0, 1.0)
        return ops.floor(self.amount * size * (1.0 - left * left * left) + 1e-6)

    def worth(self, scores: Array) -> Array:
        """Return what is compared: the scores, or their sigmoid."""
        given = scores.astype(np.float64)
        return 1 / (1 + np.exp(-given)) if self.entry.mode == "soft" else given

    def highest(self, scores: Array) -> Array:
        """Return which scores stay when training has ended, 1 or 0."""
        if self.entry.mode == "soft":
            return (self.worth(scores) > self.entry.threshold).astype(np.float64)
        stays = np.ones(scores.size)
        stays[np.argsort(scores, axis=None, kind="stable")[: int(self.amount * scores.size + 1e-6)]] = 0
        return stays.reshape(scores.shape)

    def spread(self, part: Part, numbers: Array, shape: tuple[int, ...]) -> Array:
        """Return one number for each score as a layer's granules have them."""
        if part.block is not None:
            rows, columns = _places(part.block, shape)
            return np.broadcast_to(numbers[np.ix_(rows, columns)].reshape(*shape[:2], *(1,) * (len(shape) - 2)), shape)
        if part.rows is None:
            return numbers
        return np.where(part.rows >= 0, numbers[part.rows], 0.0) * part.share


class Progress(Objective):
    """Counts the steps, on which the views' sparsity depends, and pulls soft scores down: regular_scale * mean of sigmoid(scores)."""

    name = "movement"

    def __init__(self, views: Mapping[Site, Movement]) -> None:
        self.clock = next(iter(views))
        self.soft: dict[str, tuple[Site, str, float]] = {}
        for site, view in views.items():
            for index, part in enumerate(view.parts if view.entry.mode == "soft" else ()):
                self.soft[part.shared] = (site, f"scores{index}", view.entry.regular_scale)

    def terms(self, seen: Seen, ops: Ops) -> Mapping[str, Any]:
        clock = seen.views[self.clock, Movement.name]
        clock.assign(STEP, clock[STEP] + 1.0)
        means = [ops.mean(ops.sigmoid(seen.views[site, Movement.name][name])) * scale for site, name, scale in self.soft.values()]
        return {"scores": sum(means[1:], means[0]) / len(means)} if means else {}


def _of_elements(x: Any, scores: Any, keep: Any, ops: Ops) -> Any:
    """Return a parameter without the elements that are masked; the scores get the gradient of a mask by which it was multiplied."""

    def forward(x: Any, _: Any) -> Any:
        return ops.only(x, keep), (x, keep)

    return ops.with_gradient(forward, lambda gradient, x, keep: (ops.only(gradient, keep), gradient * x), x, scores)


def _spread_mask(mask: Any, part: Part, shape: Any, ops: Ops) -> Any:
    """Return a mask over a part's scores so that it multiplies a parameter of `shape`."""
    if part.block is not None:
        return _of_blocks(mask, part.block, shape, ops)
    assert part.rows is not None
    return _of_rows(mask, part.rows, len(shape), ops)


def _of_rows(mask: Any, rows: Array, ndim: int, ops: Ops) -> Any:
    """Return a mask over granules as one over rows, shaped to multiply a parameter; rows without a granule have 1."""
    if np.array_equal(rows, np.arange(mask.shape[0])):
        return ops.reshape(mask, (len(rows), *(1,) * (ndim - 1)))
    one = ops.ones_like(mask[:1])
    index = ops.asarray(np.where(rows >= 0, rows, mask.shape[0]).astype(np.int32))
    return ops.reshape(ops.take(ops.concat([mask, one], axis=0), index, axis=0), (len(rows), *(1,) * (ndim - 1)))


def _of_blocks(mask: Any, block: tuple[int, int], shape: Any, ops: Ops) -> Any:
    """Return a mask over blocks as one over the weights `(out, in, *kernel)`; what the kernel holds of a place goes with it."""
    sizes = tuple(int(size) for size in shape)
    for axis, index in enumerate(_places(block, sizes)):
        mask = ops.take(mask, ops.asarray(index.astype(np.int32)), axis=axis)
    return ops.reshape(mask, (*sizes[:2], *(1,) * (len(sizes) - 2)))


def _places(block: tuple[int, int], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the block that each row, and each column, of a weight lies in."""
    return np.arange(shape[0]) // block[0], np.arange(shape[1]) // block[1]


def blocks(shape: tuple[int, ...], entry: MovementSpec, layer: str) -> tuple[int, int]:
    """Return how many blocks a weight has; those at its edges may be smaller. Raises `ConfigError` where it is smaller than one."""
    assert entry.block is not None
    if shape[0] < entry.block[0] or shape[1] < entry.block[1]:
        asked = f"blocks of {entry.block[0]} x {entry.block[1]}"
        raise ConfigError(f"{entry.place}.granularity: {asked} are larger than the weight of {layer!r}, {shape[0]} x {shape[1]}.")
    rows, columns = _places(entry.block, shape)
    return int(rows[-1]) + 1, int(columns[-1]) + 1
