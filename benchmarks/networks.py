"""The networks that the benchmarks prune: built from a configuration, so that nothing has to be downloaded."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

#: What each network takes as one sample, and the layer that gives its classes: that one is left alone.
INPUTS = {"lenet": (1, 28, 28), "resnet50": (3, 224, 224)}
HEADS = {"lenet": "fc2", "resnet50": "classifier.1"}


class LeNet(nn.Module):
    """The MNIST network of NNI's examples."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        # Torch-Pruning cannot change sizes that stand in the code, as in view(-1, 800); nnc can. This runs with both.
        x = x.flatten(1)
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)


class ResNet50(nn.Module):
    """transformers' ResNet-50 with random weights, from an image to logits."""

    def __init__(self) -> None:
        from transformers import ResNetConfig, ResNetForImageClassification

        super().__init__()
        classifier = ResNetForImageClassification(ResNetConfig(num_labels=1000))
        self.resnet, self.classifier = classifier.resnet, classifier.classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.resnet(x).pooler_output)


NETWORKS = {"lenet": LeNet, "resnet50": ResNet50}
