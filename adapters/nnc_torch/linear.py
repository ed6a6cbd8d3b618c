"""torch's linear layer: the same operations wherever its input lies in memory.

torch takes a layer over more than two axes apart in another way where these do not lie one after the other, as behind `y[..., ::2]`. The
small model's may, behind `y[..., [0, 1, 3]]`, and it has to show the same operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from nnc_torch import multihead
from nnc_torch.literals import within
from nnc_torch.record import Recorder


def handlers(recorder: Recorder) -> dict[Any, Callable[..., Any]]:
    """Return what to do in the place of torch's function while `recorder` records."""

    def linear(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        scattered = not within(multihead) and x.dim() > 2 and x.layout == torch.strided and not x.is_contiguous()
        return functional.linear(recorder.in_rows(x) if scattered else x, *args, **kwargs)

    return {functional.linear: linear}
