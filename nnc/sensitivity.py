"""Which layer minds most: each is compressed alone, and the model is measured each time.

    nothing compressed     0.982
    conv1 alone            0.979
    fc2 alone              0.911     <- skip it, or give it more bits

One layer at a time sees no layers that mind each other's errors, but it costs only one measurement a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnc.arrays import to_numpy
from nnc.compress import compress
from nnc.errors import ConfigError
from nnc.progress import bar
from nnc.registry import adapter_for

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nnc.trainer import Trainer


@dataclass(frozen=True)
class Sensitivity:
    """What the model loses by each layer alone, the worst first.

    `measure` is "metric", the trainer's own, the higher the better, or "loss". `values` are the measured ones by layer; `config_list`
    is the one that was given.
    """

    measure: str
    before: float
    values: Mapping[str, float]
    config_list: tuple[Any, ...]

    @property
    def lost(self) -> dict[str, float]:
        """What each layer costs, the worst first: how much the metric falls, or the loss rises."""
        sign = -1.0 if self.measure == "metric" else 1.0
        costs = {layer: sign * (value - self.before) for layer, value in self.values.items()}
        return dict(sorted(costs.items(), key=lambda item: -item[1]))

    def worst(self, count: int) -> tuple[str, ...]:
        """Return the layers that cost most."""
        return tuple(islice(self.lost, count))

    def skipping(self, count: int = 1) -> list[Any]:
        """Return the config_list that leaves the worst layers alone."""
        return [*deepcopy(list(self.config_list)), {"exclude": True, "op_names": list(self.worst(count))}]

    def raising(self, count: int = 1, bits: int = 8) -> list[Any]:
        """Return the config_list that gives the worst layers `bits`, each by the entry that holds for all."""
        entries = [entry for entry in self.config_list if not entry.get("exclude")]
        if len(entries) != 1:
            raise ConfigError(f"raising(): {len(entries)} entries quantise, and bits are raised in one; use skipping().")
        kept = {key: value for key, value in entries[0].items() if key not in _SELECTS and key != "int4_layers"}
        return [*deepcopy(list(self.config_list)), {**deepcopy(kept), "op_names": list(self.worst(count)), "quant_bits": bits}]

    def write(self, path: str | PathLike[str], config_list: Sequence[Any]) -> None:
        """Write a config_list as a recipe in YAML."""
        import yaml

        Path(path).write_text(yaml.safe_dump({"config_list": list(config_list)}, sort_keys=False), "utf-8")

    def draw(self, path: str | PathLike[str]) -> None:
        """Draw a bar for each layer, and write the picture. Raises `ConfigError` without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ConfigError("draw(): needs matplotlib; pip install matplotlib.") from None
        lost = dict(reversed(self.lost.items()))
        figure = Figure(figsize=(8, 1 + 0.3 * len(lost)), layout="constrained")
        axes = figure.subplots()
        axes.barh(list(lost), list(lost.values()))
        axes.set_xlabel("fall of the metric" if self.measure == "metric" else "rise of the loss")
        figure.savefig(path)

    def __rich__(self) -> RenderableType:
        from nnc.tables import table

        rows = [(layer, f"{self.values[layer]:.4f}", f"{cost:+.4f}") for layer, cost in self.lost.items()]
        return table(f"each layer alone; before: {self.before:.4f}", ("layer", self.measure, "lost"), rows)

    def __str__(self) -> str:
        from nnc.tables import as_text

        return as_text(self)


_SELECTS = {"op_types", "op_names", "op_partial_names", "op_names_re", "exclude_op_names"}


def sensitivity(
    model: Any, config_list: Sequence[Mapping[str, Any]], trainer: Trainer, example_inputs: Any = None, *, batches: int = 8
) -> Sensitivity:
    """Compress each layer that `config_list` selects alone, and return what the model loses.

    Without `trainer.evaluate` it is the mean loss of the first `batches`. The model is as it was afterwards. Nothing is trained, so
    algorithms that learn are measured as they begin. Raises what `nnc.compress` raises.
    """
    entries = [dict(entry) for entry in config_list]
    whole = compress(model, entries, example_inputs, trainer=trainer)
    names = list(dict.fromkeys(name for one in whole.algorithms for name in getattr(one, "layers", {})))
    whole.unwrap()
    measure = "loss" if trainer.metric is None else "metric"
    before = _measured(whole.original, trainer, batches)
    values = {}
    with bar("sensitivity", len(names), trainer.progress) as show:
        for done, name in enumerate(names):
            show(done, name)
            others = [other for other in names if other != name]
            alone = [*deepcopy(entries), *([{"exclude": True, "op_names": others}] if others else [])]
            compressed = compress(model, alone, example_inputs, trainer=trainer)
            try:
                values[name] = _measured(compressed.model, trainer, batches)
            finally:
                compressed.unwrap()
    return Sensitivity(measure, before, values, tuple(entries))


def judge(inputs: Any, labels: Any) -> Trainer:
    """Return a trainer, for measuring only, whose one batch are the inputs and whose metric is the accuracy on them."""
    from nnc.trainer import Trainer

    def accuracy(model: Any) -> float:
        return float((adapter_for(model).run(inputs)[0].argmax(axis=-1) == labels).mean())

    return Trainer([(inputs, labels)], evaluate=accuracy)


def _measured(model: Any, trainer: Trainer, batches: int) -> float:
    metric = trainer.evaluate(model)
    if metric is not None:
        return metric
    losses = [float(to_numpy(trainer.batch_loss(model, batch))) for batch in islice(trainer.batches(), batches)]
    if not losses:
        raise ConfigError("Trainer.data: has no batches, and sensitivity measures the loss on them.")
    return sum(losses) / len(losses)
