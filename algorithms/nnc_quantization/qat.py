"""Quantisation-aware training: which view stands at which tensor.

                   weights                        activations                      learns
    qat_ste        largest |w| of now             range that follows the batches   -
    qat_lsq        learned scale                  learned scale                    scales
    qat_lsq_plus   learned scale                  learned scale and zero point     scales, zero points
    qat_pact       largest |w| of now             learned clipping                 alphas
    qat_dorefa     squashed by tanh               [0, 1], or a range               -
    qat_bnn        sign                           a range                          -

`ptq`, in quantizers.py, has fixed grids of both. All measure first (`calib_steps` batches), then train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from nnc.adapter import Layer, Ops
from nnc.algorithm import Quantizer
from nnc.arrays import to_numpy
from nnc.graph.ir import Array
from nnc.grid import Grids
from nnc.objective import Objective, Seen
from nnc.views import Site
from nnc_quantization.quantizers import CalibratedQuantizer
from nnc_quantization.views import (
    Binary,
    Clipped,
    LearnedGrid,
    LearnedScale,
    Quantised,
    Range,
    ScaleOfMax,
    Squashed,
    Unit,
    group_at,
)
from nnc_schemas.quantize import QuantSpec


class STEQuantizer(CalibratedQuantizer):
    """Training with weights and activations on grids that follow them; gradients pass straight through the rounding.

    Bengio et al. 2013, arXiv:1308.3432; ranges as in Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.1. Needs training.
    """

    name = "qat_ste"

    def weight_view(self, layer: Layer, bits: int, entry: QuantSpec) -> Quantised:
        return ScaleOfMax(bits, entry.scheme("weight") == "per_channel_symmetric", block=entry.block)

    def activation_view(self, site: Site, bits: int, entry: QuantSpec, limits: tuple[float, float], shared: str) -> Quantised:
        return Range(bits, *limits, entry.scheme(site.tensor).endswith("symmetric") and limits[0] < 0, shared=shared)


class LSQQuantizer(CalibratedQuantizer):
    """Training with scales that learn, of weights and activations.

    Esser et al., Learned Step Size Quantization, ICLR 2020, arXiv:1902.08153. A weight's first scale is 2 mean|w| / sqrt(highest), an
    activation's the one of the measured range. Needs training.
    """

    name = "qat_lsq"
    blocks = False

    def __init__(self, model: Any, config_list: Sequence[Any], example_inputs: Any = None, **options: Any) -> None:
        super().__init__(model, config_list, example_inputs, **options)
        self._learned: dict[str, Array] = {}

    def moved(self, model: Any, example_inputs: Any, grids: Grids) -> Quantizer:
        new = super().moved(model, example_inputs, grids)
        assert isinstance(new, LSQQuantizer)
        new._learned = {site.layer: grid.scale for site, grid in grids.items() if site.tensor == "weight" and not grid.block}
        return new

    def weight_view(self, layer: Layer, bits: int, entry: QuantSpec) -> Quantised:
        weight = to_numpy(layer.weight)
        axes = tuple(range(1, weight.ndim)) if entry.scheme("weight") == "per_channel_symmetric" else None
        start, learned = self.first_scale(weight, axes, bits), self._learned.get(layer.name)
        if learned is not None and learned.size == start.size:
            start = learned.reshape(start.shape)
        return LearnedScale(bits, start, True, False, group_at("weight", entry.lr_weight))

    def first_scale(self, weight: Array, axes: tuple[int, ...] | None, bits: int) -> Array:
        """Return the scales to begin with, over which `axes` are shared, `(out, 1, ...)`, or (), where all are."""
        return np.asarray(2 * np.abs(weight).mean(axis=axes, keepdims=axes is not None) / sqrt(2 ** (bits - 1) - 1))

    def activation_view(self, site: Site, bits: int, entry: QuantSpec, limits: tuple[float, float], shared: str) -> Quantised:
        signed = limits[0] < 0
        reach = max(-limits[0], limits[1])
        start = np.asarray(reach / (2 ** (bits - signed) - 1), np.float32)
        return LearnedScale(bits, start, signed, True, group_at("input", entry.lr_input), shared)


class LSQPlusQuantizer(LSQQuantizer):
    """LSQ whose activations also learn their zero point.

    Bhalgat et al., LSQ+, CVPR workshops 2020, arXiv:2004.09576. The first scale of a weight is max|mean +- 3 std| / 2^(bits-1).
    """

    name = "qat_lsq_plus"

    def first_scale(self, weight: Array, axes: tuple[int, ...] | None, bits: int) -> Array:
        mean = weight.mean(axis=axes, keepdims=axes is not None)
        spread = 3 * weight.std(axis=axes, keepdims=axes is not None)
        return np.asarray(np.maximum(np.abs(mean - spread), np.abs(mean + spread)) / 2 ** (bits - 1))

    def activation_view(self, site: Site, bits: int, entry: QuantSpec, limits: tuple[float, float], shared: str) -> Quantised:
        return LearnedGrid(bits, *limits, group_at("input", entry.lr_input), shared)


class PACTQuantizer(STEQuantizer):
    """Training with activations clipped where it pays: each has an alpha that learns.

    Choi et al., PACT, 2018, arXiv:1805.06085. `alpha_decay` * alpha^2 is added to the loss. Needs training.
    """

    name = "qat_pact"

    def activation_view(self, site: Site, bits: int, entry: QuantSpec, limits: tuple[float, float], shared: str) -> Quantised:
        return Clipped(bits, max(-limits[0], limits[1]), limits[0] < 0, group_at("input", entry.lr_input), shared)

    def objectives(self) -> Sequence[Objective]:
        clipped = {site: view for site, view in self._views().items() if isinstance(view, Clipped)}
        decays = {site: self._entry(self._owner(site)).alpha_decay * view.alpha**2 for site, view in clipped.items()}
        return (AlphaDecay(decays),) if decays else ()


class AlphaDecay(Objective):
    """sum of decay * alpha^2; alpha is a learned ratio of what was measured, whose square is in `decays`."""

    name = "pact"

    def __init__(self, decays: Mapping[Site, float]) -> None:
        self.decays = dict(decays)

    def terms(self, seen: Seen, ops: Ops) -> Mapping[str, Any]:
        terms = [ops.square(seen.views[site, Quantised.name]["ratio"]) * decay for site, decay in self.decays.items()]
        return {"alpha": sum(terms[1:], terms[0])}


class DoReFaQuantizer(STEQuantizer):
    """Training with weights squashed by tanh, and activations that lie in [0, 1] rounded there.

    Zhou et al., DoReFa-Net, 2016, arXiv:1606.06160, equations 7 to 11. Activations beyond [0, 1] have a range that follows them.
    """

    name = "qat_dorefa"
    fewest = 1
    blocks = False

    def weight_view(self, layer: Layer, bits: int, entry: QuantSpec) -> Quantised:
        return Squashed(bits)

    def activation_view(self, site: Site, bits: int, entry: QuantSpec, limits: tuple[float, float], shared: str) -> Quantised:
        within = limits[0] >= 0 and limits[1] <= 1
        return Unit(bits) if within else super().activation_view(site, bits, entry, limits, shared)


class BNNQuantizer(STEQuantizer):
    """Training with weights of one bit: the sign, times the mean |w| of each output channel.

    Hubara et al., Binarized Neural Networks, 2016, arXiv:1602.02830; scales: Rastegari et al., XNOR-Net, 2016, arXiv:1603.05279.
    Activations keep `quant_bits`. Leave the first and the last layer out.
    """

    name = "qat_bnn"
    fewest = 1
    blocks = False

    def weight_view(self, layer: Layer, bits: int, entry: QuantSpec) -> Quantised:
        return Binary()
