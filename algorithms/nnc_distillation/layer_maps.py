"""Which layer of the teacher a layer of the student learns from; both are counted from 0.

default     r = N_t // N_s: student layer i <- teacher layer (i + 1) r - 1: the last of each block
skip        PKD: every r-th layer, the last one apart
last        PKD: the layers before the last one
"""

from __future__ import annotations

from collections.abc import Sequence

from nnc.errors import ConfigError

Pairs = list[tuple[int, int]]


def pairs(given: str | Sequence[int | tuple[int, int]] | None, student: int, teacher: int, place: str) -> Pairs:
    """Return (student layer, teacher layer) for a layer map as the user writes it.

    A list of numbers gives the teacher's layer for each of the student's layers (for PKD's the last but one: the list may be one
    shorter); a list of pairs names both. Negative numbers count from the end. Raises `ConfigError`, with `place`, that names the counts.
    """
    if given is None:
        return _default(student, teacher, place)
    if isinstance(given, str):
        ratio = _ratio(student, teacher, place)
        if student < 2:
            raise ConfigError(f"{place}: {given!r} leaves out the last layer, and the student has no other.")
        return [(i, (i + 1) * ratio - 1 if given == "skip" else teacher - student + i) for i in range(student - 1)]
    both = [entry if isinstance(entry, Sequence) else (i, entry) for i, entry in enumerate(given)]
    if len(both) > student:
        raise ConfigError(f"{place}: it has {len(both)} entries; the student has {student} layers.")
    return [(within(s, student, "student", place), within(t, teacher, "teacher", place)) for s, t in both]


def _default(student: int, teacher: int, place: str) -> Pairs:
    ratio = _ratio(student, teacher, place)
    return [(i, (i + 1) * ratio - 1) for i in range(student)]


def _ratio(student: int, teacher: int, place: str) -> int:
    if teacher < student:
        raise ConfigError(f"{place}: the student has {student} layers and the teacher {teacher}: say which learns from which.")
    return teacher // student


def within(index: int, count: int, side: str, place: str) -> int:
    if not -count <= index < count:
        raise ConfigError(f"{place}: there is no layer {index}; the {side} has {count} layers, 0 to {count - 1}.")
    return index % count
