"""Where the user's data stand: a `tf.data` pipeline that shuffles draws another seed each time that it is run through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf


def data_state(data: Any, runs: int) -> dict[str, Any]:
    """Return how often a pipeline has been begun, which is all that TensorFlow lets be known of its state."""
    return {"runs": runs} if isinstance(data, tf.data.Dataset) else {}


def set_data_state(data: Any, state: Mapping[str, Any], runs: int) -> None:
    for _ in range(state.get("runs", 0) - runs):
        iter(data)  # draws the seeds of a run, and reads nothing
