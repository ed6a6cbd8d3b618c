"""The course of a run that is on disk: parameters left against metric, round by round or stage by stage.

runs/agp/rounds.json      a scheduled run (rounds.py)
runs/bert/stages.json     a recipe of stages (stages.py)
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnc.errors import ConfigError, StorageError
from nnc.runs import read_rounds

if TYPE_CHECKING:
    from rich.console import RenderableType

_STAGES = "stages.json"
_RUN = "run.json"


@dataclass(frozen=True)
class Point:
    """What one round or stage came to; `metric` is None without `evaluate`, `sparsity` None for a stage."""

    name: str
    parameters: int
    metric: float | None
    seconds: float
    sparsity: float | None = None


@dataclass(frozen=True)
class Run:
    """A run as far as it has come: `title` says what it is, `step` what its points are called."""

    title: str
    step: str
    points: tuple[Point, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __rich__(self) -> RenderableType:
        from nnc.tables import table

        rows = [(point.name, f"{point.parameters:,}", *_cells(point), f"{point.seconds:.1f}") for point in self.points]
        return table(self.title, (self.step, "parameters", "sparsity", "metric", "seconds"), rows)


def _cells(point: Point) -> tuple[str, str]:
    return "" if point.sparsity is None else f"{point.sparsity:.1%}", "" if point.metric is None else f"{point.metric:.4f}"


def read_run(folder: Path) -> Run:
    """Return the finished rounds or stages of a run's folder.

    Raises `ConfigError` for a folder that holds no run or a run without a finished round, `StorageError` for one that cannot be read.
    """
    if (folder / _STAGES).is_file():
        run = _of_stages(folder / _STAGES)
    elif (folder / _RUN).is_file():
        run = _of_rounds(folder)
    else:
        raise ConfigError(f"{folder}: holds no run: neither {_RUN} of a scheduled pruner nor {_STAGES} of nnc.run is in it.")
    if not run.points:
        raise ConfigError(f"{folder}: the run has no finished {run.step} yet.")
    return run


def _of_rounds(folder: Path) -> Run:
    rounds = read_rounds(folder)
    given = json.loads((folder / _RUN).read_text(encoding="utf-8"))
    points = tuple(Point(str(one.number), one.parameters, one.metric, one.seconds, one.sparsity) for one in rounds)
    start = Point("0", given["parameters"], None, 0.0, 0.0)
    return Run(f"{given['schedule']}, {given['rounds']} rounds", "round", (start, *points) if points else ())


def _of_stages(path: Path) -> Run:
    try:
        finished = json.loads(path.read_text(encoding="utf-8"))["finished"]
        points = tuple(Point(one["name"], one["parameters"], one["metric"], one["seconds"]) for one in finished)
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{path}: the run cannot be read: {error!r}.") from None
    return Run("stages", "stage", points)


def draw(run: Run, path: Path) -> Path | None:
    """Write the curve as SVG and return its path; None where no round has a metric to draw."""
    from matplotlib.figure import Figure

    points = [(point.name, point.parameters, point.metric) for point in run.points if point.metric is not None]
    if not points:
        return None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="parameters left", ylabel="metric", title=run.title)
    axes.plot([left for _, left, _ in points], [metric for *_, metric in points], marker="o")
    for name, left, metric in points:
        axes.annotate(name, (left, metric), textcoords="offset points", xytext=(4, 4))
    axes.invert_xaxis()
    figure.savefig(path, format="svg")
    return path
