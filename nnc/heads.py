"""Which attention heads a plan removes, a line for each layer: `layer 3 prune 5 head: [2, 3, 4, 6, 8]`."""

from __future__ import annotations

import re

from nnc.graph.plan import Group, Plan


def removed_heads(plan: Plan) -> list[str]:
    """Return the lines, in the order of the layers; none where no heads leave.

    A group is one of heads where blocks of rows leave together with blocks of columns as wide, those of the projection behind them.
    """
    found = []
    for group in plan.groups:
        rows = [member for member in group.members if member.axis == 0 and member.inner > 1 and member.tensor.endswith("weight")]
        if rows and any(member.axis == 1 and member.inner == rows[0].inner for member in group.members):
            found.append(f"layer {_number(group)} prune {len(rows[0].removed)} head: {list(rows[0].removed)}")
    return found


def _number(group: Group) -> str:
    """Return the layer's number where its path has one, else the path."""
    path = group.members[0].tensor.rpartition(".")[0]
    numbers = re.findall(r"(?<=[._])\d+(?=[._]|$)", path)
    return numbers[0] if numbers else path
