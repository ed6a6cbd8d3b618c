"""See weights through masks: a parametrization stands in front of the stored Parameter, which itself never changes.

    conv1.weight              where(keep, stored, 0), computed on every read
    the stored Parameter      the same object as before, so that an optimizer made earlier stays valid

A masked weight gets no gradient, and what an optimizer's momentum or weight decay does to the stored number is never seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from nnc.adapter import Masks
from nnc.graph.known import distinct
from nnc_torch import objectives, views
from nnc_torch.chains import attach, detach
from nnc_torch.layers import canonical, layers_of, maskable_tensors, native, parametrizations, private, public
from nnc_torch.ops import only


class Mask(nn.Module):
    """A parametrization that shows 0 where `keep` is False. `keep` moves with the model but stays out of its state_dict."""

    def __init__(self, keep: torch.Tensor) -> None:
        super().__init__()
        self.keep: torch.Tensor
        self.register_buffer("keep", keep, persistent=False)

    def forward(self, stored: torch.Tensor) -> torch.Tensor:
        return only(stored, self.keep)  # not a product: 0 * nan is nan


class StatisticMask(Mask):
    """A mask over a running mean. In training that is written and not read, so what is stored is shown."""

    def forward(self, stored: torch.Tensor) -> torch.Tensor:
        return stored if self.training else super().forward(stored)


def masks_of(model: nn.Module) -> Masks:
    """Return the masks on a model, in canonical shapes."""
    found: Masks = {}
    for layer, module, parameter, mask in _masked(model):
        found.setdefault(layer, {})[public(module, parameter)] = canonical(module, parameter, mask.keep).cpu().numpy()
    return found


def set_masks(model: nn.Module, masks: Masks) -> None:
    """Replace all masks on a model; after an exception the old ones are back."""
    before = masks_of(model)
    try:
        _remove(model)
        _add(model, masks)
    except BaseException:
        _remove(model)
        _add(model, before)
        raise


@contextmanager
def unmasked(model: nn.Module) -> Iterator[None]:
    """Take the masks off while the block runs, and what training puts on a model besides: it is the user's own."""
    before = masks_of(model)
    with objectives.set_aside(model), views.set_aside(model):
        if before:
            _remove(model)
        try:
            yield
        finally:
            if before:
                _add(model, before)


def native_masks(model: nn.Module, masks: Masks) -> dict[int, torch.Tensor]:
    """Return `{id(stored parameter): keep}` in torch's layouts and on its devices; tied parameters get the masks of all their names."""
    found: dict[int, torch.Tensor] = {}
    for layer, module in layers_of(model) if masks else ():
        stored = maskable_tensors(module)
        for name, mask in masks.get(layer, {}).items():
            parameter = private(module, name)
            tensor = stored[parameter]
            keep = _tensor(native(module, parameter, np.asarray(mask, bool))).to(tensor.device)
            if keep.shape != tensor.shape:
                raise ValueError(f"{layer}.{parameter}: a mask of shape {tuple(keep.shape)} on {tuple(tensor.shape)}")
            found[id(tensor)] = found[id(tensor)] & keep if id(tensor) in found else keep
    return found


def _tensor(mask: np.ndarray) -> torch.Tensor:
    """Return a mask as a tensor that repeats what the array does: a mask of whole rows takes no more memory than they are."""
    return torch.from_numpy(np.require(distinct(mask), requirements=("C", "W"))).expand(mask.shape)


def _add(model: nn.Module, masks: Masks) -> None:
    keeps = native_masks(model, masks)
    for _, module in layers_of(model):
        for parameter, tensor in maskable_tensors(module).items():
            if id(tensor) in keeps:
                kind = StatisticMask if parameter == "running_mean" else Mask
                attach(module, parameter, kind(keeps[id(tensor)].contiguous()), first=True)


def _remove(model: nn.Module) -> None:
    for _, module, parameter, mask in list(_masked(model)):
        detach(module, parameter, mask)


def _masked(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Mask]]:
    for layer, module in layers_of(model):
        for parameter, chain in parametrizations(module).items():
            yield from ((layer, module, parameter, mask) for mask in chain if isinstance(mask, Mask))
