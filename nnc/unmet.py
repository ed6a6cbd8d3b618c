"""What a config_list asks of groups and cannot have: said before anything is touched, with the layers and what to do.

Nothing at all can leave: an error. Something can, and something else is left alone: a `LeftAlone` warning, one line a reason.
Silent is only what the config_list never singled out: a plain `{"sparsity": 0.5}` means whatever can leave.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, gcd

from nnc.allocation import count_of
from nnc.errors import ConfigError, LeftAlone
from nnc.graph.groups import Groups, Shared
from nnc.graph.ir import Array
from nnc_schemas import PruneSpec

#: Names in a line, and lines in a message: more than these are counted.
_MANY = 4


@dataclass(frozen=True)
class Asked:
    """The groups of a model, which entry governs which layer, and `chosen`: the groups that the entries can have, by number."""

    groups: Groups
    governed: Mapping[str, int]
    specs: Sequence[PruneSpec]
    chosen: Mapping[int, int]
    tied: Sequence[Sequence[str]] = ()
    spared: Collection[str] = ()

    def spec(self, layer: str) -> PruneSpec:
        return self.specs[self.governed[layer]]


def tell_refused(asked: Asked) -> None:
    """Warn of what cannot leave although an entry singles it out. Raises what `require_some` raises."""
    _warn(require_some(asked))


def require_some(asked: Asked) -> list[str]:
    """Return what cannot leave although an entry singles it out, a line each.

    Raises `ConfigError` where that leaves an entry for heads, or the whole config_list, with nothing.
    """
    headless = list(_headless(asked))
    if headless:
        raise ConfigError(_told(headless))
    lines = [*_half_selected(asked), *_tied_to_pinned(asked), *_pinned(asked)]
    removes = any(asked.spec(name).removes for name in asked.governed)
    if removes and not asked.chosen:
        raise ConfigError(f"{_told(lines)}\nconfig_list: so nothing that it selects can leave. `nnc layers --example` says what can.")
    return lines


def tell_none_left(asked: Asked, keep: Mapping[int, Array]) -> None:
    """Warn of heads, and of whole entries, of which nothing leaves although the entry asks for a part."""
    stay: dict[str, list[str]] = {}
    for number, index in asked.chosen.items():
        spec, shared = asked.specs[index], asked.groups.shared[number]
        if keep[number].all() and spec.per_layer and shared.heads:
            stay.setdefault(_too_few(spec, shared), []).extend(shared.layers)
    lines = [f"{why}: all stay in {_some(names)}." for why, names in stay.items()]
    for index in dict.fromkeys(asked.chosen.values()):
        mine = [number for number, entry in asked.chosen.items() if entry == index]
        spec = asked.specs[index]
        if spec.amount and all(keep[number].all() for number in mine) and not any(asked.groups.shared[n].heads for n in mine):
            lines.append(f"{spec.place}: {spec.amount} of its layers' channels, rounded down to whole ones, is none: nothing leaves.")
    _warn(lines)


def _headless(asked: Asked) -> Iterator[str]:
    """Yield the entries that ask for heads of layers that have none."""
    having = {index for shared in asked.groups.shared if shared.heads for index in _entries(asked, shared.layers)}
    for index in dict.fromkeys(asked.governed.values()):
        spec = asked.specs[index]
        if spec.heads and spec.removes and index not in having:
            names = [name for name, entry in asked.governed.items() if entry == index]
            found = [shared.layers for shared in asked.groups.shared if shared.heads]
            told = f"{spec.place}.granularity: no attention head is among the output channels of {_some(names)} that can leave"
            others = f"heads are in {_some([name for layers in found for name in layers])}: select these, or" if found else "so"
            yield f"{told}; {others} leave granularity out to remove channels."


def _half_selected(asked: Asked) -> Iterator[str]:
    """Yield the groups of which the config_list selects some layers and not the others."""
    for shared in asked.groups.shared:
        mine = [name for name in shared.layers if name in asked.governed and asked.spec(name).removes]
        others = shared.missing(asked.governed, asked.spared)
        if mine and others and (shared.heads or not asked.spec(mine[0]).heads):
            what = "heads" if shared.heads else "channels"
            told = f"{asked.spec(mine[0]).place}: {_some(mine)} can lose {what} only together with {_some(others)}, which the config_list"
            yield f"{told} does not select or excludes: they are left alone. Select all of them, or exclude all."


def _tied_to_pinned(asked: Asked) -> Iterator[str]:
    """Yield the ties of the config_list to a layer that must keep its channels."""
    free = {name for shared in asked.groups.shared for name in shared.layers}
    for members in asked.tied:
        stuck = [name for name in members if name not in free]
        if stuck:
            why = _some(list(_reasons(asked, stuck)), "; ") or "the example inputs do not reach it"
            told = f"{asked.spec(stuck[0]).place}: {_some(members)} shall lose the same channels, and one of them cannot lose any"
            yield f"{told}: {why}. They are left alone."


def _pinned(asked: Asked) -> Iterator[str]:
    """Yield the entries of which nothing can leave, whatever the others ask."""
    free = set(_entries(asked, [name for shared in asked.groups.shared for name in shared.layers]))
    tied = {name for members in asked.tied for name in members}
    for index in dict.fromkeys(asked.governed.values()):
        names = [name for name, entry in asked.governed.items() if entry == index and name not in tied]
        if asked.specs[index].removes and index not in free and names:
            why = _some(list(_reasons(asked, names)), "; ") or "the example inputs do not reach it"
            yield f"{asked.specs[index].place}: nothing of {_some(names)} can leave: {why}."


def _too_few(spec: PruneSpec, shared: Shared) -> str:
    """Say why a fraction of some heads is none of them."""
    heads = len(shared.classes)
    # Only the last part of each name: twelve layers of a transformer then make one line.
    rows = ", ".join(f"{count} channels of {name.rpartition('.')[2]}" for name, count in shared.rows_by_layer().items())
    if count_of(heads, spec.per_layer or 0.0):
        multiple = (spec.round_to or 1) // gcd(spec.round_to or 1, shared.rows_of_one)
        return f"{spec.place}.round_to: {spec.round_to} channels are no less than {multiple} heads, and there are {heads} (each {rows})"
    least = ceil(100 / heads) / 100
    return f"{spec.place}: {spec.per_layer} of {heads} heads that can leave (each {rows}) is less than one; {least} removes one"


def _reasons(asked: Asked, names: Iterable[str]) -> dict[str, None]:
    """Return why output channels of layers must stay, each reason once."""
    wanted = set(names)
    return dict.fromkeys(why for layer, _, why in asked.groups.pinned() if layer in wanted)


def _entries(asked: Asked, names: Iterable[str]) -> Iterator[int]:
    yield from (asked.governed[name] for name in names if name in asked.governed)


def _some(names: Sequence[str], between: str = ", ") -> str:
    """Name a few, and say how many more there are."""
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - _MANY + 1} more" if len(names) > _MANY else ""
    return between.join(names[: _MANY - 1] if more else names) + more


def _told(lines: Sequence[str]) -> str:
    more = f"\n... and {len(lines) - _MANY + 1} more like these" if len(lines) > _MANY else ""
    return "\n".join(lines[: _MANY - 1] if more else lines) + more


def _warn(lines: Sequence[str]) -> None:
    if lines:
        warnings.warn(_told(lines), LeftAlone, stacklevel=6)
