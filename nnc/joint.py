"""Allocation over groups: layers that can only shrink together choose their channels together.

Without a graph each layer chooses alone, and where a residual add then needs a channel that one branch masked, it stays. With example
inputs the groups are known: their summed scores are ranked as one layer's would be, and what leaves is masked in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnc.adapter import Layer, Masks
from nnc.allocation import Scored, allocate
from nnc.graph.groups import Groups, Shared
from nnc.graph.ir import Array, Graph
from nnc.masks import complete
from nnc_schemas import PruneSpec


def joint_masks(
    graph: Graph,
    layers: Sequence[Layer],
    scored: Mapping[str, Scored],
    governed: Mapping[str, int],
    specs: Sequence[PruneSpec],
    allow_inexact: bool = False,
) -> Masks:
    """Return masks for every group all of whose layers the config_list selects; the others are left alone.

    `scored` and `governed` are by layer. A group whose layers are asked different sparsities takes the lowest of them.
    """
    groups = Groups(graph, allow_inexact)
    selected = {number: shared for number, shared in enumerate(groups.shared) if set(shared.layers) <= set(scored)}
    chosen = {number: shared for number, shared in selected.items() if _is_asked(shared, specs[_gentlest(shared, governed, specs)])}
    scores = {name: layer.scores for name, layer in scored.items()}
    joint = {
        str(number): Scored(groups.scores(shared, scores), groups.weights(shared), shared.rows_of_one) for number, shared in chosen.items()
    }
    spec_of = {str(number): _gentlest(shared, governed, specs) for number, shared in chosen.items()}
    keep = allocate(joint, spec_of, specs)
    return _masks(groups.kept({int(name): ~stays for name, stays in keep.items()}), layers)


def _is_asked(shared: Shared, spec: PruneSpec) -> bool:
    """Tell whether an entry means granules of this kind: a head is several output channels of each projection."""
    return spec.granularity != "head" or shared.rows_of_one > 1


def _gentlest(shared: Shared, governed: Mapping[str, int], specs: Sequence[PruneSpec]) -> int:
    asked = {governed[layer] for layer in shared.layers}
    return min(asked, key=lambda index: specs[index].per_layer or specs[index].total_sparsity or 0.0)


def _masks(kept: Mapping[str, Mapping[int, Array]], layers: Sequence[Layer]) -> Masks:
    """Spread keep vectors over an axis to whole parameters, and complete each layer's masks."""
    masks: Masks = {}
    for layer in layers:
        prefix = f"{layer.name}." if layer.name else ""
        mine = {name: kept[prefix + name] for name in layer.parameters if prefix + name in kept}
        if mine:
            masks[layer.name] = complete({name: _spread(keep, layer.parameters[name]) for name, keep in mine.items()}, layer)
    return masks


def _spread(keep: Mapping[int, Array], shape: tuple[int, ...]) -> Array:
    mask = np.ones(shape, bool)
    for axis, stays in keep.items():
        mask &= stays.reshape(-1, *(1,) * (len(shape) - 1 - axis))
    return mask
