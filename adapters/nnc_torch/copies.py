"""Copy a module tree as copy.deepcopy does, an order of magnitude faster, and numbers only when one of the two copies is written.

A plain module, or config, is a dict of dicts: those are copied here. Everything else (hooks, what has a copy protocol of its own) goes
to copy.deepcopy, with the same memo, so that what is shared stays shared and what is already in the memo is taken from there.

The numbers of a copied parameter are the original's until an optimizer, or anything else, writes to either; torch then gives the writer
memory of its own. Asking for their address (`data_ptr`, `numpy`) counts as writing; `address` and `memory` do not.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

_PROTOCOL = (
    "__slots__",
    "__deepcopy__",
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__getnewargs__",
    "__getnewargs_ex__",
)
#: Their `__setstate__` only completes what old versions of torch pickled.
_PLAIN = (_ConvNd,)
#: Of fewer numbers than this, a copy costs no more than sharing them.
_LARGE = 4096
_SAME = frozenset([int, float, bool, str, type(None), torch.dtype, torch.device])


def copied(value: Any, memo: dict[int, Any]) -> Any:
    """Return a deep copy; `memo` maps the id of what is not to be copied to what takes its place."""
    if type(value) in _SAME:
        return value
    known = memo.get(id(value))
    if known is not None:
        return known
    if type(value) in (dict, OrderedDict):  # most of what a module holds
        memo[id(value)] = made = type(value)()
        for key, item in value.items():
            made[key] = item if type(item) in _SAME else copied(item, memo)
        return made
    if _is_plain(type(value)):
        return _object(value, memo)
    if type(value) is nn.Parameter or (type(value) is torch.Tensor and not value.requires_grad and not vars(value)):
        memo[id(value)] = made = _tensor(value)
        return made
    if type(value) is set and not value:
        return set()
    if type(value) is tuple and all(type(item) in _SAME for item in value):
        return value
    return copy.deepcopy(value, memo)


def _tensor(value: torch.Tensor) -> torch.Tensor:
    data = lazily(value.detach())
    return nn.Parameter(data, value.requires_grad) if isinstance(value, nn.Parameter) else data


def lazily(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy that takes no memory of its own until one of the two is written; on a CPU, and a plain copy where torch cannot.

    It cannot where others own the memory (NumPy, another process, a file), and it would keep all of it where the tensor is a part.
    """
    if tensor.device.type == "cpu" and tensor.numel() >= _LARGE and _is_whole(tensor):
        try:
            return torch._lazy_clone(tensor)
        except RuntimeError:
            pass
    return tensor.clone(memory_format=torch.preserve_format)


def _is_whole(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def address(tensor: torch.Tensor) -> int:
    """Return where a tensor's numbers lie, 0 where it has none."""
    return torch._C._data_address(tensor)


def memory(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return what identifies a tensor's numbers: equal for two parameters that were tied through their memory."""
    # A lazy copy lies where its original does, and is not tied to it.
    lazy = torch._C._is_cow_tensor(tensor)
    place = (tensor.untyped_storage()._cdata, tensor.storage_offset()) if lazy else address(tensor)
    return place or id(tensor), tensor.dtype, tensor.shape, tensor.stride()


def _object(original: Any, memo: dict[int, Any]) -> Any:
    made = memo[id(original)] = object.__new__(type(original))
    for name, value in vars(original).items():
        made.__dict__[name] = value if type(value) in _SAME else copied(value, memo)
    return made


@cache
def _is_plain(cls: type) -> bool:
    """Say whether all that there is to an object is what its __dict__ holds: a class written in Python that leaves copying to its bases."""
    if cls.__new__ is not object.__new__ or not cls.__dictoffset__:
        return False  # what C code made may hold more
    own = [vars(base) for base in cls.__mro__ if base not in (nn.Module, object, *_PLAIN)]
    return not any(names.get(name) for names in own for name in _PROTOCOL)
