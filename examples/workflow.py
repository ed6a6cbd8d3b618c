"""What the three workflows share: the command line, the data, and a line for each result."""

from __future__ import annotations

import argparse
from importlib import import_module
from types import ModuleType

from nnc.mnist import Digits, load_digits

CONFIG_LIST = [{"op_types": ["Linear", "Conv2d"], "sparsity": 0.5}, {"op_names": ["fc2"], "exclude": True}]


def arguments(description: str) -> tuple[ModuleType, Digits, int]:
    """Return the module with the user's network and training (digits_torch or digits_keras), the data, and the epochs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--framework", choices=("torch", "keras"), default="torch")
    parser.add_argument("--limit", type=int, help="use only so many images")
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    digits = load_digits(given.limit)
    print(f"data: {digits.source}")
    return import_module(f"digits_{given.framework}"), digits, given.epochs


def show(user: ModuleType, digits: Digits, stage: str, model: object) -> None:
    """Print the model's accuracy on the test images."""
    print(f"{stage:32} accuracy {user.accuracy(model, digits.test_images, digits.test_labels):.2%}")
