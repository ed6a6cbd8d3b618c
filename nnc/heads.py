"""Which attention heads a plan removes, a line for each layer: `layer 3 prune 5 head: [2, 3, 4, 6, 8]`."""

from __future__ import annotations

import re
from collections import Counter

from nnc.graph.plan import Group, Member, Plan


def removed_heads(plan: Plan) -> list[str]:
    """Return the lines, in the order of the groups; none where no heads leave.

    A layer is called by its number, or by its path where several have that number, as in an encoder and its decoder.
    """
    found = [(path, removed) for group in plan.groups for path, removed in _attentions(group).items()]
    times = Counter(_number(path) for path, _ in found)
    names = [_number(path) if times[_number(path)] == 1 else path for path, _ in found]
    return [f"layer {name} prune {len(removed)} head: {list(removed)}" for name, (_, removed) in zip(names, found, strict=True)]


def _attentions(group: Group) -> dict[str, tuple[int, ...]]:
    """Return the heads that leave, by the path of the first projection of each attention; none where the group is none of heads.

    It is one where blocks of rows leave together with blocks of columns as wide, those of the projection behind them. Layers that share
    what each head adds, as T5's do their table of positions, lose the same heads in one group.
    """
    rows = [member for member in group.members if member.axis == 0 and member.inner > 1 and member.tensor.endswith("weight")]
    if not any(member.axis == 1 and member.inner == rows[0].inner for member in group.members if rows):
        return {}
    first: dict[str, Member] = {}
    for member in rows:
        path = member.tensor.rpartition(".")[0]
        first.setdefault(path.rpartition(".")[0], member)
    return {member.tensor.rpartition(".")[0]: member.removed for member in first.values()}


def _number(path: str) -> str:
    """Return the layer's number where its path has one, else the path."""
    numbers = re.findall(r"(?<=[._])\d+(?=[._]|$)", path)
    return numbers[0] if numbers else path
