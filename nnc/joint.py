"""Allocation over groups: layers that can only shrink together choose their channels together.

Without a graph each layer chooses alone, and where a residual add then needs a channel that one branch masked, it stays. With example
inputs the groups are known: their scores together are ranked as one layer's would be, and what leaves is masked in all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from nnc.adapter import Layer, Masks
from nnc.allocation import Scored, allocate
from nnc.graph.groups import Groups
from nnc.graph.ir import Array, Graph, Shape
from nnc.masks import complete, paths
from nnc.ties import gentlest, only_targets, ties, voters
from nnc.unmet import Asked, require_some, tell_none_left, tell_refused
from nnc_schemas import PruneSpec


def joint_masks(
    graph: Graph,
    layers: Sequence[Layer],
    scored: Mapping[str, Scored],
    governed: Mapping[str, int],
    specs: Sequence[PruneSpec],
    allow_inexact: bool = False,
    spared: Collection[str] = (),
    whole: Mapping[str, Shape] | None = None,
) -> Masks:
    """Return masks for every group all of whose layers the config_list selects; the others are left alone.

    `scored` and `governed` are by layer. A group whose layers are asked different sparsities takes the lowest of them. An embedding that
    is not selected follows the layers that are, unless it is among the `spared`. Totals count in the model that has the parameters of
    `whole`, by default this one.
    Warns `LeftAlone` of what the config_list singles out and cannot have. Raises `ConfigError` where nothing of it can leave.
    """
    tied = ties(governed, specs)
    groups = Groups(graph, allow_inexact, tied, paths(layers))
    asked = Asked(groups, governed, specs, dict(_chosen(groups, governed, specs, spared)), tied, spared)
    tell_refused(asked)
    keep = _kept(asked, scored, whole)
    tell_none_left(asked, keep)
    masks = _masks(groups.kept({number: ~stays for number, stays in keep.items()}), layers)
    return {name: only_targets(mine, asked.spec(name)) if name in governed else mine for name, mine in masks.items()}


def granules(
    graph: Graph,
    governed: Mapping[str, int],
    specs: Sequence[PruneSpec],
    allow_inexact: bool = False,
    spared: Collection[str] = (),
) -> Iterator[tuple[int, dict[str, Array]]]:
    """Yield, for each group that the config_list means, the entry that decides and which granule each output channel belongs to.

    The latter by the path of a parameter, -1 where a channel belongs to none: what a score that is trained is spread by. Raises
    `ConfigError` where nothing of what the config_list selects can leave.
    """
    tied = ties(governed, specs)
    groups = Groups(graph, allow_inexact, tied)
    chosen = dict(_chosen(groups, governed, specs, spared))
    require_some(Asked(groups, governed, specs, chosen, tied, spared))
    for number, index in chosen.items():
        yield index, groups.rows(number)


def _chosen(
    groups: Groups, governed: Mapping[str, int], specs: Sequence[PruneSpec], spared: Collection[str] = ()
) -> Iterator[tuple[int, int]]:
    """Yield (group, entry) for the groups that the config_list means as a whole, and the entry that decides."""
    for number, shared in enumerate(groups.shared):
        mine = [name for name in shared.layers if name in governed]
        if mine and not shared.missing(governed, spared):
            index = gentlest(mine, governed, specs)
            if specs[index].removes and (shared.heads or not specs[index].heads):
                yield number, index


def _kept(asked: Asked, scored: Mapping[str, Scored], whole: Mapping[str, Shape] | None) -> dict[int, Array]:
    """Return which granules of each chosen group stay."""
    groups = asked.groups
    kinds = groups.shapes() if any(spec.ranking == "isomorphic" for spec in asked.specs) else {}
    joint = {}
    for number, index in asked.chosen.items():
        shared = groups.shared[number]
        mine = [name for name in shared.layers if name in asked.governed]
        scores = {name: scored[name].scores for name in voters(mine, asked.governed, asked.specs)}
        together = groups.scores(shared, scores, asked.specs[index].group_score or "sum")
        weights, before = groups.weights(shared, whole), groups.before(shared, whole)
        joint[str(number)] = Scored(together, weights, shared.rows_of_one, kinds.get(number), before)
    keep = allocate(joint, {str(number): index for number, index in asked.chosen.items()}, asked.specs)
    leaving = {int(number): ~stays for number, stays in keep.items()}
    even = groups.evened(leaving, {number: joint[str(number)].scores for number in leaving})
    return {number: ~gone for number, gone in even.items()}


def _masks(kept: Mapping[str, Mapping[int, Array]], layers: Sequence[Layer]) -> Masks:
    """Spread keep vectors over an axis to whole parameters, and complete each layer's masks."""
    masks: Masks = {}
    for layer in layers:
        prefix, shapes = f"{layer.name}." if layer.name else "", layer.parameters
        mine = {name: _spread(kept[prefix + name], shape) for name, shape in shapes.items() if prefix + name in kept}
        if mine:
            masks[layer.name] = complete(mine, layer)
    return masks


def _spread(keep: Mapping[int, Array], shape: tuple[int, ...]) -> Array:
    """Return a mask that repeats what stays of an axis over the others: a view, so that the masks of whole layers take no memory."""
    along = [np.broadcast_to(stays.reshape(-1, *(1,) * (len(shape) - 1 - axis)), shape) for axis, stays in keep.items()]
    return along[0] if len(along) == 1 else np.logical_and.reduce(along)
