"""A term of the loss beside the user's own: what distillation and regularisers add to training.

    total = task_weight * loss + sum(terms)

    soft targets (Hinton 2015)    T^2 * KL(teacher || student) over the outputs     reads the teacher
    network slimming              1e-4 * sum |gamma|                                reads parameters
    MiniLM                        KL of attention and value relations               reads taps of both

An objective names the tensors that it reads (`Site`), of the student and of the teacher, and is written once over `Ops`. The adapter
taps them in the forward pass that the user runs anyway; the teacher runs on the same inputs, in inference mode and without gradients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nnc.views import Site, State, Variable

if TYPE_CHECKING:
    from nnc.adapter import Ops


@dataclass(frozen=True)
class Seen:
    """What one forward pass showed: the framework's tensors by site, in the framework's own layouts.

    Parameters are as stored, in the canonical shape, with gradients. `state` holds the objective's own variables, `views` the
    variables of the model's views by (site, view name). `mask` is what the user gave with the loss: 1 or True at valid tokens,
    `(batch, length)`, or None.
    """

    student: Mapping[Site, Any]
    teacher: Mapping[Site, Any]
    state: State
    views: Mapping[tuple[Site, str], State] = field(default_factory=dict)
    mask: Any = None


class Objective(ABC):
    """Adds terms to the loss of every training step.

    `name` is unique among a model's objectives. `student` and `teacher` are the sites that it reads; one that reads no teacher
    needs none. `task_weight` is the factor of the user's own loss; those of several objectives multiply.
    """

    name: str
    student: Sequence[Site] = ()
    teacher: Sequence[Site] = ()
    task_weight: float = 1.0

    def variables(self) -> Mapping[str, Variable]:
        """Return variables of the objective's own, such as projections; they are trained with it and never exported."""
        return {}

    @abstractmethod
    def terms(self, seen: Seen, ops: Ops) -> Mapping[str, Any]:
        """Return the weighted terms, each a scalar tensor, by name. Must not depend on Python state: it runs in compiled steps."""
