"""Programs that failed once, found by random search: they are tried each time."""

from __future__ import annotations

from dataclasses import replace
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

#: What only an unused layer reads was offered, although nothing that reaches an output sums over it: an exporter drops such a layer.
UNUSED = Program(
    Value("image", (2, 3, 4, 4)),
    (
        Step("conv", (0,), (Value("image", (2, 6, 4, 4)),), {"out": 6, "kernel": 1, "groups": 1, "bias": True, "padded": True}, "conv0"),
        Step("conv", (1,), (Value("image", (2, 4, 4, 4)),), {"out": 4, "kernel": 3, "groups": 1, "bias": True, "padded": True}, "conv1"),
        Step("slice", (1,), (Value("image", (2, 3, 4, 4)),), {"axis": 1, "start": 0, "stop": 3, "step": 1}),
        Step("reduce", (3,), (Value("plain", (2, 3)),), {"axes": (2, 3), "keep": False, "function": "mean"}),
        Step("linear", (4,), (Value("plain", (2, 3)),), {"out": 3, "bias": True}, "fc2"),
    ),
)

#: All outputs but one are unread: one group of one granule, which a cut behind it kept in a file only.
REPEATED = chain(
    (2, 5),
    ("linear", (2, 8), {"out": 8, "bias": True}, "fc0"),
    ("gather", (2, 8), {"axis": 1, "index": (0,) * 8}, ""),
    ("slice", (2, 7), {"axis": 1, "start": 0, "stop": 7, "step": 1}, ""),
    ("linear", (2, 3), {"out": 3, "bias": True}, "fc1"),
)

#: Nothing but the shuffle itself holds the sides of its blocks: one of four channels was taken to leave, and the file did not load.
PIXELS = Program(
    Value("image", (2, 3, 4, 4)),
    (
        Step("conv", (0,), (Value("image", (2, 4, 4, 4)),), {"out": 4, "kernel": 1, "groups": 1, "bias": True, "padded": True}, "conv0"),
        Step("act", (1,), (Value("image", (2, 4, 4, 4)),), {"function": "relu"}),
        Step("pixels", (2,), (Value("image", (2, 1, 8, 8)),)),
        Step("flatten", (3,), (Value("plain", (2, 64)),), {"order": "NCHW", "first": True}),
        Step("linear", (4,), (Value("plain", (2, 3)),), {"out": 3, "bias": True}, "fc1"),
    ),
)

#: A constant in front of a product without a bias whose weight the network itself holds: a bias was looked for in a layer that is none.
LOOSE = replace(
    chain(
        (2, 5),
        ("linear", (2, 6), {"out": 6, "bias": True}, "fc0"),
        ("act", (2, 6), {"function": "sigmoid"}, ""),
        ("linear", (2, 4), {"out": 4, "bias": False}, "fc1"),
        ("linear", (2, 3), {"out": 3, "bias": True}, "fc2"),
    ),
    masking="rows",
    seed=3,
    loose=("fc1",),
)

#: torch averages an attention's weights over its heads, for a result that nobody reads: that mean kept all of them.
AVERAGED = Program(
    Value("plain", (2, 3, 6)),
    (
        Step("linear", (0,), (Value("plain", (2, 3, 8)),), {"out": 8, "bias": True}, "fc0"),
        Step(
            "attention",
            (1, 1),
            (Value("plain", (2, 3, 8)),),
            {"heads": 2, "size": 4, "source": 8, "shared": 1, "bias": True, "causal": False, "first": True, "weights": True},
            "attn1",
        ),
        Step("reduce", (2,), (Value("plain", (2, 8)),), {"axes": (1,), "keep": False, "function": "mean"}),
        Step("linear", (3,), (Value("plain", (2, 3)),), {"out": 3, "bias": True}, "fc2"),
    ),
)

#: A layer of the user's that nothing of the model reads, behind one that is copied: Keras could not copy what is not the model's.
OUTSIDE = Program(
    Value("plain", (2, 5)),
    (
        Step("linear", (0,), (Value("plain", (2, 8)),), {"out": 8, "bias": True}, "fc0"),
        Step("scaled", (1,), (Value("plain", (2, 8)),), {"first": False}, "scale1"),
        Step("linear", (1,), (Value("plain", (2, 3)),), {"out": 3, "bias": True}, "fc2"),
    ),
    masking="rows",
    seed=124,
    held=("fc0",),
)
