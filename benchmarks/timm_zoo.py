"""One model of each file of timm, by its own code: does half of what can leave leave, exactly, with nothing kept that was chosen?

    make bench-timm                                       installs timm into build/timm and runs this on all of them
    python benchmarks/timm_zoo.py --only levit --only davit

Models are of the smaller ones in each file, at full size, with random weights, biases and running statistics, in float32. Some that
were never trained magnify rounding until it hides whether two networks are the same: these are tried again in float64. CPU seconds are
those of pruner and speedup, on one thread.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import torch
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

import nnc
from nnc.errors import NncError
from nnc.latency import hardware
from nnc_pruning import L1NormPruner
from torch_zoo import randomised

SMALL = re.compile(r"tiny|nano|pico|atto|femto|small|_s$|_xs|_xxs|18|26|050|b0|_t$|_t_|a0|s0|_0$|m0")
LARGE = re.compile(r"giant|huge|large|384|448|512|sam|412m")


@dataclass(frozen=True)
class Row:
    """What became of one model; `outcome` is "exact", or what it was instead."""

    file: str
    model: str
    outcome: str
    precision: str
    parameters: int = 0
    left: float = 1.0
    difference: float = 0.0
    kept: tuple[str, ...] = ()
    seconds: float = 0.0


def main(
    only: Annotated[list[str], typer.Option(help="Only these files of timm, or these models.")] = [],  # noqa: B006
    output: Annotated[Path | None, typer.Option("-o", help="A JSON file for the rows.")] = None,
) -> None:
    """Prune one model of each file, and print what became of it."""
    timm, console = _timm(), Console()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = {name: name for name in only if name in timm.list_models()} or dict(_one_of_each(timm, only))
    note, rows = {"timm": timm.__version__, "hardware": hardware()}, []
    for file, name in track(chosen.items(), "pruning", console=Console(stderr=True)):
        rows.append(_pruned(timm, file, name))
        if output:  # after each, so that a run that is stopped leaves what it found
            output.write_text(json.dumps({**note, "rows": [asdict(row) for row in rows]}, indent=1) + "\n", encoding="utf-8")
    console.print(_table(rows), f"timm {timm.__version__}, one thread, {hardware()}")


def _timm() -> Any:
    """Import timm. It imports torchvision, whose compiled operators no model here needs; built for CUDA, they do not load without it."""
    try:
        import torchvision  # noqa: F401
    except (RuntimeError, OSError):
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        register = torch.library.register_fake
        torch.library.register_fake = lambda op, *given, **more: (lambda f: f) if "torchvision" in op else register(op, *given, **more)
    import timm

    return timm


def _one_of_each(timm: Any, only: list[str]) -> Iterator[tuple[str, str]]:
    """Yield each file of timm and the model to take of it."""
    for file in timm.list_modules():
        names = timm.list_models(module=file)
        light = [name for name in names if not LARGE.search(name)] or names
        if names and (not only or file in only):
            yield file, next((name for name in light if SMALL.search(name)), light[0])


def _pruned(timm: Any, file: str, name: str) -> Row:
    row = _tried(timm, file, name, torch.float32, 1e-5)
    return _tried(timm, file, name, torch.float64, 1e-9) if row.outcome.startswith("output") else row


def _tried(timm: Any, file: str, name: str, precision: torch.dtype, allowed: float) -> Row:
    torch.manual_seed(0)
    config = timm.get_pretrained_cfg(name)
    model = randomised(timm.create_model(name)).eval().to(precision)
    image = torch.randn(1, *(config.input_size if config else (3, 224, 224))).to(precision)
    kind, before, start = str(precision).removeprefix("torch."), _count(model), process_time()
    try:
        speedup = nnc.ModelSpeedup(model, image, L1NormPruner(model, [{"sparsity": 0.5}], example_inputs=image).propose())
        small = speedup.speedup_model()
    except NncError as error:
        return Row(file, name, str(error).splitlines()[0], kind, before)
    kept = tuple(f"{each.where}: {each.reason}" for each in speedup.plan.kept)
    difference = speedup.difference or 0.0
    outcome = "exact" if difference <= allowed else f"outputs differ by {difference:.0e}"
    return Row(file, name, outcome, kind, before, _count(small) / before, difference, kept, process_time() - start)


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _table(rows: list[Row]) -> Table:
    good = sum(row.outcome == "exact" and not row.kept for row in rows)
    title = f"{good} of {len(rows)} models are exact, and all that was chosen left"
    table = Table("file", "model", "precision", "parameters", "left", "difference", "CPU s", title=title, title_justify="left", box=SIMPLE)
    table.add_column("outcome", no_wrap=True, overflow="ellipsis")
    for row in rows:
        why = row.outcome if not row.kept else f"{row.outcome}; {len(row.kept)} kept: {row.kept[0]}"
        cells = (f"{row.parameters / 1e6:.1f} M", f"{row.left:.0%}", f"{row.difference:.0e}", f"{row.seconds:.1f}")
        table.add_row(row.file, row.model, row.precision, *cells, why)
    return table


if __name__ == "__main__":
    typer.run(main)
