"""Distillation: a student's loss gets terms from a teacher that runs beside it, each a method with a name for config_lists."""

from __future__ import annotations

from collections.abc import Callable

from nnc.algorithm import Algorithm
from nnc.hookspecs import hookimpl
from nnc_distillation.outputs import KL, CELogits, MSELogits, ReverseKL
from nnc_distillation.states import PKD, CosHiddenStates, MSEAttention, MSEEmbeddings, MSEHiddenStates, MSELastHidden
from nnc_distillation.transformers import MiniLM, MiniLMv2, TinyBERT

__all__ = [
    "KL",
    "PKD",
    "CELogits",
    "CosHiddenStates",
    "MSEAttention",
    "MSEEmbeddings",
    "MSEHiddenStates",
    "MSELastHidden",
    "MSELogits",
    "MiniLM",
    "MiniLMv2",
    "ReverseKL",
    "TinyBERT",
]


@hookimpl
def nnc_register_algorithms(register: Callable[[type[Algorithm]], None]) -> None:
    for name in __all__:
        register(globals()[name])
