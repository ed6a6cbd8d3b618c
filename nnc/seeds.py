"""One seed for all random numbers that a step of a run may draw."""

from __future__ import annotations

import random
from typing import Any

import numpy as np


def seed_all(adapter: Any, seed: int) -> None:
    """Seed Python, NumPy and the framework. What a generator of the user's own draws is the user's to seed."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if hasattr(adapter, "seed"):  # a framework that does not train draws nothing
        adapter.seed(seed % 2**32)
