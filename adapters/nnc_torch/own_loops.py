"""The loss of a loop of the user's own: looked at before it reaches the weights, as far as that costs a step nothing."""

from __future__ import annotations

from math import isfinite
from typing import Any

import torch
from torch import nn

from nnc.errors import TrainingError
from nnc_torch.inference import inference
from nnc_torch.instruments import instruments
from nnc_torch.nonfinite import first_not_finite
from nnc_torch.objectives import Call, total
from nnc_torch.scalars import scalar


def users_total(model: nn.Module, loss: Any, mask: Any = None) -> torch.Tensor:
    """Return `total` for a loop of the user's own. Raises `TrainingError` for a loss that would spoil the weights in the next step."""
    if model.training and loss is not None and not isinstance(loss, (int, float)):
        scalar(loss)
    watch = instruments(model).watch
    call = watch.call if watch is not None else None
    found = total(model, loss, mask)
    if call is not None and _can_be_checked(found, call) and not torch.isfinite(found).all():
        raise TrainingError(_blame(model, loss, found, call))
    return found


def _can_be_checked(loss: torch.Tensor, call: Call) -> bool:
    """Say whether to look at a loss: not where that waits for a device, nor in float16, where a GradScaler leaves such steps out."""
    half = torch.float16 in (loss.dtype, call[2])
    return loss.device.type == "cpu" and not half and not torch.compiler.is_compiling()


def _blame(model: nn.Module, loss: Any, found: torch.Tensor, call: Call) -> str:
    own = 0.0 if loss is None else float(loss.detach()) if isinstance(loss, torch.Tensor) else float(loss)
    if isfinite(own):
        terms = ", ".join(f"{name} is {float(term)}" for name, term in instruments(model).watch.latest.items() if name != "task")
        return f"loss: with its terms it is {float(found.detach())}: {terms}."
    args, kwargs, _ = call

    def forward_alone() -> None:
        model(*args, **kwargs)

    with inference(model):
        where = first_not_finite(model, forward_alone, (args, kwargs))
    return f"loss: it is {own}; {where}."
