"""The small network of nnc.testing's contracts: two convolutions with BatchNorm, a residual add, two linear layers."""

from __future__ import annotations

import torch
from torch import nn

from nnc.trainer import Trainer


class Example(nn.Module):
    """Input (n, 2, 8, 8), output (n, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.fc1 = nn.Linear(8 * 4 * 4, 12)
        self.fc2 = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x + self.conv2(x)
        x = nn.functional.max_pool2d(x, 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


def build() -> tuple[nn.Module, torch.Tensor]:
    """Return the network, no number in it zero or one, and inputs for it; the same at each call."""
    generator = torch.Generator().manual_seed(0)
    model = Example()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        model.bn1.running_mean.copy_(torch.randn(8, generator=generator))
        model.bn1.running_var.copy_(torch.rand(8, generator=generator) + 0.5)
    return model, torch.randn(2, 2, 8, 8, generator=generator)


def trainer() -> Trainer:
    """Return a trainer of two steps on random numbers."""
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(4, 2, 8, 8, generator=generator), torch.randn(4, 3, generator=generator)) for _ in range(2)]
    return Trainer(data, nn.functional.mse_loss, lambda parameters: torch.optim.SGD(parameters, 1e-3), progress=False)
