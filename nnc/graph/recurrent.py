"""Which units of a recurrent layer stay zero: those that start at zero and that every step leads back to zero.

    LSTM    c = f c + i g;  h = o act(c)      g = act(0) = 0 where the candidate's rows are masked, so c stays 0 and h is 0
    GRU     h = (1 - z) n + z h               n = act(0) = 0 the same way
    RNN     h = act(x + h)

Whatever the gates are, zero times them is zero. A unit that is anything else changes from step to step, so nothing else is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nnc.graph.ir import Array, Node, Tensor
from nnc.graph.known import Values

#: What each gate's rows are called in `order`, the order in which a framework stores them.
Parts = Mapping[str, Array]


def sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _lstm(x: Parts, h: Parts, attrs: Mapping[str, Any], state: Array, memory: Array) -> tuple[Array, Array]:
    gate, candidate, shown = attrs["activations"]
    read, forget, write = (_of(gate, x[name] + h[name]) for name in ("input", "forget", "output"))
    memory = _times(forget, memory) + _times(read, _of(candidate, x["candidate"] + h["candidate"]))
    return _times(write, _of(shown, memory)), memory


def _gru(x: Parts, h: Parts, attrs: Mapping[str, Any], state: Array, memory: Array) -> tuple[Array, Array]:
    gate, candidate, *_ = attrs["activations"]
    reset, update = (_of(gate, x[name] + h[name]) for name in ("reset", "update"))
    new = _of(candidate, x["candidate"] + _times(reset, h["candidate"]))
    return _times(1.0 - update, new) + _times(update, state), memory


def _rnn(x: Parts, h: Parts, attrs: Mapping[str, Any], state: Array, memory: Array) -> tuple[Array, Array]:
    return _of(attrs["activations"][0], x["candidate"] + h["candidate"]), memory


_STEPS: dict[str, Callable[..., tuple[Array, Array]]] = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}


def _times(a: Array, b: Array) -> Array:
    """Zero times what is not known is zero."""
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def _of(function: Callable[..., Array], x: Array) -> Array:
    result, known = np.full(x.shape, np.nan), ~np.isnan(x)
    if known.any():
        result[known] = np.asarray(function(x[known]), np.float64)
    return result


def stays_zero(node: Node, values: Values, contract: Callable[..., Array]) -> Array:
    """Return which units of a "recurrent" node are zero at every step, boolean `(hidden,)`.

    `contract(weight, bias, values, inputs, groups)` gives what is known of a weighted sum. Units are struck out until the others lead
    each other back to zero.
    """
    x, weight, bias, state, memory, recurrent_weight, recurrent_bias = node.inputs
    assert x is not None and recurrent_weight is not None
    zero = _starts_at_zero(state, values, recurrent_weight.shape[1]) & _starts_at_zero(memory, values, recurrent_weight.shape[1])
    given = _parts(node, contract(weight, bias, values, values.along(x, len(x.shape) - 1)[None], 1))
    while True:
        now = np.where(zero, 0.0, np.nan)
        carried = _parts(node, contract(recurrent_weight, recurrent_bias, values, now[None], 1))
        after = _STEPS[node.attrs["cell"]](given, carried, node.attrs, now, now)
        still = zero & (after[0] == 0) & (after[1] == 0)
        if (still == zero).all():
            return np.asarray(zero)
        zero = still


def _starts_at_zero(state: Tensor | None, values: Values, size: int) -> Array:
    """A state that is not given starts at zero."""
    return np.ones(size, bool) if state is None else values.along(state, len(state.shape) - 1) == 0


def _parts(node: Node, rows: Array) -> Parts:
    """Take apart what lies gate behind gate."""
    order = node.attrs["order"]
    return dict(zip(order, rows.reshape(len(order), -1), strict=True))
