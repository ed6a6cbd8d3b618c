"""What a PyTorch user has before nnc: a network, a training loop and a test. Nothing here knows of nnc."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset


class LeNet(nn.Module):
    """The MNIST network of NNI's examples, with the size of its features written into `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, 4 * 4 * 50)
        x = F.relu(self.fc1(x))
        return F.log_softmax(self.fc2(x), dim=1)


def build() -> LeNet:
    """Return a fresh network, always the same one."""
    torch.manual_seed(0)
    return LeNet()


def inputs(images) -> torch.Tensor:
    """Return `(n, 28, 28)` images as the network's input `(n, 1, 28, 28)`."""
    return torch.from_numpy(images)[:, None]


def train(model: nn.Module, images, labels, epochs: int) -> None:
    """Train with Adam in batches of 64; the usual loop."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    data = TensorDataset(inputs(images), torch.from_numpy(labels))
    batches = DataLoader(data, batch_size=64, shuffle=True)
    model.train()
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            F.nll_loss(model(x), y).backward()
            optimizer.step()


def accuracy(model: nn.Module, images, labels) -> float:
    """Return the share of right answers."""
    model.eval()
    with torch.inference_mode():
        return float((model(inputs(images)).argmax(1).numpy() == labels).mean())


def reinitialise(model: nn.Module) -> nn.Module:
    """Return the network with fresh weights."""
    for layer in model.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return model
