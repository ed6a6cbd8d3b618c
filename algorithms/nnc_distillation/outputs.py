"""Methods that compare the models' outputs: each is a loss of soft_targets.py over the outputs that an entry names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from nnc.adapter import Ops
from nnc.errors import ConfigError
from nnc.views import Site
from nnc_distillation import soft_targets
from nnc_distillation.distiller import Comparing
from nnc_distillation.objective import Comparison, Loss
from nnc_distillation.rows import require_same_outputs
from nnc_distillation.sources import Side, SitePairs, Source, require_same_shapes
from nnc_schemas.distill import LogitsSpec, SoftTargetSpec


def output_pairs(student: Side, teacher: Side, spec: Any) -> SitePairs:
    """Return the outputs that an entry compares. Raises `ConfigError` where their shapes differ or their numbers do."""
    ours = student.parts(spec.outputs, f"{spec.place}.outputs")
    theirs = teacher.parts(spec.teacher_outputs or spec.outputs, f"{spec.place}.{'teacher_' * bool(spec.teacher_outputs)}outputs")
    if len(ours) != len(theirs):
        counts = f"the student has {len(ours)} ({_names(ours)}), the teacher {len(theirs)} ({_names(theirs)})"
        raise ConfigError(f"{spec.place}: outputs do not pair up: {counts}; name them with outputs and teacher_outputs.")
    pairs = list(zip(ours, theirs, strict=True))
    if student.runs:
        require_same_shapes(student, teacher, pairs, spec.place, "outputs need one shape: the same classes in the same order")
    return pairs


def _names(sites: Sequence[Site]) -> str:
    return ", ".join(map(str, sites))


def compared(pairs: Sequence[tuple[Site, Site]], loss: Loss, place: str, term: str = "outputs") -> list[Comparison]:
    """Return a comparison for each pair of outputs; those that no batch has shown before are looked at in training."""

    def checked(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
        require_same_outputs(s[0], t[0], place)
        return loss(s, t, mask, temperature, ops)

    return [Comparison(term, (Source(s),), (Source(t),), checked) for s, t in pairs]


class _SoftTargets(Comparing):
    spec = SoftTargetSpec
    function: ClassVar[Any]
    t2_scaling: ClassVar[bool] = True

    def comparisons(self, spec: SoftTargetSpec) -> list[Comparison]:
        function, scaled = type(self).function, self.t2_scaling if spec.t2_scaling is None else spec.t2_scaling

        def loss(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
            how = {"temperature": temperature, "t2_scaling": scaled, "reduction": spec.reduction, "binary": spec.binary}
            return function(s[0], t[0], ops, mask=mask, **how)

        return compared(output_pairs(self.student_side, self.teacher_side, spec), loss, spec.place)


class KL(_SoftTargets):
    """T^2 KL(teacher || student) of the outputs as probabilities, softened by a temperature. Hinton et al. 2015, arXiv:1503.02531."""

    name = "kl"
    function = staticmethod(soft_targets.kl)


class ReverseKL(_SoftTargets):
    """T^2 KL(student || teacher): the student keeps to what the teacher holds likely. Gu et al., ICLR 2024, arXiv:2306.08543."""

    name = "reverse_kl"
    function = staticmethod(soft_targets.reverse_kl)


class CELogits(_SoftTargets):
    """The cross-entropy of the student's outputs with the teacher's probabilities as labels; no T^2 unless t2_scaling says so."""

    name = "ce_logits"
    function = staticmethod(soft_targets.ce_logits)
    t2_scaling = False


class MSELogits(Comparing):
    """The mean square between the outputs as numbers: the soft target of a regression. Ba & Caruana 2014, arXiv:1312.6184."""

    name = "mse_logits"
    spec = LogitsSpec

    def comparisons(self, spec: LogitsSpec) -> list[Comparison]:
        return compared(output_pairs(self.student_side, self.teacher_side, spec), _mean_square, spec.place)


def _mean_square(s: Sequence[Any], t: Sequence[Any], mask: Any, temperature: Any, ops: Ops) -> Any:
    return soft_targets.mse_logits(s[0], t[0], ops, mask=mask)
