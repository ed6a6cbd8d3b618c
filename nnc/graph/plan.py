"""A Plan says what leaves, and what follows from it: plain data, frozen, printable, serialisable.

    conv1 channels [3, 7] leave: conv1.weight axis 0, conv1.bias axis 0; therefore conv2.weight axis 1

Axes are those of the canonical orientation, so one plan fits the same network in every framework, and `nnc.load` can apply it to
a freshly built model. Indices are kept per factor ("heads [2, 5]" of 12 x 64), never as flat lists; flat indices are derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np

from nnc.graph.ir import Array, Shape


@dataclass(frozen=True)
class Member:
    """Indices that leave one axis of one parameter.

    The axis holds, from `start` on, `outer * size * inner` indices, read as a block `(outer, size, inner)`; `removed` are indices
    into `size`. 12 heads of 64 are (1, 12, 64); the 64 positions within each head are (12, 64, 1).
    """

    tensor: str
    axis: int
    start: int
    outer: int
    size: int
    inner: int
    removed: tuple[int, ...]

    def clear(self, keep: Array) -> None:
        """Set what leaves to False in `keep`, a boolean vector over the whole axis."""
        block = keep[self.start : self.start + self.outer * self.size * self.inner]
        block.reshape(self.outer, self.size, self.inner)[:, list(self.removed)] = False


@dataclass(frozen=True)
class Group:
    """Indices that can only leave together, over all the axes that hold them; the first member names the group."""

    members: tuple[Member, ...]

    def __str__(self) -> str:
        first, *rest = self.members
        lines = [f"{_axis_name(first)} {list(first.removed)} of {first.size} leave"]
        lines += [f"  therefore {_axis_name(member)} {list(member.removed)} of {member.size}" for member in rest]
        return "\n".join(lines)


@dataclass(frozen=True)
class Size:
    """A number that follows from an axis and is held by a layer, as `groups` of a grouped convolution, or several, as where it splits."""

    layer: str
    attribute: str
    old: int | tuple[int, ...]
    new: int | tuple[int, ...]

    def in_place_of(self, held: Any) -> Any:
        """Return the new value as what the layer holds now is one: a number, a list or a tuple."""
        return type(held)(self.new) if isinstance(self.new, tuple) else self.new


@dataclass(frozen=True)
class Reshape:
    """A reshape, a split or a slice whose result changes.

    `old` and `new` are the sizes as the user's code gives them (-1 included), or the indices that a lookup takes; `function` and
    `line` say where. `rewrite` says that the code hard-codes the size, so that the call had to be rewritten in the small model.

    A slice has a `cut`: which axis it takes from, of how many. Its `old`, and its `new` where it takes what lies in a row, are where it
    starts and stops, its step, and the size of the axis; a `new` in steps is the indices. `looked_up` says that both are the places that a
    lookup takes.
    """

    layer: str
    op: str
    function: str
    line: int
    old: tuple[int, ...]
    new: tuple[int, ...]
    rewrite: bool = False
    cut: tuple[int, ...] = ()
    looked_up: bool = False

    @property
    def fault(self) -> str:
        """What is wrong with the user's code, where it does not follow by itself."""
        if self.looked_up:
            return f"{self.op} takes the places {list(self.old)}, which must become {list(self.new)}"
        if not self.cut:
            return f"{self.op} hard-codes the sizes {list(self.old)}, which must become {list(self.new)}"
        start, stop, step, size = self.old
        return f"{self.op} takes {start}:{stop}{'' if step == 1 else f':{step}'} of {size}: the code there fixes it"

    @property
    def remedy(self) -> str:
        """What to write there, as a sentence."""
        if self.looked_up:
            return "Write the places as one list, or keep them in an attribute of the layer."
        return "Take the bounds from the tensor's shape." if self.cut else "Write -1 there, or take the size from the tensor's shape."


@dataclass(frozen=True)
class Inexact:
    """A width that shrank although a mean is taken over it at `places`, as under a LayerNorm: the outputs moved."""

    places: tuple[str, ...]
    old: int
    new: int

    def __str__(self) -> str:
        others = f" and {len(self.places) - 1} more" if len(self.places) > 1 else ""
        return f"the width under {self.places[0]}{others} went from {self.old} to {self.new}"


@dataclass(frozen=True)
class Kept:
    """Masked channels that stay, and why: `count` indices of the axis that `where` names."""

    where: str
    count: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """What leaves, what changes with it, and what had to stay.

    `biases` are the layers that are given a bias because a constant is folded into them and they have none. `notes` say what else a
    reader should know, each a sentence.
    """

    groups: tuple[Group, ...] = ()
    sizes: tuple[Size, ...] = ()
    reshapes: tuple[Reshape, ...] = ()
    biases: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()
    inexact: tuple[Inexact, ...] = ()
    notes: tuple[str, ...] = ()

    def axes(self) -> dict[tuple[str, int], list[Member]]:
        """Return the members by the parameter axis that they cut: `{("conv1.weight", 0): [...]}`."""
        found: dict[tuple[str, int], list[Member]] = {}
        for group in self.groups:
            for member in group.members:
                found.setdefault((member.tensor, member.axis), []).append(member)
        return found

    def kept_indices(self, shapes: Mapping[str, Shape]) -> dict[str, dict[int, Array]]:
        """Return the indices that stay, `{"conv1.weight": {0: array([0, 1, ...])}}`, given the parameters' canonical shapes.

        Raises KeyError for a parameter of the plan that `shapes` lacks.
        """
        result: dict[str, dict[int, Array]] = {}
        for (tensor, axis), members in self.axes().items():
            keep = np.ones(shapes[tensor][axis], bool)
            for member in members:
                member.clear(keep)
            result.setdefault(tensor, {})[axis] = np.flatnonzero(keep)
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain lists and dicts, ready for JSON."""
        # dataclasses.asdict would copy every index by itself: a second for a ResNet-50.
        plain = {name: [_plain(item) for item in items] for name, items in vars(self).items()}
        return plain | {"groups": [{"members": [_plain(member) for member in group.members]} for group in self.groups]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Return the plan that `to_dict` wrote. Raises KeyError or TypeError where `data` is something else."""
        return cls(
            groups=tuple(Group(tuple(Member(**{**m, "removed": tuple(m["removed"])}) for m in g["members"])) for g in data["groups"]),
            sizes=tuple(Size(size["layer"], size["attribute"], _whole(size["old"]), _whole(size["new"])) for size in data["sizes"]),
            reshapes=tuple(Reshape(**r | {key: tuple(r.get(key, ())) for key in ("old", "new", "cut")}) for r in data["reshapes"]),
            biases=tuple(data["biases"]),
            kept=tuple(Kept(**kept) for kept in data["kept"]),
            inexact=tuple(Inexact(**{**i, "places": tuple(i["places"])}) for i in data.get("inexact", ())),
            notes=tuple(data.get("notes", ())),
        )

    def __str__(self) -> str:
        lines = [str(group) for group in self.groups]
        lines += [f"{size.layer}.{size.attribute}: {size.old} -> {size.new}" for size in self.sizes]
        lines += [f"{r.layer or 'model'}: {r.op} {list(r.old)} -> {list(r.new)}" for r in self.reshapes]
        lines += [f"{layer}: a constant is folded into a new bias" for layer in self.biases]
        lines += [f"inexact: {moved}" for moved in self.inexact]
        lines += [f"kept: {kept.count} of {kept.where}: {kept.reason}" for kept in self.kept]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines) or "nothing leaves"


def _whole(numbers: Any) -> Any:
    return tuple(numbers) if isinstance(numbers, list) else numbers


def _plain(item: Any) -> Any:
    return dict(vars(item)) if is_dataclass(item) else item


def _axis_name(member: Member) -> str:
    """Name an axis for a reader: conv1 output channels, conv2 input channels, bn1.weight axis 0."""
    layer, _, parameter = member.tensor.rpartition(".")
    if parameter == "weight" and member.axis == 0 and member.inner > 1:
        return f"{layer or 'model'} heads (of {member.inner} channels)"
    role = {("weight", 0): "output channels", ("weight", 1): "input channels", ("bias", 0): "bias"}
    name = role.get((parameter, member.axis))
    return f"{layer or 'model'} {name}" if name else f"{member.tensor} axis {member.axis}"
