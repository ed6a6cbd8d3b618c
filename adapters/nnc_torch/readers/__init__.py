"""What each ATen operation is in the graph: one small reader an operation, in tables by what the operations do.

A reader returns False where the arguments are of a kind that it does not know; the operation is "unknown" then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nnc_torch.readers import attention, elementwise, reductions, shapes, weights
from nnc_torch.record import Call

READERS: dict[Any, Callable[[Call], bool | None]] = {
    **elementwise.READERS,
    **weights.READERS,
    **attention.READERS,
    **shapes.READERS,
    **reductions.READERS,
}
