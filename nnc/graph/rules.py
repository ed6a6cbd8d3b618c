"""One small function per kind of operation: which axes it ties, regroups, cuts or pins.

A rule reads a node and states constraints on `Axes`; it never looks at numbers. What is not known pins, with the operation and
the user's source line, so that an answer is sound before it is complete. Values (zeros, constants) are `values.py`'s business.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nnc.graph.axes import Axes
from nnc.graph.ir import Graph, Node, Tensor

Rule = Callable[[Node, Axes], None]


def constrain(graph: Graph, allow_inexact: bool = False) -> Axes:
    """Return the constraints of a whole graph; with `allow_inexact`, a mean does not pin what it is taken over.

    Raises ValueError that names a node whose shapes contradict its kind.
    """
    axes = Axes(allow_inexact)
    for tensor in graph.inputs:
        axes.pin_all(tensor, "an input of the model")
    for tensor in graph.outputs:
        axes.pin_all(tensor, "an output of the model")
    effective = set(graph.effective())
    for node in graph.nodes:
        pins, relaxed = len(axes.pins), len(axes.relaxed)
        try:
            _rule(node)(node, axes)
            _whole_numbers(node, axes)
        except ValueError as error:
            raise ValueError(f"{node.place} was recorded as {node.kind!r}, which does not fit: {error}") from error
        if node.kind in _MIXING and node not in effective:
            del axes.pins[pins:], axes.relaxed[relaxed:]
    return axes


#: Where these pin, it is for the numbers, which are nobody's concern where the result is not used: torch's attention averages its
#: weights over the heads for a result that few callers read.
_MIXING = frozenset(["along", "layer_norm", "reduce"])


def _rule(node: Node) -> Rule:
    """Return the rule of a node's kind; for an unknown operation, a plug-in's if there is one."""
    from nnc.registry import registry

    if node.kind in RULES and node.kind != "unknown":
        return RULES[node.kind]
    own = registry().operations.get(node.op)
    return own.rule if own else unknown


def _whole_numbers(node: Node, axes: Axes) -> None:
    """Indices and counts pin what they are made from and what they are: they mean positions, not channels. Truth values need not."""
    if _whole(node.outputs[0]):
        for tensor in (*node.inputs, *node.outputs):
            axes.pin_all(tensor, f"whole numbers are made from it by {node.place}")
    for given in node.inputs:
        if given is not None and _whole(given):
            axes.pin_all(given, f"whole numbers are read by {node.place}")


def _whole(tensor: Tensor) -> bool:
    return not (tensor.floating or tensor.boolean)


def _main(node: Node) -> tuple[Tensor, Tensor]:
    """Return the first input and the first output."""
    first = node.inputs[0]
    if first is None:
        raise ValueError("the first input is missing")
    return first, node.outputs[0]


def unknown(node: Node, axes: Axes) -> None:
    """Pin all: nobody told us what the operation does to an axis."""
    for tensor in (*node.inputs, *node.outputs):
        axes.pin_all(tensor, f"{node.place} has no rule")


def same(node: Node, axes: Axes) -> None:
    x, y = _main(node)
    axes.eq_all(axes[x], axes[y])


def identity(node: Node, axes: Axes) -> None:
    same(node, axes)
    for number in node.attrs.get("fixed", ()):
        axes.pin(axes[node.outputs[0]][number], f"{node.place} holds a number that was computed from its size")


def binary(node: Node, axes: Axes) -> None:
    for x in node.inputs:
        if x is not None:
            axes.align(x, node.outputs[0])


def linear(node: Node, axes: Axes) -> None:
    x, y = _main(node)
    _, weight, bias = node.inputs
    assert weight is not None
    axes.eq_all(axes[x][:-1], axes[y][:-1])
    axes.eq(axes[x][-1], axes[weight][1])
    axes.eq(axes[y][-1], axes[weight][0])
    if bias is not None:
        axes.eq(axes[bias][0], axes[y][-1])


def conv(node: Node, axes: Axes) -> None:
    x, y = _main(node)
    _, weight, bias = node.inputs
    assert weight is not None
    channel = node.attrs["channel_axis"]
    inputs, outputs = axes[x][channel], axes[y][channel]
    axes.eq(outputs, axes[weight][0])
    if bias is not None:
        axes.eq(axes[bias][0], outputs)
    if node.attrs["groups"] == 1:
        axes.eq(inputs, axes[weight][1])
    else:
        _grouped(node, axes, inputs, axes[weight][0], axes[weight][1])
    axes.eq(axes[x][0], axes[y][0])
    for tensor in (x, y):
        _pin_others(tensor, {0, channel}, f"a position, to {node.place}", axes)
    _pin_others(weight, {0, 1}, f"a position in the kernel of {node.place}", axes)


def _grouped(node: Node, axes: Axes, inputs: int, weight_out: int, weight_in: int) -> None:
    """Input channels are groups x width, output channels groups x multiplier."""
    groups = axes.axis(node.attrs["groups"])
    multiplier = axes.axis(axes.sizes[weight_out] // node.attrs["groups"])
    axes.reshape([inputs], [groups, weight_in])
    axes.reshape([weight_out], [groups, multiplier])
    axes.bind(node.layer, "groups", groups)
    if axes.sizes[weight_in] > 1 and axes.sizes[multiplier] > 1:
        axes.blocks.append(groups)


def _all_but_its_own(node: Node, axes: Axes, reason: str) -> None:
    """Let input and output be the same along every axis but those that the node works on, which stay whole."""
    x, y = _main(node)
    for number, (before, after) in enumerate(zip(axes[x], axes[y], strict=True)):
        if number in node.attrs["axes"]:
            axes.pin(before, reason)
            axes.pin(after, reason)
        else:
            axes.eq(before, after)


def _pin_others(tensor: Tensor, but: set[int], reason: str, axes: Axes) -> None:
    for number, axis in enumerate(axes[tensor]):
        if number not in but:
            axes.pin(axis, reason)


def matmul(node: Node, axes: Axes) -> None:
    a, y = _main(node)
    b = node.inputs[1]
    assert b is not None
    axes.eq(axes[a][-1], axes[b][-2])
    axes.eq(axes[a][-2], axes[y][-2])
    axes.eq(axes[b][-1], axes[y][-1])
    for side in (a, b):
        for left, right in zip(reversed(axes[side][:-2]), reversed(axes[y][:-2]), strict=False):
            if axes.sizes[left] == axes.sizes[right]:
                axes.eq(left, right)


def batch_norm(node: Node, axes: Axes) -> None:
    same(node, axes)
    x, _ = _main(node)
    for vector in node.inputs[1:]:
        if vector is not None:
            axes.eq(axes[vector][0], axes[x][node.attrs["channel_axis"]])


def layer_norm(node: Node, axes: Axes) -> None:
    """The mean and the variance are taken over the width, so the width cannot change exactly."""
    same(node, axes)
    x, _ = _main(node)
    normalised = node.attrs["axes"]
    for number in normalised:
        axes.pin_mean(axes[x][number], node.place)
    for vector in node.inputs[1:]:
        if vector is not None:
            axes.eq_all(axes[vector], [axes[x][number] for number in normalised])


def pool(node: Node, axes: Axes) -> None:
    _all_but_its_own(node, axes, f"a position, to {node.place}")


def reduce(node: Node, axes: Axes) -> None:
    """A sum does not miss zeros, so only the other reductions pin what they reduce; a mean, or a variance, until asked not to."""
    x, y = _main(node)
    gone = set(node.attrs["axes"])
    stay = [axis for number, axis in enumerate(axes[x]) if number not in gone]
    left = [axis for number, axis in enumerate(axes[y]) if not (node.attrs["keepdims"] and number in gone)]
    axes.eq_all(stay, left)
    for number in gone if node.attrs["function"] != "sum" else ():
        if node.attrs["function"] in ("mean", "variance"):
            axes.pin_mean(axes[x][number], node.place)
        else:
            axes.pin(axes[x][number], f"{node.place} reduces it")


def along(node: Node, axes: Axes) -> None:
    same(node, axes)
    for number in node.attrs["axes"]:
        if node.attrs.get("normalises"):
            axes.pin_mean(axes[node.outputs[0]][number], node.place)
        else:
            axes.pin(axes[node.outputs[0]][number], f"{node.place} mixes what lies along it")


def reshape(node: Node, axes: Axes) -> None:
    x, y = _main(node)
    axes.reshape(axes[x], axes[y])


def transpose(node: Node, axes: Axes) -> None:
    x, y = _main(node)
    axes.eq_all([axes[x][number] for number in node.attrs["permutation"]], axes[y])


def expand(node: Node, axes: Axes) -> None:
    x, y = _main(node)
    axes.align(x, y)


def repeat(node: Node, axes: Axes) -> None:
    """Tiling puts the copies outside: [a b] becomes [a b a b]."""
    x, y = _main(node)
    new = len(y.shape) - len(x.shape)
    for before, after in zip(axes[x], axes[y][new:], strict=True):
        if axes.sizes[before] == axes.sizes[after]:
            axes.eq(before, after)
        elif axes.sizes[before] != 1:
            axes.reshape([axes.axis(axes.sizes[after] // axes.sizes[before]), before], [after])


def concat(node: Node, axes: Axes) -> None:
    y = node.outputs[0]
    start = 0
    for x in node.inputs:
        assert x is not None
        for number, (before, after) in enumerate(zip(axes[x], axes[y], strict=True)):
            if number != node.attrs["axis"]:
                axes.eq(before, after)
            else:
                axes.seg(after, before, np.arange(start, start + axes.sizes[before]))
                start += axes.sizes[before]


def stack(node: Node, axes: Axes) -> None:
    y, new = node.outputs[0], node.attrs["axis"]
    for x in node.inputs:
        assert x is not None
        axes.eq_all(axes[x], [axis for number, axis in enumerate(axes[y]) if number != new])
    axes.pin(axes[y][new], f"{node.place} makes it")


def slice_(node: Node, axes: Axes) -> None:
    x, y = _main(node)
    for number, (before, after) in enumerate(zip(axes[x], axes[y], strict=True)):
        if number == node.attrs["axis"]:
            axes.seg(before, after, np.asarray(node.attrs["index"]))
            if "fixed" in node.attrs:
                axes.pin(before, f"{node.place} {node.attrs['fixed']}")
        else:
            axes.eq(before, after)


def select(node: Node, axes: Axes) -> None:
    x, y = _main(node)
    taken = node.attrs["axis"]
    axes.eq_all([axis for number, axis in enumerate(axes[x]) if number != taken], axes[y])
    axes.pin(axes[x][taken], f"{node.place} takes one index of it")


def pad(node: Node, axes: Axes) -> None:
    _all_but_its_own(node, axes, f"{node.place} grows it")


def embedding(node: Node, axes: Axes) -> None:
    indices, y = _main(node)
    weight = node.inputs[1]
    assert weight is not None
    axes.eq_all(axes[indices], axes[y][:-1])
    axes.eq(axes[weight][1], axes[y][-1])
    axes.pin(axes[weight][0], f"a row of the table of {node.place}")


def recurrent(node: Node, axes: Axes) -> None:
    """A unit is a row of every gate, a column of the recurrent weight, and a number of every state."""
    x, weight, bias, state, memory, recurrent_weight, recurrent_bias = node.inputs
    assert x is not None and weight is not None and recurrent_weight is not None
    units = axes[recurrent_weight][1]
    gates = axes.axis(weight.shape[0] // axes.sizes[units])
    axes.pin(gates, f"the gates of {node.place}")
    axes.eq(axes[x][-1], axes[weight][1])
    for rows in (weight, bias, recurrent_weight, recurrent_bias):
        if rows is not None:
            axes.reshape([axes[rows][0]], [gates, units])
    for tensor in (state, memory, *node.outputs):
        if tensor is not None:
            axes.eq(axes[tensor][-1], units)
    for tensor in (x, state, memory, *node.outputs):
        if tensor is not None:
            _pin_others(tensor, {len(tensor.shape) - 1}, f"a position, to {node.place}", axes)


RULES: dict[str, Rule] = {
    "identity": identity,
    "pointwise": same,
    "binary": binary,
    "linear": linear,
    "conv": conv,
    "matmul": matmul,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "pool": pool,
    "reduce": reduce,
    "along": along,
    "reshape": reshape,
    "transpose": transpose,
    "expand": expand,
    "repeat": repeat,
    "concat": concat,
    "stack": stack,
    "slice": slice_,
    "select": select,
    "pad": pad,
    "embedding": embedding,
    "recurrent": recurrent,
    "unknown": unknown,
}
