"""`nnc demo`: train a small CNN on digits, prune half of it, shrink it, fine-tune it, and say what that cost and gave.

The flow is the same for every framework; what differs stands behind `Demo`, which an adapter's package registers with
`nnc_register_demos`. Images are `(n, 28, 28)` float32 in [0, 1], labels `(n,)` int64; a Demo puts them into its own layout.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from nnc.graph.ir import Array


class Demo(Protocol):
    """The network of the demo on one framework: conv1 1->20, conv2 20->50 (5x5), fc1 800->500, fc2 500->10, log_softmax."""

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
