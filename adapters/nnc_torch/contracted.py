"""torch.einsum of two operands, by the same operations for all sizes.

torch takes an axis of size 1 out of the product that it makes of an einsum. An attention of which one head is left would then show other
operations than the one of several heads, and could not be compared with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nnc.graph.einsum import Operand, product
from nnc_torch.record import Recorder


def handlers(recorder: Recorder) -> dict[Any, Callable[..., Any]]:
    """Return what to do in the place of torch's function while `recorder` records."""
    return {torch.einsum: einsum}


def einsum(equation: Any, *given: Any) -> torch.Tensor:
    """Return what torch.einsum does, by transposes, reshapes and one product where it is a product of two operands."""
    operands = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
    known = isinstance(equation, str) and len({operand.dtype for operand in operands}) == 1
    found = product(equation, [tuple(operand.shape) for operand in operands]) if known else None
    if found is None:
        return torch.einsum(equation, *given)
    left, right = (_arranged(operand, way) for operand, way in zip(operands, (found.left, found.right), strict=True))
    return torch.matmul(left, right).reshape(found.split).permute(found.permutation)


def _arranged(x: torch.Tensor, way: Operand) -> torch.Tensor:
    """Return an operand as (*batch, rows, columns)."""
    return x.permute(way.permutation).reshape(way.shape)
