"""`nnc demo`: train a small CNN on digits, prune half of it, shrink it, fine-tune it, and say what that cost and gave.

The flow is the same for every framework; what differs stands behind `Demo`, which an adapter's package registers with
`nnc_register_demos`. Images are `(n, 28, 28)` float32 in [0, 1], labels `(n,)` int64; a Demo puts them into its own layout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from nnc.graph.ir import Array
from nnc.latency import hardware, medians_by_turns
from nnc.mnist import Digits
from nnc.registry import adapter_for, algorithm
from nnc.report import batch_size, footprint
from nnc.speedup import ModelSpeedup
from nnc.storage import save

CONFIG_LIST = [
    {"sparsity_per_layer": 0.5, "op_types": ["Linear", "Conv2d"]},
    {"exclude": True, "op_names": ["fc2"]},
]
STAGES = ("before", "masked", "small", "fine-tuned")
REPEATS = 30


class Demo(Protocol):
    """The network of the demo on one framework: conv1 1->20, conv2 20->50 (5x5), fc1 800->500, fc2 500->10, log_softmax.

    `framework` is its name for a reader.
    """

    framework: str

    def build(self, seed: int) -> Any:
        """Return a fresh network, initialised from `seed`."""
        ...

    def train(
        self,
        model: Any,
        images: Array,
        labels: Array,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        advance: Callable[[], None],
    ) -> None:
        """Train in place with Adam, the rate decaying from `learning_rate` to 0 along a cosine over all the steps.

        `advance()` is called after each batch; an epoch has `ceil(n / batch_size)` of them. Batches are shuffled by `seed`.
        """
        ...

    def accuracy(self, model: Any, images: Array, labels: Array) -> float:
        """Return the share of the images whose label the model finds, in [0, 1]."""
        ...

    def example_inputs(self, images: Array) -> Any:
        """Return `images` as the model's input, in the framework's own layout and type."""
        ...

    def save_plain(self, model: Any, folder: Path) -> Path:
        """Write the model into `folder` as a file of the framework's own that loads where nnc is not installed; return its path."""
        ...


@dataclass(frozen=True)
class Settings:
    """How the demo trains. Fine-tuning takes one epoch at half the rate."""

    epochs: int = 4
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0

    def batches(self, digits: Digits) -> int:
        """Return how many batches training and fine-tuning take together."""
        return (self.epochs + 1) * ceil(len(digits.images) / self.batch_size)


@dataclass(frozen=True)
class Cost:
    """What a network takes: parameters, multiply-accumulates of one sample, and seconds of one forward pass."""

    parameters: int
    macs: int
    seconds: float


@dataclass(frozen=True)
class Stage:
    """The network at one stage: `file_size` in bytes, `accuracy` in [0, 1]."""

    name: str
    cost: Cost
    file_size: int
    accuracy: float


@dataclass(frozen=True)
class Result:
    """What one framework's run gave; `files` are the models that it wrote."""

    framework: str
    stages: tuple[Stage, ...]
    conditions: str
    files: tuple[Path, ...]


def run_demo(demo: Demo, digits: Digits, settings: Settings, folder: Path, advance: Callable[[], None]) -> Result:
    """Train, prune, shrink, fine-tune, and save to `folder`; `advance()` is called after each batch."""

    def train(network: Any, epochs: int, rate: float) -> None:
        demo.train(
            network,
            digits.images,
            digits.labels,
            epochs=epochs,
            batch_size=settings.batch_size,
            learning_rate=rate,
            seed=settings.seed,
            advance=advance,
        )

    def accuracy(network: Any) -> float:
        return demo.accuracy(network, digits.test_images, digits.test_labels)

    example = demo.example_inputs(digits.test_images[: settings.batch_size])
    model = demo.build(settings.seed)
    train(model, settings.epochs, settings.learning_rate)
    pruner = algorithm("l1_norm")(model, CONFIG_LIST)
    accuracies, sizes = [accuracy(model)], [_file_size(model)]

    masked, masks = pruner.compress()
    accuracies.append(accuracy(masked))
    sizes.append(_file_size(masked))
    pruner.unwrap_model()

    small = ModelSpeedup(model, example, masks).speedup_model()
    accuracies.append(accuracy(small))
    train(small, 1, settings.learning_rate / 2)
    accuracies.append(accuracy(small))
    sizes += [_file_size(small)] * 2

    networks = (model, _masked_twin(demo, settings.seed), small)
    costs, conditions = _costs(networks, example)
    # Fine-tuning changes the numbers in the small network, not what it costs.
    stages = map(Stage, STAGES, [*costs, costs[-1]], sizes, accuracies)
    return Result(demo.framework, tuple(stages), conditions, _saved(demo, small, folder))


def _masked_twin(demo: Demo, seed: int) -> Any:
    """Return another network with masks: the model itself cannot be timed with and without them by turns."""
    return algorithm("l1_norm")(demo.build(seed), CONFIG_LIST).compress()[0]


def _costs(networks: Sequence[Any], example: Any) -> tuple[list[Cost], str]:
    """Return what each network costs, timed by turns, and the conditions of that."""
    adapters = [adapter_for(network) for network in networks]
    graphs = [adapter.trace(example, adapter.masks()).graph for adapter in adapters]
    seconds = medians_by_turns([partial(adapter.run, example) for adapter in adapters], REPEATS)
    conditions = f"batch {batch_size(graphs[0])}, median of {REPEATS} runs by turns on {hardware()}"
    sizes = map(footprint, adapters, graphs)
    return [Cost(size.parameters, size.macs, time) for size, time in zip(sizes, seconds, strict=True)], conditions


def _file_size(model: Any) -> int:
    """Return the bytes of the folder that `nnc.save` writes."""
    with TemporaryDirectory() as folder:
        save(model, folder)
        return sum(file.stat().st_size for file in Path(folder).iterdir())


def _saved(demo: Demo, small: Any, folder: Path) -> tuple[Path, ...]:
    """Write the small model twice: as nnc does, and as a file of the framework's own."""
    save(small, folder / "small")
    return folder / "small", demo.save_plain(small, folder)
