"""The tests' networks on PyTorch, as a user writes them."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


class LeNet(nn.Module):
    """Input (n, 1, 28, 28); `view` has its 800 hard-coded."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(4 * 4 * 50, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2, 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2, 2)
        x = x.view(-1, 4 * 4 * 50)
        x = F.relu(self.fc1(x))
        return F.log_softmax(self.fc2(x), dim=1)


class Residual(nn.Module):
    """Input (n, 3, 12, 12): BatchNorm, a depthwise convolution, a residual add, a concat."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stem_bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.depthwise_bn = nn.BatchNorm2d(8)
        self.project = nn.Conv2d(8, 8, 1)
        self.mix = nn.Conv2d(16, 12, 3)
        self.hidden = nn.Linear(12, 16)
        self.classes = nn.Linear(16, 5)

    def forward(self, x):
        stem = torch.relu(self.stem_bn(self.stem(x)))
        x = self.project(torch.relu(self.depthwise_bn(self.depthwise(stem))))
        x = torch.relu(self.mix(torch.cat([x + stem, stem], dim=1)))
        return self.classes(torch.relu(self.hidden(x.mean(dim=(2, 3)))))
