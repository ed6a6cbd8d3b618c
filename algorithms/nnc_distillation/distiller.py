"""What all methods of distillation share: both models are looked at once, each entry becomes an objective."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from nnc.adapter import Adapter
from nnc.algorithm import Distiller
from nnc.errors import ConfigError, ModelError
from nnc.registry import adapter_for
from nnc.views import Learning
from nnc_distillation.objective import PROJECTION, Comparison, Distillation, Temperature
from nnc_distillation.sources import Side
from nnc_schemas.distill import AnnealedSpec, DistillSpec

_RATE = 1e-3


class Comparing(Distiller):
    """A method that compares tensors of the student with tensors of the teacher. Subclasses say which, and how."""

    spec = DistillSpec

    def __init__(self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, *, teacher: Any, **options: Any) -> None:
        super().__init__(model, config_list, example_inputs, teacher=teacher, **options)
        other = _adapter_of(teacher)
        if other.framework != self.adapter.framework:
            both = f"a {other.framework} model, and the student one of {self.adapter.framework}"
            raise ConfigError(f"teacher: it is {both}; both run on the same batch, so they need one framework.")
        batch = self._batch()
        self.student_side = Side("student", self.adapter, batch)
        self.teacher_side = Side("teacher", other, batch)
        specs = [spec for spec in self.specs if not spec.exclude]
        names = [self.name if len(specs) == 1 else f"{self.name}_{number}" for number in range(1, len(specs) + 1)]
        self._objectives = [self._objective(name, spec) for name, spec in zip(names, specs, strict=True)]
        self._learning = _learning(specs) if any(each.variables() for each in self._objectives) else {}

    @abstractmethod
    def comparisons(self, spec: Any) -> Sequence[Comparison]:
        """Return what one entry compares. Raises `ConfigError` that begins with `spec.place` where the models do not fit."""

    def objectives(self) -> Sequence[Distillation]:
        return self._objectives

    def learning(self) -> Mapping[str, Learning]:
        return self._learning

    def _objective(self, name: str, spec: Any) -> Distillation:
        return Distillation(
            name,
            self.comparisons(spec),
            weight=spec.weight,
            task_weight=spec.task_weight,
            temperature=_temperature(spec),
            mask=self.student_side.mask_of(spec.mask, spec.place),
            seed=self.seed,
        )

    def _batch(self) -> Any:
        """Return what both models can be run on: the example inputs, or a batch of the trainer's."""
        if self.example_inputs is not None or self.trainer is None:
            return self.example_inputs
        batch = next(self.trainer.batches(), None)
        return batch[0] if isinstance(batch, tuple | list) and len(batch) >= 2 else batch


def _adapter_of(teacher: Any) -> Adapter:
    """Return a teacher's adapter. Raises `ModelError` that says of the teacher what is wrong with it."""
    try:
        return adapter_for(teacher)
    except ModelError as error:
        raise ModelError(f"teacher: {error}") from None


def _temperature(spec: Any) -> Temperature:
    if isinstance(spec, AnnealedSpec) and spec.annealing_T is not None:
        return Temperature(spec.annealing_T, spec.steps_per_epoch)
    return Temperature(getattr(spec, "temperature", 1.0))


def _learning(specs: Sequence[Any]) -> dict[str, Learning]:
    """Return how the projections learn, which is one rate for all of them."""
    given = [(spec.place, spec.projection_lr) for spec in specs if getattr(spec, "projection_lr", None) is not None]
    if len({rate for _, rate in given}) > 1:
        rates = f"{given[-1][1]} and {given[0][1]} contradict each other: all projections are one group"
        raise ConfigError(f"{given[-1][0]}.projection_lr: {rates}.")
    return {PROJECTION: Learning(given[0][1] if given else _RATE)}
