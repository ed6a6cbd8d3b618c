"""Time models against each other fairly: in one process, by turns, after a warm-up, and say on what.

Two medians taken one after the other also measure what else the machine did meanwhile; taken by turns they do not.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter


@dataclass(frozen=True)
class Latency:
    """Median seconds of one forward pass before and after, and what they were measured on."""

    before: float
    after: float
    batch: int
    repeats: int
    hardware: str

    @property
    def conditions(self) -> str:
        """What a reader must know to judge the numbers."""
        return f"batch {self.batch}, median of {self.repeats} runs by turns on {self.hardware}"


def medians_by_turns(calls: Sequence[Callable[[], object]], repeats: int, warm_up: int = 3) -> list[float]:
    """Return the median wall-clock seconds of each call, all of them measured by turns."""
    for _ in range(warm_up):
        for call in calls:
            call()
    rounds = [[_seconds(call) for call in calls] for _ in range(repeats)]
    return [median(seconds) for seconds in zip(*rounds, strict=True)]


def turns_within(seconds: float, calls: Sequence[Callable[[], object]], most: int = 30, least: int = 5) -> int:
    """Return how many turns of all calls take about so many seconds, between `least` and `most`, as one turn now tells."""
    return max(least, min(most, int(seconds / max(sum(map(_seconds, calls)), 1e-9))))


def hardware() -> str:
    """Name the processor and how much of it this process may use: `AMD EPYC, 2 cores, OMP_NUM_THREADS=1`."""
    threads = os.environ.get("OMP_NUM_THREADS")
    return f"{_processor()}, {_cores()} cores" + (f", OMP_NUM_THREADS={threads}" if threads else "")


def _seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def _processor() -> str:
    # platform.processor() is empty, or only the architecture, on Linux.
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    # A container or taskset may leave the process fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
