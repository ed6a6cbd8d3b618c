"""Quantise a convolutional network for MNIST, on PyTorch or Keras, and compare float, fake-quantised and exported int8.

    python examples/quantize_mnist.py --framework torch
    python examples/quantize_mnist.py --framework keras

Float, then post-training quantisation in 8 bits, then training on the grid in 8 bits, then LSQ with weights of 4 bits. Each is
written as ONNX and run in ONNX Runtime on the whole test set.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import nnc
from nnc.mnist import Digits, load_digits
from nnc.registry import adapter_for

RUNS: dict[str, dict[str, Any]] = {
    "ptq int8": {"algorithm": "ptq", "calib_steps": 8},
    "qat int8": {"algorithm": "qat_ste", "calib_steps": 8},
    "qat int4 weights": {"algorithm": "qat_lsq", "quant_bits": {"weight": 4, "input": 8}, "calib_steps": 8},
}


@dataclass(frozen=True)
class Row:
    """What one way of quantising gives: accuracies in percent, and how far the file is from the fake-quantised model.

    `same` is the percentage of equal predictions, `close` that of logits within two steps: two 255ths of the logits' range.
    """

    name: str
    accuracy: float
    exported: float | None = None
    same: float | None = None
    close: float | None = None
    bytes: int | None = None


class Torch:
    """The network, its data and its training on PyTorch."""

    def __init__(self, digits: Digits) -> None:
        import torch

        self.digits = digits
        images, self.test = (torch.from_numpy(np.asarray(each)[:, None]) for each in (digits.images, digits.test_images))
        self.data = _batches(images, torch.from_numpy(np.asarray(digits.labels)))

    def build(self) -> Any:
        import torch
        from torch import nn

        torch.manual_seed(0)
        convolutions = [nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))

    def trainer(self, rate: float, epochs: int) -> nnc.Trainer:
        import torch

        loss = torch.nn.functional.cross_entropy
        return nnc.Trainer(self.data, loss, lambda parameters: torch.optim.Adam(parameters, rate), epochs=epochs)

    def logits(self, model: Any) -> Any:
        import torch

        with torch.no_grad():
            return model.eval()(self.test).numpy()

    def inputs(self) -> Any:
        return self.test.numpy()


class Keras:
    """The same on Keras 3."""

    def __init__(self, digits: Digits) -> None:
        self.digits = digits
        self.test = np.asarray(digits.test_images)[..., None]
        self.data = _batches(np.asarray(digits.images)[..., None], np.asarray(digits.labels))

    def build(self) -> Any:
        import keras
        from keras import layers

        keras.utils.set_random_seed(0)
        first = [keras.Input((28, 28, 1)), layers.Conv2D(8, 5, activation="relu"), layers.MaxPool2D()]
        second = [layers.Conv2D(16, 5, activation="relu"), layers.MaxPool2D()]
        dense = [layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10)]
        return keras.Sequential([*first, *second, *dense])

    def trainer(self, rate: float, epochs: int) -> nnc.Trainer:
        import keras

        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return nnc.Trainer(self.data, loss, lambda variables: keras.optimizers.Adam(rate), epochs=epochs)

    def logits(self, model: Any) -> Any:
        return np.concatenate([np.asarray(model(self.test[i : i + 2000], training=False)) for i in range(0, len(self.test), 2000)])

    def inputs(self) -> Any:
        return self.test


def measure(framework: str, images: int = 6000, epochs: int = 6, tuning: int = 2, runs: Any = RUNS) -> list[Row]:
    """Train the network, quantise copies of it in each way, and return a row for each; `tuning` epochs train on the grid.

    The float model is trained for the same `tuning` epochs on top, so that what training adds is not put down to the grid.
    """
    digits = load_digits()
    task: Any = {"torch": Torch, "keras": Keras}[framework](
        Digits(digits.images[:images], digits.labels[:images], digits.test_images, digits.test_labels, digits.source)
    )
    model = task.build()
    task.trainer(2e-3, epochs).train(model)
    task.trainer(5e-4, tuning).train(model)
    rows = [Row("float", _accuracy(task.logits(model), digits))]
    start = {name: array.copy() for name, array in adapter_for(model).tensors().items()}
    for name, entry in runs.items():
        adapter_for(model).load_tensors(start)
        rows.append(_run(task, model, name, entry, tuning))
    return rows


def _run(task: Any, model: Any, name: str, entry: dict[str, Any], epochs: int) -> Row:
    trainer = task.trainer(2e-4, epochs)
    compressed = nnc.compress(model, [entry], example_inputs=task.test[:64], trainer=trainer)
    if entry["algorithm"] != "ptq":
        compressed.train()
    fake = task.logits(model)
    with tempfile.TemporaryDirectory() as folder:
        result = compressed.export(Path(folder, "model.onnx"), force=True)
        found = _in_onnx_runtime(result.path, task.inputs())
    compressed.unwrap()
    step = (fake.max() - fake.min()) / 255
    same = 100 * float((found.argmax(1) == fake.argmax(1)).mean())
    close = 100 * float((np.abs(found - fake) <= 2 * step).mean())
    return Row(name, _accuracy(fake, task.digits), _accuracy(found, task.digits), same, close, result.bytes)


def _in_onnx_runtime(path: Path, images: Any) -> Any:
    """Return the file's logits; sums of bytes are exact on every processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: images[i : i + 64]})[0] for i in range(0, len(images), 64)])


def _batches(images: Any, labels: Any, size: int = 64) -> Any:
    """Return a function that gives the batches in a new order each time, the same orders in every run."""
    draw = np.random.default_rng(0)

    def batches() -> Any:
        order = draw.permutation(len(images))
        return ((images[rows], labels[rows]) for rows in np.split(order, range(size, len(order), size)))

    return batches


def _accuracy(logits: Any, digits: Digits) -> float:
    return 100 * float((logits.argmax(1) == digits.test_labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=("torch", "keras"), default="torch")
    parser.add_argument("--images", type=int, default=6000, help="how many training images")
    parser.add_argument("--epochs", type=int, default=6, help="of the float model")
    parser.add_argument("--tuning", type=int, default=2, help="epochs on the grid")
    parser.add_argument("--json", action="store_true", help="print rows for a script")
    given = parser.parse_args()
    rows = measure(given.framework, given.images, given.epochs, given.tuning)
    if given.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    table = Table("", "accuracy %", "exported %", "same predictions %", "logits within 2 steps %", "kB", title=f"MNIST, {given.framework}")
    for row in rows:
        numbers = (row.accuracy, row.exported, row.same, row.close, row.bytes and row.bytes / 1000)
        table.add_row(row.name, *("" if number is None else f"{number:.2f}" for number in numbers))
    Console().print(table)


if __name__ == "__main__":
    main()
