"""Programs that failed once, found by random search: they are tried each time."""

from __future__ import annotations

from typing import Any

from tests.property.programs import Program, Step, Value


def chain(shape: tuple[int, ...], *steps: tuple[str, tuple[int, ...], dict[str, Any], str]) -> Program:
    """Return a program on plain values whose steps (operation, shape, attributes, layer) each read the one before; `max` reads it twice."""
    made = [
        Step(op, (number, number) if op == "max" else (number,), (Value("plain", out),), attrs, layer)
        for number, (op, out, attrs, layer) in enumerate(steps)
    ]
    return Program(Value("plain", shape), tuple(made))


#: torch's maximum told nothing of what is known: a group behind it was thought to be needed.
MAXIMUM = chain(
    (2, 3, 6),
    ("linear", (2, 3, 4), {"out": 4, "bias": True}, "fc0"),
    ("max", (2, 3, 4), {}, ""),
    ("reduce", (2, 4), {"axes": (1,), "keep": False, "function": "mean"}, ""),
    ("linear", (2, 3), {"out": 3, "bias": True}, "fc1"),
)

#: sigmoid(0) times a matrix that no module holds: a file may add a constant behind it, a module's code may not.
CONSTANT = chain(
    (2, 5),
    ("linear", (2, 4), {"out": 4, "bias": True}, "fc0"),
    ("act", (2, 4), {"function": "sigmoid"}, ""),
    ("bare", (2, 2), {"out": 2, "how": "matmul"}, "bare1"),
    ("linear", (2, 3), {"out": 3, "bias": True}, "fc2"),
)
