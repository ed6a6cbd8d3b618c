"""Which graph tensor a torch tensor holds now, through views and writes in place.

A slot hangs on each torch tensor as an attribute, so that no activation is kept alive. Parameters, inputs and other tensors from
outside are found by id. A write in place gives the tensor a new value; what shares its memory is stale from then on, and becomes
"unknown" only when something reads it: after `x.view(...).relu_()` nobody reads the x that was viewed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from nnc.graph.ir import Graph, Node, Tensor
from nnc_torch.inference import to_numpy


@dataclass(eq=False, slots=True)
class Shared:
    """Memory that several tensors see: the values written into it in place, oldest first."""

    writes: list[Tensor] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Slot:
    """What a torch tensor holds: a value, or how to `make` it when it is first read.

    `weight` is the canonical parameter that the tensor shows, `swapped` where its first two axes are exchanged.
    """

    owner: object
    value: Tensor | None = None
    make: Callable[[], Tensor] | None = None
    weight: Tensor | None = None
    swapped: bool = False
    shared: Shared | None = None
    seen: int = 0


class Values:
    """The slots of one recording."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._outside: dict[int, Slot] = {}
        self._alive: list[torch.Tensor] = []  # an id is only good while its tensor lives

    def slot(self, tensor: torch.Tensor) -> Slot:
        """Return a tensor's slot; a tensor that was never seen is a constant from outside."""
        slot = self._outside.get(id(tensor)) or tensor.__dict__.get("_nnc_slot")
        if slot is None or slot.owner is not self:
            slot = self.outside(tensor, Slot(self, constant_of(tensor)))
        return slot

    def outside(self, tensor: torch.Tensor, slot: Slot) -> Slot:
        """Note a tensor that was there before the recording: a parameter, an input, a constant."""
        self._alive.append(tensor)
        self._outside[id(tensor)] = slot
        return slot

    def bind(self, tensor: torch.Tensor, value: Tensor) -> Slot:
        """Say that a fresh tensor holds a value."""
        slot = tensor._nnc_slot = Slot(self, value)
        return slot

    def later(self, tensor: torch.Tensor, make: Callable[[], Tensor], weight: Tensor | None = None, swapped: bool = False) -> None:
        """Say that a fresh tensor holds what `make` gives, if ever it is read."""
        tensor._nnc_slot = Slot(self, None, make, weight, swapped)

    def view(self, tensor: torch.Tensor, base: torch.Tensor) -> None:
        """Say that two tensors see the same memory."""
        slot, of = self.slot(tensor), self.slot(base)
        slot.shared = of.shared = of.shared or Shared()
        slot.seen = len(of.shared.writes)

    def write(self, tensor: torch.Tensor, value: Tensor) -> None:
        """Say that a value was written into a tensor in place."""
        slot = self.slot(tensor)
        slot.value, slot.make, slot.weight = value, None, None
        if slot.shared is not None:
            slot.shared.writes.append(value)
            slot.seen = len(slot.shared.writes)

    def written_outside(self) -> list[Tensor]:
        """Return what was written into tensors that were there before the recording, as a buffer that counts."""
        slots = self._outside.values()
        whole = [slot.value for slot in slots if slot.value is not None and slot.value.role == "value"]
        return whole + [value for slot in slots if slot.shared is not None for value in slot.shared.writes]

    def read(self, tensor: torch.Tensor) -> Tensor:
        """Return the value that a tensor holds now."""
        slot = self.slot(tensor)
        if slot.value is None:
            assert slot.make is not None
            slot.value = slot.make()
        if slot.shared is not None and slot.seen < len(slot.shared.writes):
            slot.value = self._overwritten(slot.value, slot.shared.writes[slot.seen :])
            slot.seen, slot.weight = len(slot.shared.writes), None
        return slot.value

    def weight(self, tensor: torch.Tensor) -> tuple[Tensor, bool] | None:
        """Return the canonical parameter that a tensor shows, and whether its first two axes are exchanged; or None."""
        slot = self.slot(tensor)
        stale = slot.shared is not None and slot.seen < len(slot.shared.writes)
        return None if slot.weight is None or stale else (slot.weight, slot.swapped)

    def _overwritten(self, before: Tensor, writes: list[Tensor]) -> Tensor:
        after = Tensor(before.shape, floating=before.floating, boolean=before.boolean)
        self.graph.nodes.append(Node("unknown", (before, *writes), (after,), op="write into shared memory"))
        return after


def constant_of(tensor: torch.Tensor) -> Tensor:
    """Return the graph tensor of a torch tensor that belongs to no parameter and no input."""
    kept = tensor.detach()
    kinds = {"floating": tensor.is_floating_point(), "boolean": tensor.dtype == torch.bool}
    return Tensor(tuple(tensor.shape), "constant", data=lambda: to_numpy(kept), **kinds)
