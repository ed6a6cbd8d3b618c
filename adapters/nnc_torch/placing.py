"""A batch on the model's device: tensors are moved, NumPy arrays (and what gives them) become tensors, the rest stays.

Real numbers of NumPy's, which has float64 where nobody asked for it, come in the type that the model computes in, as Keras has it; whole
numbers, and tensors, keep theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from nnc_torch.instruments import device_of


def batch_for(model: nn.Module, batch: Any) -> Any:
    """Return a batch as a model takes it."""
    kinds = (tensor.dtype for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point())
    return placed(batch, device_of(model), next(kinds, None))


def placed(batch: Any, device: torch.device, real: torch.dtype | None = None) -> Any:
    """Return a batch with all its tensors on a device, real numbers of NumPy's as `real`."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {name: placed(value, device, real) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(placed(value, device, real) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(placed(value, device, real) for value in batch)
    if hasattr(batch, "__array__"):  # NumPy's, or a tf.Tensor of a tf.data.Dataset
        tensor = torch.as_tensor(np.array(batch))
        return tensor.to(device, real if tensor.is_floating_point() else None)
    return batch
