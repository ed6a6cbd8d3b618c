"""Run a recipe of stages, each on disk: what was killed goes on with the stage that it was in.

result = nnc.run(model, "bert.yaml", trainer=trainer, example_inputs=inputs, folder="runs/bert")

runs/bert/stages.json          the recipe, what else the run began with, and what each finished stage came to
runs/bert/attention            the model after the stage "attention", as nnc.save writes it
runs/bert/ffn.rounds           the rounds of a stage with a schedule (rounds.py)
runs/bert/small.onnx           the file of a stage with `export: small.onnx`
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from nnc.adapter import Adapter
from nnc.compress import compress, untouched
from nnc.errors import ConfigError, StorageError
from nnc.export import export
from nnc.heads import removed_heads
from nnc.instruments import detach, given_back, off
from nnc.recipe import read_file, spec_of
from nnc.registry import adapter_for
from nnc.rehearsal import check, lasting_as, scheduled
from nnc.rounds import require_trainer
from nnc.runs import difference
from nnc.storage import fingerprint, load, save
from nnc_schemas import SpecError, Stage, parse_stages

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nnc.export import ExportResult
    from nnc.trainer import Trainer

_INDEX = "stages.json"
#: What of a trainer tells one run from another: a stage says itself how long it trains.
_TRAINING = ("accumulate", "precision", "seed")


@dataclass(frozen=True)
class Finished:
    """What a stage came to: the metric (None without `evaluate`), the parameters that are left, seconds, a line for each layer that
    lost heads, and where random numbers of the trainer's data stood after it (`Trainer.data_state`)."""

    name: str
    metric: float | None
    parameters: int
    seconds: float
    heads: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Index:
    """What stages.json holds. `weights` are fingerprints of the model that was given: as the run began, and as the last stage left it."""

    recipe: list[Any]
    trainer: dict[str, Any]
    weights: list[str]
    finished: list[Finished] = field(default_factory=list)

    def write(self, path: Path) -> None:
        scratch = path.with_suffix(".part")
        scratch.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        os.replace(scratch, path)


@dataclass(frozen=True)
class RunResult:
    """The model after the last stage, and what each stage came to."""

    model: Any
    stages: tuple[Finished, ...]

    def __rich__(self) -> RenderableType:
        from nnc.tables import table

        rows = [
            (one.name, f"{one.parameters:,}", "" if one.metric is None else f"{one.metric:.4f}", f"{one.seconds:.0f}")
            for one in self.stages
        ]
        return table(None, ("stage", "parameters", "metric", "seconds"), rows)


def run(
    model: Any,
    recipe: Any,
    *,
    trainer: Trainer,
    example_inputs: Any,
    folder: str | PathLike[str],
    say: Any = print,
) -> RunResult:
    """Take a model through the stages of a recipe, a path or a list, and return the last stage's model.

    A second run on the same folder goes on after the last stage that was finished, or the last round of a stage with a schedule. `say`
    is called with each line of progress. After any exception the user's model is as it was.
    Raises `ConfigError` for a recipe that is wrong, in whichever stage, or a folder of another recipe or of another trainer's settings,
    before anything is trained. Warns of a folder whose finished stages began with other weights than the model's.
    """
    stages = _read(recipe)
    where = Path(folder)
    adapter = adapter_for(model)
    trainer = require_trainer(trainer).afresh(adapter)
    settings = {name: getattr(trainer, name) for name in _TRAINING}
    index = _resume(where, _Index(_described(stages), settings, [fingerprint(model)]))
    for number, stage in enumerate(stages[len(index.finished) :], len(index.finished)):
        check(f"stages[{number}]", stage, adapter.model, trainer, example_inputs)
    where.mkdir(parents=True, exist_ok=True)
    for done in index.finished:
        say(_line(done))
    with given_back(adapter):
        return _run(stages, index, adapter, trainer, example_inputs, where, say)


def _run(
    stages: Sequence[Stage], index: _Index, adapter: Adapter, trainer: Trainer, example_inputs: Any, where: Path, say: Any
) -> RunResult:
    """Do the stages that are not finished."""
    start, finished = adapter.model, index.finished
    model = load(where / finished[-1].name, model=untouched(adapter)) if finished else start
    if finished:
        trainer.set_data_state(model, finished[-1].data)
    for stage in stages[len(finished) :]:
        began = perf_counter()
        before = adapter_for(model).plans()
        model = _stage(stage, model, start, trainer, example_inputs, where, say)
        heads = tuple(line for plan in adapter_for(model).plans()[len(before) :] for line in removed_heads(plan))
        metric = trainer.evaluate(model)
        save(model, where / stage.name)
        off(adapter_for(model))  # grids are in the file; the next stage begins with the float model, as after a kill
        done = Finished(stage.name, metric, _parameters(adapter_for(model)), perf_counter() - began, heads, trainer.data_state(model))
        finished.append(done)
        index.weights[1:] = [fingerprint(start)]
        index.write(where / _INDEX)
        for line in (*heads, _line(done)):
            say(line)
    return RunResult(model, tuple(finished))


def _stage(stage: Stage, model: Any, start: Any, trainer: Trainer, example_inputs: Any, where: Path, say: Any) -> Any:
    """Do one stage and return its model, without objectives, and without views but those of quantizers; write its file."""
    lasting = lasting_as(stage, trainer)
    if stage.schedule is not None or not stage.config_list:
        if stage.schedule is not None:
            model = _in_rounds(stage, model, lasting, example_inputs, where)
        else:
            lasting.train(model, label=stage.name)
        if stage.export is not None:
            say(_written(stage, export(model, where / stage.export, example_inputs)))
        return model
    teacher = None
    if stage.teacher is not None:
        teacher = load(where / stage.teacher, model=untouched(adapter_for(start)))
    compressed = compress(model, list(stage.config_list), example_inputs, trainer=lasting, teacher=teacher)
    if stage.train is not None:
        lasting.train(model, label=stage.name)
    compressed.finish()
    if stage.speedup:
        compressed.speedup()
    if stage.calibrate:
        compressed.calibrate()
    if stage.export is not None:
        say(_written(stage, compressed.export(where / stage.export, force=True)))  # what was trained is not lost for a slow file
    return compressed.model


def _written(stage: Stage, file: ExportResult) -> str:
    """Return the line that says what the stage's file is."""
    said = f"{stage.name}: {file.path.name}, {file.bytes / 1e6:.2f} MB"
    if file.latency is not None and file.float_bytes is not None:
        said += f", {file.bytes / file.float_bytes:.2f} of float, {file.latency.before / file.latency.after:.2f}x as fast in ONNX Runtime"
    return said


def _in_rounds(stage: Stage, model: Any, trainer: Trainer, example_inputs: Any, where: Path) -> Any:
    small, _ = scheduled(stage, model, trainer, example_inputs, where / f"{stage.name}.rounds").compress()
    if stage.speedup:
        detach(adapter_for(small))
    return small


def _read(recipe: Any) -> tuple[Stage, ...]:
    try:
        if isinstance(recipe, (str, PathLike)):
            return parse_stages(read_file(Path(recipe)), str(recipe), spec_of)
        return parse_stages(recipe, spec_of=spec_of)
    except SpecError as error:
        raise ConfigError(str(error)) from None


def _described(stages: Iterable[Stage]) -> list[Any]:
    return [json.loads(stage.model_dump_json(exclude_none=True)) for stage in stages]


def _as_of_now(recipe: list[Any]) -> list[Any]:
    """Return a recipe as it would be written down today: with the defaults of keys that it is too old to have."""
    try:
        return _described(_read(recipe))
    except ConfigError:
        return recipe


def _resume(where: Path, index: _Index) -> _Index:
    """Return what is known of a run in a folder, or `index` where there is none. Raises `ConfigError` where it is another run."""
    if where.exists() and not where.is_dir():
        raise ConfigError(f"folder: {where} is a file; the stages need a folder.")
    if not (where / _INDEX).is_file():
        return index
    known = _known(where / _INDEX, index)
    earlier = _as_of_now(known.recipe)[: len(known.finished)]
    if earlier != index.recipe[: len(earlier)]:
        other = next(number for number, stage in enumerate(earlier) if [stage] != index.recipe[number : number + 1])
        raise ConfigError(f"folder: {where} holds a run whose stages[{other}] is another one; choose another folder, or the first recipe.")
    if known.finished and known.trainer != index.trainer:
        found = f"folder: {where} holds a run with {difference('trainer', known.trainer, index.trainer)}"
        raise ConfigError(f"{found}; choose another folder, or give the trainer what it began with.")
    if known.finished and index.weights[0] not in known.weights:
        stands = f"what {known.finished[-1].name!r} came to is gone on with. Another folder begins again"
        warnings.warn(f"folder: {where} holds a run that began with other weights than the model has; {stands}.", UserWarning, stacklevel=3)
    return replace(index, weights=known.weights, finished=known.finished)


def _known(path: Path, index: _Index) -> _Index:
    """Return what is written of a run; what it is too old to have is as in `index`."""
    try:
        known = json.loads(path.read_text("utf-8"))
        finished = [Finished(**{**one, "heads": tuple(one["heads"])}) for one in known["finished"]]
        return _Index(known["recipe"], known.get("trainer", index.trainer), known.get("weights", index.weights), finished)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"{path}: the run cannot be read: {error!r}.") from None


def _parameters(adapter: Adapter) -> int:
    return sum(int(array.size) for array in adapter.tensors().values())


def _line(done: Finished) -> str:
    metric = "" if done.metric is None else f", metric {done.metric:.4f}"
    return f"{done.name}: {done.parameters:,} parameters{metric}, {done.seconds:.0f} s"
