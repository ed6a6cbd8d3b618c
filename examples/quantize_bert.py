"""Quantise a real BERT of 6 layers, fine-tuned on SST-2, embeddings included: float, fake-quantised, and exported int8 side by side.

    NNC_DATA=... python examples/quantize_bert.py --framework torch
    NNC_DATA=... python examples/quantize_bert.py --framework keras --start runs/fine-tune      from a model that nnc.save has written
    NNC_DATA=... python examples/quantize_bert.py --framework torch --chain                     pruned and distilled at the same time, too

Float; post-training quantisation; training on the grid with the float model as the teacher. With --chain also the recipe in
quantize_bert_torch.yaml, or _keras.yaml: half of the feed-forward neurons are masked by L1 while the model trains on the grid, then they
leave, ranges are measured again, and the file is written; and the same recipe without int8. Every file is run in ONNX Runtime on the whole
dev set. A run that is killed goes on with the row that it was in.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

import nnc
import sst2
from bert_sst2 import Task, prepare
from nnc.registry import adapter_for

LENGTH = 64
PTQ: list[dict[str, Any]] = [{"algorithm": "ptq", "calib_steps": 8}]
QAT: list[dict[str, Any]] = [{"algorithm": "qat_ste", "calib_steps": 8}, {"algorithm": "kl", "temperature": 2}]
#: What of a recipe is about int8.
INT8 = ("qat_ste", "calibrate")


@dataclass(frozen=True)
class Row:
    """What one way gives: accuracies in percent, of the model as the framework sees it and of its file.

    `exported` is with exact kernels, `exported_fast` with those that ONNX Runtime takes by itself: on a processor without VNNI they may
    overflow. `same` is the percentage of sentences on which model and file agree, `ratio` the file's bytes against the float one's.
    """

    name: str
    accuracy: float
    exported: float
    exported_fast: float
    same: float
    bytes: int
    ratio: float
    parameters: int
    seconds: float


def torch_training(rate: float) -> tuple[Any, Any]:
    import torch

    def loss(outputs: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(outputs.logits, torch.as_tensor(labels))

    return loss, lambda parameters: torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, fused=True)


def keras_training(rate: float) -> tuple[Any, Any]:
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return loss, lambda _: keras.optimizers.AdamW(rate, weight_decay=0.01)


TRAINING = {"torch": torch_training, "keras": keras_training}


def trainer(framework: str, task: Task, rate: float, steps: int) -> nnc.Trainer:
    """Return a trainer whose batches are what the model takes, and labels."""
    loss, optimizer = TRAINING[framework](rate)

    def batches() -> Iterator[Any]:
        return ((task.inputs(ids, mask), labels) for ids, mask, labels in task.trainer.batches())

    return nnc.Trainer(batches, loss, optimizer, steps=steps)


class Dev:
    """The sentences that everything is measured on, `limit` of them or all 872."""

    def __init__(self, task: Task, limit: int | None = None) -> None:
        texts, labels = sst2.sentences("dev")
        found = sst2.tokens(texts[:limit], LENGTH)
        self.labels = labels[:limit]
        self.batches = [task.inputs(found["ids"][i : i + 32], found["mask"][i : i + 32]) for i in range(0, len(self.labels), 32)]

    def of_model(self, model: Any) -> Any:
        adapter = adapter_for(model)
        return np.concatenate([adapter.run(inputs)[0].argmax(1) for inputs in self.batches])

    def of_file(self, path: Path, exact: bool) -> Any:
        """Return what a file predicts; `exact`: with sums of bytes that cannot overflow, whatever the processor."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [node.name for node in session.get_inputs()]
        feeds = ({name: np.asarray(inputs[name]) for name in names} for inputs in self.batches)
        return np.concatenate([session.run(None, feed)[0].argmax(1) for feed in feeds])

    def accuracy(self, predictions: Any) -> float:
        return 100 * float((predictions == self.labels).mean())


class Rows:
    """What has been measured, kept in `folder/rows.json` beside the files."""

    def __init__(self, folder: Path, dev: Dev) -> None:
        self.folder, self.dev = folder, dev
        self.path = folder / "rows.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.found = [Row(**row) for row in json.loads(self.path.read_text("utf-8"))] if self.path.exists() else []

    def add(self, name: str, make: Callable[[Path], tuple[Any, Any]]) -> None:
        """Add a row unless it is there: `make(path)` writes the file and returns the model, and what it predicts on its grids."""
        if any(row.name == name for row in self.found):
            return
        path = self.folder / f"{name.replace(' ', '-')}.onnx"
        began = perf_counter()
        model, seen = make(path)
        seconds = perf_counter() - began
        exact, fast = self.dev.of_file(path, exact=True), self.dev.of_file(path, exact=False)
        bytes_ = path.stat().st_size
        row = Row(
            name=name,
            accuracy=self.dev.accuracy(seen),
            exported=self.dev.accuracy(exact),
            exported_fast=self.dev.accuracy(fast),
            same=100 * float((seen == exact).mean()),
            bytes=bytes_,
            ratio=bytes_ / (self.found[0].bytes if self.found else bytes_),
            parameters=sum(int(array.size) for array in adapter_for(model).tensors().values()),
            seconds=seconds,
        )
        self.found.append(row)
        self.path.write_text(json.dumps([asdict(each) for each in self.found], indent=1), "utf-8")

    def table(self, title: str) -> Table:
        columns = ("model %", "file %", "fast %", "same %", "MB", "ratio", "weights")
        caption = "right answers of the model, the file, and the file with this processor's fastest kernels; same: model and file agree"
        table = Table("", title=title, caption=caption)
        for column in columns:
            table.add_column(column, justify="right")
        for row in self.found:
            percents = (row.accuracy, row.exported, row.exported_fast, row.same)
            sizes = (f"{row.bytes / 1e6:.1f}", f"{row.ratio:.3f}", f"{row.parameters / 1e6:.1f} M")
            table.add_row(row.name, *(f"{number:.2f}" for number in percents), *sizes)
        return table


def fine_tuned(task: Task, folder: Path) -> Path:
    """Fine-tune for one epoch, unless that is done, and return the folder of the model."""
    stage = {"name": "fine-tune", "train": {"epochs": 1}}
    nnc.run(task.model, [stage], trainer=task.trainer, example_inputs=task.example, folder=folder)
    return folder / "fine-tune"


def chain(framework: str) -> list[dict[str, Any]]:
    """Return the stages of the recipe beside this file."""
    return yaml.safe_load(Path(__file__).with_name(f"quantize_bert_{framework}.yaml").read_text("utf-8"))["stages"]


def without_int8(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stages without what quantises."""
    plain = [{key: value for key, value in stage.items() if key not in INT8} for stage in stages]
    return [{**stage, "config_list": [each for each in stage["config_list"] if each["algorithm"] not in INT8]} for stage in plain]


def measure(given: argparse.Namespace) -> Rows:
    """Do what is left of a run and return its rows."""
    task = prepare(given.framework, given.sentences, LENGTH, given.batch)
    dev = Dev(task, given.dev)
    start = given.start or fine_tuned(task, given.folder)
    training = trainer(given.framework, task, given.rate, given.steps)
    rows = Rows(given.folder, dev)

    def fresh() -> Any:
        return nnc.load(start, model=task.model)

    def exact(path: Path) -> tuple[Any, Any]:
        model = fresh()
        nnc.export(model, path, task.example)
        return model, dev.of_model(model)

    def quantised(config: list[dict[str, Any]], path: Path) -> tuple[Any, Any]:
        compressed = nnc.compress(fresh(), config, task.example, trainer=training)
        if config is not PTQ:
            compressed.train()
            compressed.finish()
        compressed.export(path, force=True)  # a slower file is written too: it is what is measured here
        return compressed.model, dev.of_model(compressed.model)

    def chained(stages: list[dict[str, Any]], path: Path) -> tuple[Any, Any]:
        folder = path.with_suffix("")

        def accuracy(model: Any) -> float:
            np.save(folder / "seen.npy", dev.of_model(model))
            return dev.accuracy(np.load(folder / "seen.npy")) / 100

        training.metric = accuracy
        result = nnc.run(fresh(), stages, trainer=training, example_inputs=task.example, folder=folder)
        shutil.copyfile(folder / stages[-1]["export"], path)
        return result.model, np.load(folder / "seen.npy")

    rows.add("float", exact)
    rows.add("ptq int8", partial(quantised, PTQ))
    rows.add("qat int8", partial(quantised, QAT))
    if given.chain:
        stages = chain(given.framework)
        rows.add("pruned", partial(chained, without_int8(stages)))
        rows.add("pruned int8", partial(chained, stages))
    return rows


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line, or `words`, says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=sorted(TRAINING), required=True)
    parser.add_argument("--start", type=Path, help="folder of a fine-tuned model of this framework; by default it is fine-tuned here")
    parser.add_argument("--chain", action="store_true", help="also prune, distil and quantise in one training")
    parser.add_argument("--sentences", type=int, default=20_000, help="how many training sentences there are")
    parser.add_argument("--steps", type=int, default=125, help="how many steps are trained on the grid")
    parser.add_argument("--batch", type=int, default=32, help="sentences in a step")
    parser.add_argument("--rate", type=float, default=2e-5, help="learning rate on the grid")
    parser.add_argument("--dev", type=int, help="measure on so many sentences only")
    parser.add_argument("--folder", type=Path, help="where the run is kept; default out/quantize_bert_FRAMEWORK")
    parser.add_argument("--json", action="store_true", help="print rows for a script")
    given = parser.parse_args(words)
    given.folder = given.folder or Path("out") / f"quantize_bert_{given.framework}"
    return given


def main() -> None:
    given = arguments()
    rows = measure(given)
    if given.json:
        print(json.dumps([asdict(row) for row in rows.found]))
    else:
        Console().print(rows.table(f"SST-2, {given.framework}, {len(rows.dev.labels)} sentences"))


if __name__ == "__main__":
    main()
