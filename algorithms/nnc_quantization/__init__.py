"""Quantisation: grids that are measured (ptq), and grids that training follows or learns (qat), written once for every framework."""

from __future__ import annotations

from collections.abc import Callable

from nnc.algorithm import Quantizer
from nnc.hookspecs import hookimpl
from nnc_quantization.qat import BNNQuantizer, DoReFaQuantizer, LSQPlusQuantizer, LSQQuantizer, PACTQuantizer, STEQuantizer
from nnc_quantization.quantizers import PTQQuantizer
from nnc_quantization.search import search

__all__ = [
    "BNNQuantizer",
    "DoReFaQuantizer",
    "LSQPlusQuantizer",
    "LSQQuantizer",
    "PACTQuantizer",
    "PTQQuantizer",
    "STEQuantizer",
    "search",
]


@hookimpl
def nnc_register_algorithms(register: Callable[[type[Quantizer]], None]) -> None:
    for quantizer in (PTQQuantizer, STEQuantizer, LSQQuantizer, LSQPlusQuantizer, PACTQuantizer, DoReFaQuantizer, BNNQuantizer):
        register(quantizer)
