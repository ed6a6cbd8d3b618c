"""Pruners: each is a score, written once for every framework.

weights only      level, l1_norm, l2_norm, fpgm, random, lamp
activations       apoz, mean_activation, wanda, sparsegpt
gradients         taylor_fo, obd
training          movement, slim, admm
"""

from __future__ import annotations

from collections.abc import Callable

from nnc.algorithm import Pruner
from nnc.hookspecs import hookimpl
from nnc_pruning.activations import APoZPruner, MeanActivationPruner
from nnc_pruning.admm import ADMMPruner
from nnc_pruning.fpgm import FPGMPruner
from nnc_pruning.gradients import OBDPruner, TaylorFOPruner
from nnc_pruning.inputs import SparseGPTPruner, WandaPruner
from nnc_pruning.lamp import LAMPPruner
from nnc_pruning.magnitude import LevelPruner
from nnc_pruning.movement import MovementPruner
from nnc_pruning.norms import L1NormPruner, L2NormPruner
from nnc_pruning.random import RandomPruner
from nnc_pruning.slim import SlimPruner

_WEIGHTS = (LevelPruner, L1NormPruner, L2NormPruner, FPGMPruner, RandomPruner, LAMPPruner)
_DATA = (APoZPruner, MeanActivationPruner, WandaPruner, SparseGPTPruner, TaylorFOPruner, OBDPruner)
_TRAINING = (MovementPruner, SlimPruner, ADMMPruner)

__all__ = [
    "ADMMPruner",
    "APoZPruner",
    "FPGMPruner",
    "L1NormPruner",
    "L2NormPruner",
    "LAMPPruner",
    "LevelPruner",
    "MeanActivationPruner",
    "MovementPruner",
    "OBDPruner",
    "RandomPruner",
    "SlimPruner",
    "SparseGPTPruner",
    "TaylorFOPruner",
    "WandaPruner",
]


@hookimpl
def nnc_register_algorithms(register: Callable[[type[Pruner]], None]) -> None:
    for pruner in (*_WEIGHTS, *_DATA, *_TRAINING):
        register(pruner)
