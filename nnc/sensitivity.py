"""Which layer minds most: each is compressed alone, and the model is measured each time.

    nothing compressed     0.982
    conv1 alone            0.979
    fc2 alone              0.911     <- skip it, or give it more bits

One layer at a time sees no layers that mind each other's errors, but it costs only one measurement a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnc.arrays import to_numpy
from nnc.compress import compress
from nnc.entries import DEFAULT
from nnc.errors import ConfigError
from nnc.files import check_writable, writing
from nnc.labels import checked_labels, right_answers
from nnc.progress import bar
from nnc.recipe import entries_of, read_recipe
from nnc.registry import adapter_for, algorithm
from nnc_schemas.quantize import QuantSpec

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nnc.trainer import Trainer


@dataclass(frozen=True)
class Sensitivity:
    """What the model loses by each layer alone, the worst first.

    `measure` is "metric", the trainer's own, the higher the better, or "loss". `values` are the measured ones by layer; `config_list`
    is the one that was given. `left_out` are the layers of which alone nothing can be compressed, each with the reason.
    """

    measure: str
    before: float
    values: Mapping[str, float]
    config_list: tuple[Any, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> dict[str, float]:
        """What each layer costs, the worst first: how much the metric falls, or the loss rises."""
        sign = -1.0 if self.measure == "metric" else 1.0
        costs = {layer: sign * (value - self.before) + 0.0 for layer, value in self.values.items()}
        return dict(sorted(costs.items(), key=lambda item: -item[1]))

    def worst(self, count: int) -> tuple[str, ...]:
        """Return the layers that cost most."""
        return tuple(islice(self.lost, count))

    def skipping(self, count: int = 1) -> list[Any]:
        """Return the config_list that leaves the worst layers alone."""
        worst = self._named("skipping", count)
        return [*deepcopy(list(self.config_list)), *([{"exclude": True, "op_names": worst}] if worst else [])]

    def raising(self, count: int = 1, bits: int = 8) -> list[Any]:
        """Return the config_list that gives the worst layers `bits`, each by the entry that holds for all."""
        worst = self._named("raising", count)
        raised = {**_without_bits(quantising(self.config_list)), "op_names": worst, "quant_bits": bits}
        return [*deepcopy(list(self.config_list)), *([raised] if worst else [])]

    def _named(self, verb: str, count: int) -> list[str]:
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ConfigError(f"{verb}(): {count!r} is no number of layers.")
        return list(self.worst(count))

    def write(self, path: str | PathLike[str], config_list: Sequence[Any]) -> None:
        """Write a config_list as a recipe in YAML. Raises `StorageError` where that cannot be."""
        import yaml

        with writing(path):
            Path(path).write_text(yaml.safe_dump({"config_list": list(config_list)}, sort_keys=False), "utf-8")

    def draw(self, path: str | PathLike[str]) -> None:
        """Draw a bar for each layer, and write the picture. Raises `ConfigError` without matplotlib, or for a kind that it cannot write."""
        check_picture(path, "draw()")
        from matplotlib.figure import Figure

        lost = dict(reversed(self.lost.items()))
        figure = Figure(figsize=(8, 1 + 0.3 * len(lost)), layout="constrained")
        axes = figure.subplots()
        axes.barh(list(lost), list(lost.values()))
        axes.set_xlabel("fall of the metric" if self.measure == "metric" else "rise of the loss")
        with writing(path):
            figure.savefig(path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"measure": self.measure, "before": self.before, "values": dict(self.values), "left_out": dict(self.left_out)}

    def __rich__(self) -> RenderableType:
        from nnc.tables import table

        rows = [(layer, f"{self.values[layer]:.4f}", f"{cost:+.4f}") for layer, cost in self.lost.items()]
        rows += [(layer, "left out", "") for layer in self.left_out]
        return table(f"each layer alone; before: {self.before:.4f}", ("layer", self.measure, "lost"), rows)

    def __str__(self) -> str:
        from nnc.tables import as_text

        return as_text(self)


_SELECTS = {"op_types", "op_names", "op_partial_names", "op_names_re", "exclude_op_names", "exclude_op_names_re", "exclude_op_types"}


def quantising(config_list: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the entry in which bits can be raised. Raises `ConfigError` unless one, and no other, quantises."""
    entries = [entry for entry in config_list if not entry.get("exclude") and _quantises(entry)]
    if len(entries) != 1:
        raise ConfigError(f"raising(): {len(entries)} entries quantise, and bits are raised in one; use skipping().")
    return entries[0]


def _quantises(entry: Mapping[str, Any]) -> bool:
    return algorithm(str(entry.get("algorithm", DEFAULT)), "config_list").kind == "quantize"


def _without_bits(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an entry says besides layers and bits, in any spelling."""
    kept = {key: deepcopy(value) for key, value in entry.items() if key not in _SELECTS | {"int4_layers", "quant_dtype", "quant_bits"}}
    targets = kept.pop("target_settings", {})
    left = {name: {key: value for key, value in setting.items() if key != "quant_dtype"} for name, setting in targets.items()}
    left = {name: setting for name, setting in left.items() if setting}
    (spec,) = read_recipe([entry]).config_list
    named = entry.keys() & {"quant_types", "target_names"}
    if isinstance(spec, QuantSpec) and not named and {"output", "bias"} & set(spec.tensors):
        kept["quant_types"] = list(spec.tensors)  # the settings that go said so
    return {**kept, "target_settings": left} if left else kept


def sensitivity(model: Any, config_list: Any, trainer: Trainer, example_inputs: Any = None, *, batches: int = 8) -> Sensitivity:
    """Compress each layer that `config_list` selects alone, and return what the model loses.

    The config_list may be written as for `nnc.compress`. Without `trainer.evaluate` it is the mean loss of the first `batches`. The model
    is as it was afterwards. Nothing is trained, so algorithms that learn are measured as they begin. A layer of which nothing can leave,
    as a model's output, is left out. Raises what `nnc.compress` raises.
    """
    from nnc.trainer import Trainer

    if not isinstance(trainer, Trainer):
        raise ConfigError(f"trainer: {trainer!r} measures nothing; pass nnc.Trainer(data, loss), or one with evaluate=.")
    entries = entries_of(config_list)
    whole = compress(model, entries, example_inputs, trainer=trainer)
    names = list(dict.fromkeys(name for one in whole.algorithms for name in getattr(one, "layers", {})))
    prunes = any(one.kind == "prune" for one in whole.algorithms)
    whole.unwrap()
    before = _measured(whole.original, trainer, batches)
    values: dict[str, float] = {}
    left_out: dict[str, str] = {}
    with bar("sensitivity", len(names), trainer.progress) as show:
        for done, name in enumerate(names):
            show(done, name)
            try:
                compressed = compress(model, _only(name, names, entries), example_inputs, trainer=trainer)
            except ConfigError as error:
                # All layers together were accepted: what is told of this one alone is that nothing of it can leave.
                if not prunes:
                    raise
                left_out[name] = str(error)
                continue
            try:
                values[name] = _measured(compressed.model, trainer, batches)
            finally:
                compressed.unwrap()
    if not values:
        raise ConfigError(f"sensitivity(): no layer can be compressed alone: {next(iter(left_out.values()), 'none is selected')}")
    return Sensitivity("loss" if trainer.metric is None else "metric", before, values, tuple(entries), left_out)


def _only(name: str, names: Sequence[str], entries: Sequence[Any]) -> list[Any]:
    """Return the entries with all layers but one left alone."""
    others = [other for other in names if other != name]
    return [*deepcopy(list(entries)), *([{"exclude": True, "op_names": others}] if others else [])]


def judge(inputs: Any, labels: Any) -> Trainer:
    """Return a trainer, for measuring only, whose one batch are the inputs and whose metric is the accuracy on them.

    Raises `ConfigError` for labels that are not one class for each sample.
    """
    from nnc.trainer import Trainer

    arrays = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else (inputs,)
    classes = checked_labels(labels, [len(array) for array in arrays])

    def accuracy(model: Any) -> float:
        return right_answers(adapter_for(model).run(inputs)[0], classes) / len(classes)

    return Trainer([(inputs, classes)], evaluate=accuracy)


def check_picture(path: str | PathLike[str], place: str) -> None:
    """Raise `ConfigError` where no picture can be drawn at `path`."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise ConfigError(f"{place}: needs matplotlib; pip install matplotlib.") from None
    check_writable(path, place, [f".{kind}" for kind in FigureCanvasBase.get_supported_filetypes()])


def _measured(model: Any, trainer: Trainer, batches: int) -> float:
    metric = trainer.evaluate(model)
    if metric is not None:
        return metric
    losses = [float(to_numpy(trainer.batch_loss(model, batch))) for batch in islice(trainer.batches(), batches)]
    if not losses:
        raise ConfigError("Trainer.data: has no batches, and sensitivity measures the loss on them.")
    return sum(losses) / len(losses)
