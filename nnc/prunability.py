"""What could be removed from a model at all, before any work: which groups there are, and what is pinned by which operation.

    print(nnc.prunability(model, example_inputs))

The fractions are upper bounds: what is gone when a single channel, or head, of each group is left.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from nnc.graph.groups import Groups
from nnc.graph.macs import macs
from nnc.masks import paths, unmasked
from nnc.registry import adapter_for

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Removable:
    """Layers that can only shrink together: `granules` channels, or heads, that hold `parameters` weights of these layers each."""

    layers: tuple[str, ...]
    granules: int
    parameters: int


@dataclass(frozen=True)
class Pinned:
    """Output channels of a layer that must stay, and why; the reason names the operation and the user's source line."""

    layer: str
    channels: int
    reason: str


@dataclass(frozen=True)
class Prunability:
    """What can leave a model. The fractions of `parameters` and of MACs are the most that channels can take away."""

    parameters: int
    removable_parameters: float
    removable_macs: float
    groups: tuple[Removable, ...]
    pinned: tuple[Pinned, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, ready for JSON."""
        return asdict(self)

    def __rich__(self) -> RenderableType:
        from nnc.tables import prunability_table

        return prunability_table(self)

    def __str__(self) -> str:
        from nnc.tables import as_text

        return as_text(self)


def prunability(model: Any, example_inputs: Any, *, allow_inexact: bool = False) -> Prunability:
    """Return what fraction of a model's parameters and MACs can be removed, in which groups, and what is pinned by what.

    `allow_inexact` counts widths that a mean is taken over, as under a LayerNorm, among what can be removed, as
    `nnc.ModelSpeedup` does when told the same. Runs the model once; nothing is touched. Raises `ModelError`, `ConfigError` or
    `TraceError` as `nnc.ModelSpeedup` does.
    """
    adapter = adapter_for(model)
    with unmasked(adapter):
        graph = adapter.trace(example_inputs, {}).graph
    groups, learnt = (
        Groups(graph, allow_inexact, maskable=paths(adapter.layers())),
        [tensor for tensor in graph.parameters().values() if tensor.trainable],
    )
    smallest = groups.smallest()
    before = sum(prod(tensor.shape) for tensor in learnt)
    after = sum(prod(smallest.get(tensor, tensor.shape)) for tensor in learnt)
    work = macs(graph)
    return Prunability(
        parameters=before,
        removable_parameters=1 - after / before if before else 0.0,
        removable_macs=1 - macs(graph, smallest) / work if work else 0.0,
        groups=tuple(Removable(shared.layers, len(shared.classes), groups.weights(shared)) for shared in groups.shared),
        pinned=tuple(Pinned(*found) for found in groups.pinned()),
    )
