"""Layers that the config_list itself ties: they lose the same output channels, as NNI's dependency groups do.

    {"op_names": ["conv1"], "sparsity": 0.5, "dependency_group_id": "stem"}       scored together with all of "stem"
    {"op_names": ["conv2"], "target_settings": {"weight": {"align": {"module_name": "conv1"}}}}       takes over conv1's mask

Layers with one id add up what they score; a layer that is aligned has no say. Where the model's graph is known, joint.py adds these
ties to those that the graph has; where it is not, they are all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nnc.adapter import Layer, Masks
from nnc.allocation import Scored, allocate
from nnc.columns import channels
from nnc.errors import ConfigError, nearest
from nnc.graph.ir import Array
from nnc.masks import from_kept
from nnc_schemas import PruneSpec, Selector

#: How the scores of channels that leave together become one.
COMBINE: Mapping[str, Callable[..., Any]] = {"sum": np.sum, "mean": np.mean, "max": np.max}


def ties(governed: Mapping[str, int], specs: Sequence[PruneSpec]) -> tuple[tuple[str, ...], ...]:
    """Return the sets of two or more layers that must lose the same channels, in the model's order; `governed` is by layer."""
    of = {name: {name} for name in governed}
    first: dict[int | str, str] = {}
    for name, index in governed.items():
        spec = specs[index]
        if spec.dependency_group is not None:
            _join(of, name, first.setdefault(spec.dependency_group, name))
        if spec.align is not None and spec.align.module_name in of:
            _join(of, name, str(spec.align.module_name))
    sets = {id(members): members for members in of.values() if len(members) > 1}
    return tuple(tuple(name for name in governed if name in members) for members in sets.values())


def _join(of: dict[str, set[str]], left: str, right: str) -> None:
    both = of[left] | of[right]
    of.update(dict.fromkeys(both, both))


def voters(layers: Sequence[str], governed: Mapping[str, int], specs: Sequence[PruneSpec]) -> tuple[str, ...]:
    """Return the layers whose scores count: those that take over no other's mask."""
    return tuple(name for name in layers if specs[governed[name]].align is None)


def gentlest(layers: Sequence[str], governed: Mapping[str, int], specs: Sequence[PruneSpec]) -> int:
    """Return the entry that decides for layers that choose together: the one that asks least of those that have a say."""
    return min((governed[name] for name in voters(layers, governed, specs)), key=lambda index: specs[index].amount)


def alone_masks(
    layers: Mapping[str, Layer], scored: Mapping[str, Scored], governed: Mapping[str, int], specs: Sequence[PruneSpec]
) -> Masks:
    """Return the masks where no graph is known: each layer chooses alone, but for those that the config_list ties."""
    units = {members[0]: members for members in ties(governed, specs)}
    tied = {name for members in units.values() for name in members}
    units.update({name: (name,) for name in scored if name not in tied})
    joint = {unit: _as_one(members, scored, governed, specs) for unit, members in units.items()}
    keep = allocate(joint, {unit: gentlest(members, governed, specs) for unit, members in units.items()}, specs)
    stays = {name: keep[unit] for unit, members in units.items() for name in members}
    return {name: only_targets(from_kept(stays[name], layer), specs[governed[name]]) for name, layer in layers.items()}


def _as_one(members: Sequence[str], scored: Mapping[str, Scored], governed: Mapping[str, int], specs: Sequence[PruneSpec]) -> Scored:
    if len(members) == 1:
        return scored[members[0]]
    shapes = {name: scored[name].scores.shape for name in members}
    if len(set(shapes.values())) > 1:
        raise ConfigError(f"config_list: {told(shapes)} are tied, and lose the same elements only where their shapes agree.")
    spec = specs[gentlest(members, governed, specs)]
    scores = COMBINE[spec.group_score or "sum"]([scored[name].scores for name in voters(members, governed, specs)], axis=0)
    return Scored(np.asarray(scores), sum(scored[name].weights for name in members), before=scored[members[0]].before)


def only_targets(masks: dict[str, Array], spec: PruneSpec) -> dict[str, Array]:
    """Return a layer's masks with the bias alive where the entry's `target_names` lack it."""
    return masks if spec.masks_bias or "bias" not in masks else {**masks, "bias": np.ones_like(masks["bias"])}


def check_ties(governed: Mapping[str, int], specs: Sequence[PruneSpec], layers: Mapping[str, Layer]) -> None:
    """Raise `ConfigError` where layers cannot lose the same channels, or cannot be ranked together, naming layers and sizes."""
    for name, index in governed.items():
        _check_align(name, specs[index], governed, specs)
    for members in ties(governed, specs):
        _check_sizes(members, governed, specs, layers)
    check_ids(governed, specs)


def check_ids(governed: Mapping[str, int], specs: Sequence[Selector]) -> None:
    """Raise `ConfigError` where entries that share an id are of different algorithms, or ask different totals."""
    indices = dict.fromkeys(governed.values())
    pruning = [spec for spec in (specs[index] for index in indices) if isinstance(spec, PruneSpec)]
    for key in ("dependency_group", "global_group"):
        _check_ids(key, pruning)


def _check_align(name: str, spec: PruneSpec, governed: Mapping[str, int], specs: Sequence[PruneSpec]) -> None:
    """A layer takes over the mask of another one that the config_list prunes, and that takes over none itself."""
    if spec.align is None:
        return
    leader, place = str(spec.align.module_name), f"{spec.place}.target_settings.weight.align.module_name"
    if leader not in governed:
        raise ConfigError(f"{place}: {leader!r} is no layer that the config_list prunes{nearest(leader, governed)}.")
    if leader == name or specs[governed[leader]].align is not None:
        whose = "itself" if leader == name else f"{leader}, which takes over another's"
        raise ConfigError(f"{place}: {name} would take over the mask of {whose}. Name a layer that has an amount of its own.")


def _check_sizes(members: Sequence[str], governed: Mapping[str, int], specs: Sequence[PruneSpec], layers: Mapping[str, Layer]) -> None:
    sizes = {name: channels(layers[name]) for name in members}
    if len(set(sizes.values())) == 1:
        return
    spec = next((spec for spec in (specs[governed[name]] for name in members) if spec.dependency_group is not None), None)
    if spec is None:
        followers = [specs[governed[name]] for name in members if specs[governed[name]].align is not None]
        place = f"{followers[0].place}.target_settings.weight.align"
    else:
        place = f"{spec.place}.dependency_group_id: {spec.dependency_group!r}"
    raise ConfigError(f"{place}: these layers shall lose the same output channels and have different numbers of them: {told(sizes)}.")


def _check_ids(key: str, specs: Sequence[PruneSpec]) -> None:
    """Entries that share an id must agree on what makes their scores and amounts comparable."""
    first: dict[int | str, PruneSpec] = {}
    for spec in specs:
        group = getattr(spec, key)
        if group is None:
            continue
        other = first.setdefault(group, spec)
        where = f"{spec.place}.{key}_id: {group!r}"
        if spec.algorithm != other.algorithm:
            raise ConfigError(f"{where} is shared with {other.place} of another algorithm, and their scores do not compare.")
        if key == "global_group" and (spec.total, spec.ranking) != (other.total, other.ranking):
            asked = f"asks {_asks(spec)}, {other.place} {_asks(other)}"
            raise ConfigError(f"{where} {asked}: layers that are ranked together have one total; give both entries the same.")


def _asks(spec: PruneSpec) -> str:
    return f"{spec.total}" + (f" with {spec.ranking} ranking" if spec.ranking else "")


def told(sizes: Mapping[str, object]) -> str:
    """Name layers with their sizes for a reader: `conv1 (8), conv2 (16)`."""
    return ", ".join(f"{name} ({size})" for name, size in sizes.items())
