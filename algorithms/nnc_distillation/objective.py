"""One entry of a config_list as a term of the loss: comparisons of student and teacher, weighed and added.

    entry = weight * sum over comparisons of loss(P source_s, source_t)

A projection P is trained beside the student, in the group "projection", and belongs to the objective: it is never exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from nnc.adapter import Ops
from nnc.objective import Objective, Seen
from nnc.views import Site, State, Variable
from nnc_distillation import hidden
from nnc_distillation.rows import valid_tokens
from nnc_distillation.sources import Source

PROJECTION = "projection"
#: (student's tensors, teacher's, mask, temperature, ops) -> scalar.
Loss = Callable[[Sequence[Any], Sequence[Any], Any, Any, Ops], Any]


@dataclass(frozen=True)
class Projection:
    """A linear layer from the student's width to the teacher's; comparisons with one `name` share it."""

    name: str
    student: int
    teacher: int

    def variables(self, seed: int) -> Mapping[str, Variable]:
        """Return its first values: uniform within 1 / sqrt(in) as frameworks' own linear layers, and no bias."""
        bound = 1 / sqrt(self.student)
        matrix = np.random.default_rng([seed, self.student, self.teacher]).uniform(-bound, bound, (self.teacher, self.student))
        return {
            f"{self.name}_weight": Variable(matrix.astype(np.float32), trainable=True, group=PROJECTION),
            f"{self.name}_bias": Variable(np.zeros(self.teacher, np.float32), trainable=True, group=PROJECTION),
        }

    def __call__(self, x: Any, state: State, ops: Ops) -> Any:
        return hidden.projected(x, state[f"{self.name}_weight"], state[f"{self.name}_bias"], ops)


@dataclass(frozen=True)
class Comparison:
    """Tensors of the student beside those of the teacher, and the loss between them; `term` is what it is reported under.

    The student's tokens lie on axis `tokens`, where its tensors have three axes or more.
    """

    term: str
    student: tuple[Source, ...]
    teacher: tuple[Source, ...]
    loss: Loss
    projection: Projection | None = None
    tokens: int = 1


@dataclass(frozen=True)
class Temperature:
    """T, or one that falls: T_e = max(1, start - e) in epoch e of so many steps."""

    start: float
    steps_per_epoch: float | None = None

    def variables(self) -> Mapping[str, Variable]:
        return {} if self.steps_per_epoch is None else {"step": Variable(np.zeros((), np.float32))}

    def now(self, state: State, ops: Ops) -> Any:
        """Return the temperature of this training step, and count the step."""
        if self.steps_per_epoch is None:
            return self.start
        step = state["step"]
        state.assign("step", step + 1)
        return annealed(self.start, ops.floor(step / self.steps_per_epoch), ops)


def annealed(start: float, epoch: Any, ops: Ops) -> Any:
    """Return max(1, start - epoch): the temperature falls by 1 in each epoch."""
    left = start - epoch
    return ops.maximum(left, ops.ones_like(left))


class Distillation(Objective):
    """The terms of one entry. `mask` is the model's own input that says which tokens are valid, for users who give none with the loss."""

    def __init__(
        self,
        name: str,
        comparisons: Sequence[Comparison],
        *,
        weight: float = 1.0,
        task_weight: float = 1.0,
        temperature: Temperature | None = None,
        mask: Site | None = None,
        seed: int = 0,
    ) -> None:
        self.name = name
        self.comparisons = tuple(comparisons)
        self.weight, self.task_weight = weight, task_weight
        self.temperature = temperature or Temperature(1.0)
        self.seed = seed
        self.mask = mask
        self.student = (*_sites(source for each in self.comparisons for source in each.student), *([mask] if mask else []))
        self.teacher = _sites(source for each in self.comparisons for source in each.teacher)

    def variables(self) -> Mapping[str, Variable]:
        found = dict(self.temperature.variables())
        for number, projection in enumerate(dict.fromkeys(each.projection for each in self.comparisons if each.projection)):
            found.update(projection.variables(self.seed + number))
        return found

    def terms(self, seen: Seen, ops: Ops) -> Mapping[str, Any]:
        temperature = self.temperature.now(seen.state, ops)
        mask = seen.mask if seen.mask is not None or self.mask is None else seen.student[self.mask]
        found: dict[str, Any] = {}
        for each in self.comparisons:
            student = [source.read(seen.student, ops) for source in each.student]
            teacher = [source.read(seen.teacher, ops) for source in each.teacher]
            if each.projection is not None:
                student = [each.projection(x, seen.state, ops) for x in student]
            value = each.loss(student, teacher, valid_tokens(mask, student[0], each.tokens, ops), temperature, ops)
            found[each.term] = found[each.term] + value if each.term in found else value
        return {term: self.weight * value for term, value in found.items()}


def _sites(sources: Any) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(source.site for source in sources))
