"""The network of `nnc demo` in PyTorch, written as a user would write it: with the flattened size as a number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from nnc.graph.ir import Array
from nnc_torch.inference import inference


class Net(nn.Module):
    """Input (n, 1, 28, 28), output the log-probabilities of ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = x.view(-1, 4 * 4 * 50)
        x = functional.relu(self.fc1(x))
        return functional.log_softmax(self.fc2(x), dim=1)


class TorchDemo:
    """What `nnc demo` asks of PyTorch."""

    framework = "PyTorch"

    def build(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Net()

    def train(
        self,
        model: nn.Module,
        images: Array,
        labels: Array,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        seed: int,
        advance: Callable[[], None],
    ) -> None:
        inputs, targets = self.example_inputs(images), torch.from_numpy(np.asarray(labels, np.int64))
        shuffle = torch.Generator().manual_seed(seed)
        steps = epochs * -(-len(inputs) // batch_size)
        optimizer = torch.optim.Adam(model.parameters(), learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
        model.train()
        for _ in range(epochs):
            for batch in torch.randperm(len(inputs), generator=shuffle).split(batch_size):
                optimizer.zero_grad()
                functional.nll_loss(model(inputs[batch]), targets[batch]).backward()
                optimizer.step()
                schedule.step()
                advance()

    def accuracy(self, model: nn.Module, images: Array, labels: Array) -> float:
        with inference(model):
            found = [model(batch).argmax(1) for batch in self.example_inputs(images).split(1000)]
        return float((torch.cat(found).numpy() == np.asarray(labels)).mean())

    def example_inputs(self, images: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]

    def save_plain(self, model: nn.Module, folder: Path) -> Path:
        path = Path(folder) / "model.pt2"
        with inference(model):
            dynamic = ({0: torch.export.Dim("batch")},)
            torch.export.save(torch.export.export(model, (torch.zeros(2, 1, 28, 28),), dynamic_shapes=dynamic, strict=False), path)
        return path
