"""What can be trained on: one number that follows from a parameter which learns."""

from __future__ import annotations

from typing import Any

import torch

from nnc.errors import NncError, TrainingError

#: Of a loss without a gradient.
NO_GRADIENT = (
    "the loss depends on no trainable parameter of the model, so it has no gradient; compute it from the model's outputs, without "
    "detach(), .item() or torch.no_grad()"
)


def scalar(value: Any, said: str = "loss: it is", error: type[NncError] = TrainingError) -> torch.Tensor:
    """Return a loss as a tensor without dimensions. Raises `error`, which begins with what is `said`, for one that is no scalar tensor."""
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
        raise error(f"{said} {kind}; one number is needed, as loss.mean() gives.")
    return value.reshape(())
