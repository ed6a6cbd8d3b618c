"""CPU seconds by turns: on a machine that also does other work, the clock on the wall measures the others too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import process_time

#: CPU seconds to spend on one pair of calls, and how often at least and at most.
BUDGET, FEWEST, MOST = 2.0, 3, 25


def medians_by_turns(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Return the median CPU seconds of each call, measured by turns after a warm-up."""
    return [median(seconds) for seconds in zip(*rounds_by_turns(calls), strict=True)]


def rounds_by_turns(calls: Sequence[Callable[[], object]], repeats: int | None = None) -> list[list[float]]:
    """Return the CPU seconds of each call, `(rounds, calls)`, measured by turns after a warm-up; as many rounds as told, or as fit."""
    for call in calls:
        call()
    rounds = [[_seconds(call) for call in calls]]
    repeats = repeats or int(min(MOST, max(FEWEST, BUDGET / sum(rounds[0]))))
    return rounds + [[_seconds(call) for call in calls] for _ in range(repeats - 1)]


def _seconds(call: Callable[[], object]) -> float:
    start = process_time()
    call()
    return process_time() - start
