"""Where a layer's output channels are: an embedding is a linear layer of one-hot rows, and its table lies the other way round.

    Linear       weight (out, in)        y = weight x           channel = row
    Embedding    weight (rows, width)    y = one_hot weight     channel = column

So that a score is written once, over `(out, in, *kernel)`, a pruner of channels is shown an embedding as `(width, rows)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnc.adapter import Layer
from nnc.graph.ir import Array, Shape

_TABLE = "Embedding"


def channel_axis(layer: Layer) -> int:
    """Return the axis of a layer's canonical weight that holds its output channels."""
    return 1 if _TABLE in layer.op_types else 0


def channels(layer: Layer) -> int:
    """Return how many output channels a layer has."""
    return layer.parameters["weight"][channel_axis(layer)]


def by_channel(layer: Layer) -> Layer:
    """Return a layer as one whose weight has its output channels in the first axis: most are as they are."""
    return Turned(layer) if channel_axis(layer) else layer


def turned(layer: Layer, weight: Any) -> Any:
    """Return an array that lies as a layer's weight, such as its gradient, with the output channels in the first axis."""
    return layer.ops.matrix_transpose(weight) if channel_axis(layer) else weight


@dataclass(frozen=True)
class Turned:
    """An embedding whose weight is read as `(width, rows)`."""

    layer: Layer

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def op_type(self) -> str:
        return self.layer.op_type

    @property
    def op_types(self) -> tuple[str, ...]:
        return self.layer.op_types

    @property
    def prunable(self) -> bool:
        return self.layer.prunable

    @property
    def parameters(self) -> Mapping[str, Shape]:
        rows, width = self.layer.parameters["weight"]
        return {**self.layer.parameters, "weight": (width, rows)}

    @property
    def native(self) -> Mapping[str, str]:
        return self.layer.native

    @property
    def ops(self) -> Any:
        return self.layer.ops

    @property
    def weight(self) -> Any:
        return self.ops.matrix_transpose(self.layer.weight)

    @property
    def bias(self) -> Any | None:
        return None

    def seen(self, parameter: str) -> Any:
        return self.weight if parameter == "weight" else self.layer.seen(parameter)

    def stored(self, parameter: str) -> Any:
        found = self.layer.stored(parameter)
        return self.ops.matrix_transpose(found) if parameter == "weight" else found

    def canonical(self, parameter: str, array: Array) -> Array:
        return self.layer.canonical(parameter, array)
