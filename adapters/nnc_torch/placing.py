"""A batch on the model's device: tensors are moved, NumPy arrays (and what gives them) become tensors, the rest stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def placed(batch: Any, device: torch.device) -> Any:
    """Return a batch with all its tensors on a device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, np.ndarray | np.generic):
        return torch.as_tensor(np.array(batch)).to(device)
    if isinstance(batch, Mapping):
        return {name: placed(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(placed(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(placed(value, device) for value in batch)
    if hasattr(batch, "__array__"):  # a tf.Tensor of a tf.data.Dataset
        return torch.as_tensor(np.array(batch)).to(device)
    return batch
