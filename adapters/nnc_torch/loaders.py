"""Where the user's data stand: a DataLoader that shuffles by a generator of its own goes on with the state that this has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader


def data_state(data: Any) -> dict[str, Any]:
    """Return the states of a loader's generators, in hexadecimal."""
    return {name: bytes(generator.get_state().tolist()).hex() for name, generator in _generators(data).items()}


def set_data_state(data: Any, state: Mapping[str, Any]) -> None:
    for name, generator in _generators(data).items():
        if name in state:
            generator.set_state(torch.tensor(list(bytes.fromhex(state[name])), dtype=torch.uint8))


def _generators(data: Any) -> dict[str, torch.Generator]:
    if not isinstance(data, DataLoader):
        return {}
    held = {"loader": data, "sampler": data.sampler, "batches": getattr(data.batch_sampler, "sampler", None)}
    found = {name: getattr(holder, "generator", None) for name, holder in held.items()}
    return {name: generator for name, generator in found.items() if isinstance(generator, torch.Generator)}
