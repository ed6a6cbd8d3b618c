"""Which attention heads a plan removes, a line for each layer: `layer 3 prune 5 head: [2, 3, 4, 6, 8]`."""

from __future__ import annotations

import re
from collections import Counter

from nnc.graph.plan import Plan


def removed_heads(plan: Plan) -> list[str]:
    """Return the lines, in the order of the layers; none where no heads leave.

    A layer is called by its number, or by its path where several have that number, as in an encoder and its decoder.
    A group is one of heads where blocks of rows leave together with blocks of columns as wide, those of the projection behind them.
    """
    found: list[tuple[str, tuple[int, ...]]] = []
    for group in plan.groups:
        rows = [member for member in group.members if member.axis == 0 and member.inner > 1 and member.tensor.endswith("weight")]
        if rows and any(member.axis == 1 and member.inner == rows[0].inner for member in group.members):
            found.append((group.members[0].tensor.rpartition(".")[0], rows[0].removed))
    times = Counter(_number(path) for path, _ in found)
    names = [_number(path) if times[_number(path)] == 1 else path for path, _ in found]
    return [f"layer {name} prune {len(removed)} head: {list(removed)}" for name, (_, removed) in zip(names, found, strict=True)]


def _number(path: str) -> str:
    """Return the layer's number where its path has one, else the path."""
    numbers = re.findall(r"(?<=[._])\d+(?=[._]|$)", path)
    return numbers[0] if numbers else path
