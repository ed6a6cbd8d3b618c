"""Try observers and numbers of calibration batches, and keep what the model is best with.

{"algorithm": "ptq", "search": true}        PTQQuantizer runs the trials, and goes on with the best
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from nnc.errors import ConfigError, nearest
from nnc.progress import bar
from nnc_quantization.observers import OBSERVERS
from nnc_schemas.quantize import PTQSpec, SearchRange

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nnc.trainer import Trainer


@dataclass(frozen=True)
class Trial:
    """One try: an observer of activations, how many batches it saw, and the trainer's metric, the higher the better."""

    observer: str
    calib_steps: int
    metric: float


@dataclass(frozen=True)
class Search:
    """What a search found: the trials, the best first (of equals the one tried first), and the config_list of the best.

    `before` is the metric of the model that was quantised, in float.
    """

    before: float
    trials: tuple[Trial, ...]
    config_list: list[Any]

    @property
    def best(self) -> Trial:
        return self.trials[0]

    def __rich__(self) -> RenderableType:
        from nnc.tables import table

        rows = [(one.observer, str(one.calib_steps), f"{one.metric:.4f}") for one in self.trials]
        return table(f"float: {self.before:.4f}", ("observer", "batches", "metric"), rows)

    def __str__(self) -> str:
        from nnc.tables import as_text

        return as_text(self)


def asked(specs: Sequence[PTQSpec], trainer: Trainer | None) -> SearchRange | None:
    """Return what the entries want to be tried, None where they name their observers. Raises `ConfigError` for what cannot be."""
    wanting = [spec for spec in specs if not spec.exclude and spec.search is not None]
    if not wanting:
        return None
    place, tries = f"{wanting[0].place}.search", wanting[0].search
    assert tries is not None
    for name in tries.observers:
        if name not in OBSERVERS:
            raise ConfigError(f"{place}.observers: {name!r} is no observer{nearest(name, OBSERVERS)}. Known are {', '.join(OBSERVERS)}.")
    other = next((spec for spec in wanting if spec.search != tries), None)
    if other is not None:
        raise ConfigError(f"{other.place}.search: is not what {place} is; all entries are searched together, so give them one range.")
    if trainer is None or trainer.metric is None:
        raise ConfigError(f"{place}: compares metrics; pass trainer=nnc.Trainer(..., evaluate=f), f(model) the higher the better.")
    return tries


def ranked(tries: SearchRange, metric: Callable[[str, int], float], progress: bool) -> tuple[Trial, ...]:
    """Return a trial for each observer and number of batches, the best first; `metric` quantises the model so, and measures it."""
    pairs = list(product(tries.observers, tries.calib_steps))
    trials = []
    with bar("search", len(pairs), progress) as show:
        for done, (observer, steps) in enumerate(pairs):
            show(done, f"{observer}, {steps}")
            trials.append(Trial(observer, steps, metric(observer, steps)))
    return tuple(sorted(trials, key=lambda trial: -trial.metric))


def settings(tensors: Sequence[str], given: Any, observer: str, steps: int) -> dict[str, Any]:
    """Return an entry's keys with which its inputs and outputs are observed so; `given` is its observer, of which a weight's stays."""
    observers = {tensor: observer for tensor in tensors if tensor in ("input", "output")}
    weights = {"weight": given["weight"]} if isinstance(given, Mapping) and "weight" in given else {}
    return {"observer": observers | weights, "calib_steps": steps}
