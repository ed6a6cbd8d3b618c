"""The grid of a weight that nothing learns: as wide as its largest number, or narrower where an observer found that to be better."""

from __future__ import annotations

import numpy as np

from nnc.graph.ir import Array
from nnc_quantization.checks import COVERING
from nnc_quantization.observers import OBSERVERS
from nnc_quantization.views import ScaleOfMax
from nnc_schemas.quantize import QuantSpec


def plain_view(weight: Array, bits: int, entry: QuantSpec) -> ScaleOfMax:
    """Return the view that rounds a weight `(out, in, *kernel)` to the nearest numbers of the grid that its entry asks for."""
    per_channel = entry.scheme("weight") == "per_channel_symmetric"
    return ScaleOfMax(bits, per_channel, _shrink(weight, bits, entry, per_channel), entry.block)


def _shrink(weight: Array, bits: int, entry: QuantSpec, per_channel: bool) -> Array | float:
    """Return how much smaller than the largest |w| each channel's range is to be, as the observer of weights says."""
    name = entry.observes("weight")
    if name is None or name in COVERING:
        return 1.0
    rows = weight.reshape(len(weight), -1) if per_channel else weight.reshape(1, -1)
    reaches = []
    for row in rows:
        observer = OBSERVERS[name](bits)
        observer.observe(row)
        reaches.append(observer.reach() / max(float(np.abs(row).max()), 1e-12))
    ratio = np.minimum(np.array(reaches, np.float32), 1.0)
    return ratio.reshape(-1, *(1,) * (weight.ndim - 1)) if len(ratio) > 1 else float(ratio[0])
