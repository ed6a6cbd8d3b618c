"""Gradual pruning (AGP) against one-shot L1 on MNIST: the same 80 % of channels, the same number of training steps, both frameworks.

    NNC_DATA=... OMP_NUM_THREADS=1 python -m benchmarks.agp_mnist -o benchmarks/results/agp-mnist.json

The network of `nnc demo` (conv 20, conv 50, dense 500, dense 10; float32) is trained for 4 epochs. Then 80 % of the channels of each hidden
layer are really removed: by AGP in rounds with some steps of Adam at 1e-3 after each, or all at once with as many steps. Both then
take the same fine-tuning, its rate falling along a cosine. Accuracy is of all 10,000 test images. The budget is one that
tells the two apart: with much more training either way comes back whole, and without the fine-tuning AGP is behind.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import nnc
from nnc.demo import Demo
from nnc.latency import hardware
from nnc.mnist import Digits, load_digits
from nnc.registry import adapter_for

CONFIG = [{"op_types": ["Linear", "Conv2d"], "sparsity": 0.8}, {"op_names": ["fc2"], "exclude": True}]
BATCH = 64


@dataclass(frozen=True)
class Budget:
    """What both ways get after the base training: `rounds` times `steps` of Adam at 1e-3, then `epochs` of fine-tuning."""

    base: int = 4
    rounds: int = 8
    steps: int = 60
    epochs: int = 1


@dataclass(frozen=True)
class Row:
    """Accuracies on the test images, and parameters before and after."""

    framework: str
    seed: int
    trained: float
    agp: float
    one_shot: float
    parameters: int
    left: int


def demo_of(framework: str) -> tuple[Demo, Any, Any]:
    """Return the demo's network of a framework, with a loss and an optimizer for `nnc.Trainer`."""
    if framework == "torch":
        import torch
        from torch.nn.functional import nll_loss

        from nnc_torch.demo import TorchDemo

        return TorchDemo(), nll_loss, lambda parameters: torch.optim.Adam(parameters, 1e-3)
    import keras

    from nnc_tensorflow.demo import TensorFlowDemo

    return TensorFlowDemo(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), lambda variables: keras.optimizers.Adam(1e-3)


class Contest:
    """AGP and one-shot L1 on one framework with one seed; `run` gives their row."""

    def __init__(self, framework: str, digits: Digits, budget: Budget, seed: int) -> None:
        self.framework, self.digits, self.budget, self.seed = framework, digits, budget, seed
        self.demo, loss, optimizer = demo_of(framework)
        self.inputs = self.demo.example_inputs(digits.images)
        self.labels = self.inputs.new_tensor(digits.labels).long() if framework == "torch" else digits.labels
        self.trainer = nnc.Trainer(self._batches, loss, optimizer, steps=budget.steps, seed=seed, progress=False)

    def _batches(self) -> Iterator[Any]:
        order = np.random.permutation(len(self.labels))  # nnc.Trainer has seeded it
        return ((self.inputs[rows], self.labels[rows]) for rows in np.split(order, range(BATCH, len(order), BATCH)))

    def run(self) -> Row:
        model = self.demo.build(self.seed)
        self._tune(model, self.budget.base, 1e-3)
        with TemporaryDirectory() as folder:
            nnc.save(model, folder)
            again = nnc.load(folder, model=self.demo.build(self.seed))
        small, whole = self._gradually(again), self._at_once(model)
        left = {_parameters(each) for each in (small, whole)}
        if len(left) > 1:
            raise AssertionError(f"the two networks have {sorted(left)} parameters; only networks of one size are compared.")
        trained, before = self._accuracy(model), _parameters(model)
        return Row(self.framework, self.seed, trained, self._finished(small), self._finished(whole), before, left.pop())

    def _gradually(self, model: Any) -> Any:
        options = {"schedule": "agp", "rounds": self.budget.rounds, "trainer": self.trainer, "speedup": True, "seed": self.seed}
        return nnc.ScheduledPruner(model, CONFIG, self.inputs[:2], **options).compress()[0]

    def _at_once(self, model: Any) -> Any:
        compressed = nnc.compress(model, CONFIG, self.inputs[:2])
        small = compressed.speedup()
        compressed.unwrap()
        self.trainer.train(small, steps=self.budget.rounds * self.budget.steps)
        return small

    def _finished(self, small: Any) -> float:
        self._tune(small, self.budget.epochs, 1e-3)
        return self._accuracy(small)

    def _tune(self, model: Any, epochs: int, rate: float) -> None:
        train = partial(self.demo.train, batch_size=BATCH, learning_rate=rate, seed=self.seed, advance=lambda: None)
        train(model, self.digits.images, self.digits.labels, epochs=epochs)

    def _accuracy(self, model: Any) -> float:
        return self.demo.accuracy(model, self.digits.test_images, self.digits.test_labels)


def _parameters(model: Any) -> int:
    return sum(array.size for array in adapter_for(model).tensors().values())


def table(rows: list[Row]) -> str:
    """Return the rows, and each framework's means."""
    lines = ["framework   seed  trained  AGP 80 %  one-shot L1 80 %  parameters"]
    for framework in dict.fromkeys(row.framework for row in rows):
        own = [row for row in rows if row.framework == framework]
        lines += [_line(framework, str(row.seed), [row], f"{row.parameters:,} -> {row.left:,}") for row in own]
        lines.append(_line(framework, "mean", own, ""))
    return "\n".join(lines)


def _line(framework: str, seed: str, rows: list[Row], sizes: str) -> str:
    trained, agp, one_shot = (mean(getattr(row, name) for row in rows) for name in ("trained", "agp", "one_shot"))
    return f"{framework:10}  {seed:>4}  {trained:7.2%}  {agp:8.2%}  {one_shot:16.2%}  {sizes}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", nargs="+", default=["torch", "tensorflow"], choices=["torch", "tensorflow"])
    parser.add_argument("--images", type=int, help="train on the first so many images, and test on as many; all by default")
    parser.add_argument("--seeds", type=int, default=5)
    for name, default in asdict(Budget()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("-o", "--output", type=Path, help="a JSON file for the rows")
    given = parser.parse_args()
    budget = Budget(given.base, given.rounds, given.steps, given.epochs)
    digits, rows = load_digits(given.images), []
    for framework in given.frameworks:
        for seed in range(given.seeds):
            rows.append(Contest(framework, digits, budget, seed).run())
            print(_line(framework, str(seed), rows[-1:], ""), flush=True)
    print(f"{len(digits.images)} images, {budget}, {hardware()}\n{table(rows)}")
    if given.output:
        note = {"images": len(digits.images), "batch": BATCH, "precision": "float32", "hardware": hardware(), "budget": asdict(budget)}
        given.output.write_text(json.dumps({**note, "rows": [asdict(row) for row in rows]}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
