"""A real BERT on SST-2, half of its heads and neurons removed: how right and how fast it stays, beside one-shot L1 of the same budget.

    NNC_DATA=... OMP_NUM_THREADS=1 python benchmarks/pruned_bert.py --framework torch
    NNC_DATA=... OMP_NUM_THREADS=1 python benchmarks/pruned_bert.py --framework keras --show      the table of the result at hand

Runs the recipe of examples/bert_sst2.py, then, from the same fine-tuned model, one-shot L1 to the same size and as many steps of
distillation as the recipe trains in all. Both are resumable. Speeds are medians of CPU seconds by turns, one sentence of 64 tokens and
eight, in the framework and in ONNX Runtime. The result goes to benchmarks/results/bert_sst2_FRAMEWORK.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import yaml
from rich.console import Console
from rich.table import Table

import nnc
from cpu_time import medians_by_turns
from nnc.latency import hardware
from nnc.registry import adapter_for

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from bert_sst2 import Task, prepare  # noqa: E402

LENGTH = 64
BATCHES = (1, 8)
#: What the rows are called, and the stage of which run they are.
ROWS = {"fine-tuned": ("recipe", "fine-tune"), "recipe": ("recipe", "distil"), "one-shot L1": ("one-shot", "distil")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framework", choices=("keras", "torch"), required=True)
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where the runs are kept; default out/bert_sst2_FRAMEWORK")
    parser.add_argument("--no-one-shot", action="store_true", help="leave one-shot L1 for another time")
    parser.add_argument("--show", action="store_true", help="measure nothing")
    args = parser.parse_args()
    results = Path(__file__).parent / "results" / f"bert_sst2_{args.framework}.json"
    if not args.show:
        folder = args.folder or ROOT / "out" / f"bert_sst2_{args.framework}"
        result = measure(args.framework, args.sentences, folder, not args.no_one_shot)
        results.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    Console(width=120).print(shown(json.loads(results.read_text("utf-8"))))


def measure(framework: str, sentences: int, folder: Path, both: bool) -> dict[str, Any]:
    """Do what is left of the recipe, and of one-shot L1 if `both`, and return their table."""
    task = prepare(framework, sentences, LENGTH)
    recipe = yaml.safe_load((ROOT / "examples" / f"bert_sst2_{framework}.yaml").read_text("utf-8"))["stages"]
    folders = {"recipe": folder}
    _run(task, recipe, folder)
    if both:
        folders["one-shot"] = folder.with_name(f"{folder.name}_one_shot")
        _begin(folder, folders["one-shot"])
        _run(task, one_shot(recipe, task.steps), folders["one-shot"])
    models = {name: nnc.load(folders[run] / stage, model=task.model) for name, (run, stage) in ROWS.items() if run in folders}
    stages = {run: json.loads((where / "stages.json").read_text("utf-8"))["finished"] for run, where in folders.items()}
    return {
        "framework": framework,
        "sentences": sentences,
        "hardware": hardware(),
        "stages": stages,
        "heads": [line for stage in stages["recipe"] for line in stage["heads"]],
        "rows": _rows(task, models, stages),
    }


def one_shot(recipe: list[dict[str, Any]], epoch: int) -> list[dict[str, Any]]:
    """Return a recipe that fine-tunes alike, removes as much by L1 at once, and trains as long, an `epoch` having so many steps."""
    heads, neurons = (stage["config_list"][0] for stage in recipe if stage.get("speedup"))
    kept = ("op_names", "op_types", "op_partial_names", "granularity", "sparsity")
    entries = [{"algorithm": "l1_norm", **{key: entry[key] for key in kept if key in entry}} for entry in (heads, neurons)]
    steps = sum(stage.get("schedule", {}).get("rounds", 1) * _steps(stage["train"], epoch) for stage in recipe[1:])
    distil = recipe[-1]
    return [recipe[0], {"name": "l1", "config_list": entries, "speedup": True}, {**distil, "train": {"steps": steps}}]


def _steps(train: dict[str, int], epoch: int) -> int:
    return train.get("steps", 0) + epoch * train.get("epochs", 0)


def _run(task: Task, recipe: list[dict[str, Any]], folder: Path) -> None:
    nnc.run(task.model, recipe, trainer=task.trainer, example_inputs=task.example, folder=folder)


def _begin(source: Path, target: Path) -> None:
    """Let a second run start from the first stage of the first run, unless it has started."""
    if (target / "stages.json").exists():
        return
    index = json.loads((source / "stages.json").read_text("utf-8"))
    first = index["finished"][0]["name"]
    shutil.copytree(source / first, target / first)
    (target / "stages.json").write_text(json.dumps({"recipe": index["recipe"][:1], "finished": index["finished"][:1]}), "utf-8")


def _rows(task: Task, models: dict[str, Any], stages: dict[str, Any]) -> list[dict[str, Any]]:
    metrics = {name: _metric(stages[ROWS[name][0]], ROWS[name][1]) for name in models}
    speeds = {str(batch): _speeds(task, list(models.values()), batch) for batch in BATCHES}
    rows = []
    for number, (name, model) in enumerate(models.items()):
        tensors = adapter_for(model).tensors().values()
        seconds = {batch: {where: taken[number] for where, taken in found.items()} for batch, found in speeds.items()}
        rows.append(
            {"name": name, "accuracy": metrics[name], "parameters": sum(int(array.size) for array in tensors), "seconds": seconds},
        )
    return rows


def _metric(stages: list[dict[str, Any]], name: str) -> float:
    return float(next(stage["metric"] for stage in stages if stage["name"] == name))


def _speeds(task: Task, models: list[Any], batch: int) -> dict[str, list[float]]:
    """Return CPU seconds of each model, by turns, in the framework and in ONNX Runtime."""
    ids = np.random.default_rng(0).integers(1000, 20_000, (batch, LENGTH)).astype(np.int32)
    given = task.inputs(ids, np.ones_like(ids))
    native = medians_by_turns([partial(adapter_for(model).run, given) for model in models])
    with tempfile.TemporaryDirectory() as scratch:
        calls = []
        for number, model in enumerate(models):
            path = Path(scratch) / f"{number}.onnx"
            nnc.export(model, path, given)
            calls.append(onnx_call(path, given))
        onnx = medians_by_turns(calls)
    return {"framework": native, "onnx": onnx}


def onnx_call(path: Path, given: dict[str, Any]) -> Callable[[], Any]:
    """Return one pass of a file through ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {node.name: np.asarray(given[node.name]) for node in session.get_inputs()}
    return partial(session.run, None, feed)


def shown(result: dict[str, Any]) -> Table:
    table = Table(title=f"BERT on SST-2, {result['framework']}, {result['sentences']:,} sentences, {result['hardware']}")
    columns = ("accuracy", "parameters", *(f"{where}, batch {batch}" for batch in BATCHES for where in ("framework", "onnx")))
    for name in ("", *columns):
        table.add_column(name, justify="right" if name else "left")
    first = result["rows"][0]
    for row in result["rows"]:
        cells = []
        for batch in map(str, BATCHES):
            for where, seconds in row["seconds"][batch].items():
                cells.append(f"{1000 * seconds:.1f} ms ({first['seconds'][batch][where] / seconds:.2f}x)")
        table.add_row(row["name"], f"{100 * row['accuracy']:.2f} %", f"{row['parameters'] / 1e6:.1f} M", *cells)
    return table


if __name__ == "__main__":
    main()
