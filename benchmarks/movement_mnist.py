"""Movement pruning with distillation against one-shot L1 at the same size and the same training, on MNIST.

    NNC_DATA=... OMP_NUM_THREADS=1 python benchmarks/movement_mnist.py

784-300-100-10 in float32, 20,000 images, batch 64, Adam at 1e-3: 3 epochs, then 80 % of both hidden layers leave, with 3 epochs more.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import nnc
from nnc.mnist import load_digits

WHERE = {"op_names": ["0", "2"], "sparsity": 0.8}
DIGITS = load_digits(20_000)
IMAGES, TEST = (torch.as_tensor(each.reshape(-1, 784)) for each in (DIGITS.images, DIGITS.test_images))
LABELS, TEST_LABELS = torch.as_tensor(DIGITS.labels), torch.as_tensor(DIGITS.test_labels)


def train(model, optimizer, added=lambda loss: loss):
    for _ in range(3):
        for rows in torch.randperm(len(IMAGES)).split(64):
            optimizer.zero_grad()
            loss = added(cross_entropy(model(IMAGES[rows]), LABELS[rows]))
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model):
    return (model(TEST).argmax(1) == TEST_LABELS).float().mean().item()


def movement(model):
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    config = [{"algorithm": "movement", **WHERE, "cool_down": 400}, {"algorithm": "kl", "temperature": 2}]
    compressed = nnc.compress(model, config, IMAGES[:2], optimizer=optimizer)
    train(model, optimizer, compressed.loss)
    return compressed.speedup()


def one_shot(model):
    small = nnc.compress(model, [WHERE], IMAGES[:2]).speedup()
    train(small, torch.optim.Adam(small.parameters(), 1e-3))
    return small


def main() -> None:
    print(f"data: {DIGITS.source}")
    print("seed  trained (266,610)  movement + kl  one-shot L1  parameters")
    for seed in range(3):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))
        train(model, torch.optim.Adam(model.parameters(), 1e-3))
        ours, theirs = movement(deepcopy(model)), one_shot(deepcopy(model))
        sizes = {sum(parameter.numel() for parameter in each.parameters()) for each in (ours, theirs)}
        print(f"{seed:4}  {accuracy(model):17.2%}  {accuracy(ours):13.2%}  {accuracy(theirs):11.2%}  {sizes}")


if __name__ == "__main__":
    main()
