"""Schedules: which sparsity next, written once for every pruner and every framework.

formulas    linear, agp, lottery_ticket
searches    simulated_annealing, auto_compress, amc
"""

from __future__ import annotations

from collections.abc import Callable

from nnc.hookspecs import hookimpl
from nnc.schedules import Schedule
from nnc_schedules.amc import AMCSchedule
from nnc_schedules.annealing import AutoCompressSchedule, SimulatedAnnealingSchedule
from nnc_schedules.gradual import AGPSchedule, LinearSchedule, LotteryTicketSchedule

__all__ = [
    "AGPSchedule",
    "AMCSchedule",
    "AutoCompressSchedule",
    "LinearSchedule",
    "LotteryTicketSchedule",
    "SimulatedAnnealingSchedule",
]


@hookimpl
def nnc_register_schedules(register: Callable[[type[Schedule]], None]) -> None:
    for schedule in (LinearSchedule, AGPSchedule, LotteryTicketSchedule, SimulatedAnnealingSchedule, AutoCompressSchedule, AMCSchedule):
        register(schedule)
