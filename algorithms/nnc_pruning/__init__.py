"""Pruners that need the weights only: each is a score, written once for every framework."""

from __future__ import annotations

from collections.abc import Callable

from nnc.algorithm import Pruner
from nnc.hookspecs import hookimpl
from nnc_pruning.fpgm import FPGMPruner
from nnc_pruning.magnitude import LevelPruner
from nnc_pruning.norms import L1NormPruner, L2NormPruner
from nnc_pruning.random import RandomPruner

__all__ = ["FPGMPruner", "L1NormPruner", "L2NormPruner", "LevelPruner", "RandomPruner"]


@hookimpl
def nnc_register_algorithms(register: Callable[[type[Pruner]], None]) -> None:
    for pruner in (LevelPruner, L1NormPruner, L2NormPruner, FPGMPruner, RandomPruner):
        register(pruner)
