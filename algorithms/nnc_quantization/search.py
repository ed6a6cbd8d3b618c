"""Try observers and numbers of calibration batches, and keep what the model is best with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nnc.compress import compress
from nnc.errors import ConfigError, nearest
from nnc.trainer import Trainer
from nnc_quantization.observers import OBSERVERS

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Trial:
    """One try: an observer of activations, how many batches it saw, and the trainer's metric, the higher the better."""

    observer: str
    calib_steps: int
    metric: float


@dataclass(frozen=True)
class Search:
    """What `search` found: the trials, the best first (of equals the one tried first), and the config_list of the best."""

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


def search(
    model: Any,
    config_list: Sequence[Mapping[str, Any]],
    trainer: Trainer,
    example_inputs: Any = None,
    *,
    observers: Sequence[str] = ("minmax", "avg", "percentile", "mse", "kl"),
    calib_steps: Sequence[int] = (1, 4, 16),
) -> Search:
    """Quantise the model with each observer on each number of batches, and return what its metric became.

    The model is as it was afterwards. Raises `ConfigError` for an observer that is not known, and without `trainer.evaluate`.
    """
    for name in observers:
        if name not in OBSERVERS:
            raise ConfigError(f"observers: {name!r} is no observer{nearest(name, OBSERVERS)}. Known are {', '.join(OBSERVERS)}.")
    if trainer.metric is None:
        raise ConfigError("trainer: search() compares metrics; pass nnc.Trainer(..., evaluate=f), f(model) the higher the better.")
    if not observers or not calib_steps:
        raise ConfigError("search(): there is nothing to try; name observers and calib_steps.")
    before = _metric(trainer, model)
    trials = []
    for observer in observers:
        for steps in calib_steps:
            compressed = compress(model, _with(config_list, observer, steps), example_inputs, trainer=trainer)
            try:
                trials.append(Trial(observer, steps, _metric(trainer, compressed.model)))
            finally:
                compressed.unwrap()
    ranked = tuple(sorted(trials, key=lambda trial: -trial.metric))
    return Search(before, ranked, _with(config_list, ranked[0].observer, ranked[0].calib_steps))


def _with(config_list: Sequence[Mapping[str, Any]], observer: str, steps: int) -> list[Any]:
    """Return the entries with the observer of inputs and outputs set; what a weight's is stays."""
    found = []
    for entry in config_list:
        given = entry.get("observer")
        weights = {"weight": given["weight"]} if isinstance(given, Mapping) and "weight" in given else {}
        chosen = {"observer": {"input": observer, "output": observer, **weights}, "calib_steps": steps}
        found.append(dict(entry) if entry.get("exclude") else {**entry, **chosen})
    return found


def _metric(trainer: Trainer, model: Any) -> float:
    metric = trainer.evaluate(model)
    assert metric is not None
    return metric
