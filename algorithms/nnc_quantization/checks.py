"""What an entry asks that its layers, or its algorithm, cannot do: found before anything is measured, and never passed over in silence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from nnc.adapter import Layer
from nnc.arrays import to_numpy
from nnc.errors import ConfigError, nearest
from nnc.select import Treating, selected
from nnc_quantization.observers import OBSERVERS
from nnc_schemas.quantize import CHANNELWISE, PTQSpec, QuantSpec, in_name
from nnc_schemas.selector import Selector

#: Observers of weights whose grid covers the largest |w|.
COVERING = (CHANNELWISE, "abs_max", "minmax", "moving_average_abs_max", "avg")


def check_finite(layers: Iterable[Layer]) -> None:
    """Raise `ConfigError` that names a weight or a bias with NaN or infinity in it: what comes behind would be blamed for it."""
    for layer in layers:
        for tensor in ("weight", "bias"):
            array = to_numpy(getattr(layer, tensor)) if tensor in layer.parameters else np.zeros(0)
            count = int(array.size - np.isfinite(array).sum())
            if count:
                place = f"{layer.name}.{tensor}".lstrip(".")
                raise ConfigError(f"{place}: {count} of {array.size} numbers are NaN or infinite, and no grid holds them.")


def int4_names(entry: QuantSpec, layers: Sequence[Layer], by: Treating) -> set[str]:
    """Return the layers whose weights an entry wants in 4 bits. Raises `ConfigError` for a part of them that matches none of its own."""
    if entry.exclude or entry.int4_layers is None:
        return set()
    own, place = selected(entry, layers, by), f"{entry.place}.int4_layers"
    if isinstance(entry.int4_layers, Selector):
        found = set(selected(entry.int4_layers.placed(place), layers, by)) & set(own)
        if not found:
            raise ConfigError(f"{place}: selects none of the entry's layers, {', '.join(own[:3])}{' ...' if own[3:] else ''}.")
        return found
    matched = {part: {name for name in own if in_name(part, name)} for part in entry.int4_layers}
    for part, names in matched.items():
        if not names:
            raise ConfigError(f"{place}: {part!r} matches none of the entry's layers{nearest(part, own)}. `nnc layers` lists them all.")
    return {name for names in matched.values() for name in names}


def check_weight(entry: QuantSpec, layer: Layer, algorithm: str, blocks: bool) -> None:
    """Raise `ConfigError` where a weight cannot have the scales that its entry asks for; `blocks`: whether the algorithm has any."""
    if not entry.block:
        return
    place = f"{entry.place}.quant_scheme: per_group_symmetric"
    if not blocks:
        raise ConfigError(f"{place}: {algorithm!r} has no scale for each group; use per_channel_symmetric, or ptq, qat_ste or qat_pact.")
    axes = len(layer.parameters["weight"])
    if axes != 2:
        told = f"{layer.name!r} is a {layer.op_type}, whose weight has {axes} axes; groups are inputs of a linear layer"
        raise ConfigError(f"{place}: {told}. Name those in op_types or op_names.")


def check_observers(entry: QuantSpec, algorithm: str) -> None:
    """Raise `ConfigError` for an observer that is not known, or that its tensor, or the algorithm, has no use for."""
    for tensor in ("input", "output", "weight"):
        name = entry.observes(tensor)
        if name is None or (tensor != "weight" and entry.tensors == ("weight",)):
            continue
        known = (*OBSERVERS, CHANNELWISE) if tensor == "weight" else tuple(OBSERVERS)
        if name == CHANNELWISE and tensor != "weight":
            raise ConfigError(f"{entry.place}.observer: {name!r} is for weights, which do so by themselves; leave it out of {tensor!r}.")
        if name not in known:
            raise ConfigError(f"{entry.place}.observer: {name!r} is no observer{nearest(name, known)}. Known are {', '.join(known)}.")
    _check_weights_observer(entry, entry.observes("weight"), algorithm)


def _check_weights_observer(entry: QuantSpec, name: str | None, algorithm: str) -> None:
    place, scheme = f"{entry.place}.observer: {name!r} of weights", entry.scheme("weight")
    if name == CHANNELWISE and scheme != "per_channel_symmetric":
        raise ConfigError(f"{place}: has a scale for each output channel, and quant_scheme says {scheme}; say one of them.")
    if name is None or name in COVERING:
        return
    if not isinstance(entry, PTQSpec):
        raise ConfigError(f"{place}: {algorithm!r} has grids that follow the weights; only ptq looks for theirs. Leave it out.")
    other = "per_group_symmetric" if entry.block else entry.rounding if entry.rounding != "nearest" else ""
    if other:
        raise ConfigError(f"{place}: {other!r} takes the largest |w|; leave one of them out.")
