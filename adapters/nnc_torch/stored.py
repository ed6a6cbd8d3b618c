"""A model's numbers by name, in torch's own layouts: what `nnc.save` writes and `nnc.load` reads.

The names are those of the unmasked model's state_dict; a tied parameter stands under its first name only. NumPy has no bfloat16
and no float8: these travel as their bits, in unsigned integers of the same width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from nnc.graph.ir import Array
from nnc.storage import require_same_tensors
from nnc_torch.layers import join, layers_of, stored_parameters

_BITS = {1: torch.uint8, 2: torch.uint16}


def _named(model: nn.Module) -> dict[str, torch.Tensor]:
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for layer, module in layers_of(model):
        buffers = {n: b for n, b in module._buffers.items() if b is not None and n not in module._non_persistent_buffers_set}
        for name, tensor in (stored_parameters(module) | buffers).items():
            found.setdefault(id(tensor), (join(layer, name), tensor))
    return dict(found.values())


def tensors(model: nn.Module) -> dict[str, Array]:
    """Return every stored parameter and buffer."""
    return {name: _array(tensor.detach().cpu()) for name, tensor in _named(model).items()}


def _array(tensor: torch.Tensor) -> Array:
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.contiguous().view(_BITS[tensor.element_size()]).numpy()


def load_tensors(model: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Set every stored parameter and buffer. Raises StorageError, before any is set, where the names or the shapes differ."""
    named = _named(model)
    require_same_tensors({name: tuple(tensor.shape) for name, tensor in named.items()}, arrays)
    with torch.no_grad():
        for name, tensor in named.items():
            tensor.copy_(_tensor(np.asarray(arrays[name]), tensor.dtype))


def _tensor(array: Array, dtype: torch.dtype) -> torch.Tensor:
    plain = torch.from_numpy(np.array(array))
    as_bits = plain.dtype in _BITS.values() and dtype.is_floating_point and plain.element_size() == dtype.itemsize
    return plain.view(dtype) if as_bits else plain
