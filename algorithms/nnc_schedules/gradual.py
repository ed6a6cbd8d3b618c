"""Schedules that are formulas of time."""

from __future__ import annotations

from collections.abc import Mapping

from nnc.schedules import Gradual, Task


class LinearSchedule(Gradual):
    """The same number of channels leaves in each round: s_t = s t/n."""

    name = "linear"

    def at(self, final: float, t: float) -> float:
        return final * t


class AGPSchedule(Gradual):
    """Most leaves in the first rounds, where most is redundant: s_t = s (1 - (1 - t/n)^3).

    Zhu, Gupta, To prune, or not to prune, 2017, arXiv:1710.01878, equation 1.
    """

    name = "agp"

    def at(self, final: float, t: float) -> float:
        return final * (1 - (1 - t) ** 3)


class LotteryTicketSchedule(Gradual):
    """The same fraction of what is left leaves in each round, 1 - (1 - s)^(t/n), and what stays trains from its first weights again.

    Frankle, Carbin, The Lottery Ticket Hypothesis, ICLR 2019, arXiv:1803.03635, section 1.
    """

    name = "lottery_ticket"
    rewinds = True

    def at(self, final: float, t: float) -> float:
        return float(1 - (1 - final) ** t)

    def task(self, sparsity: Mapping[str, float]) -> Task:
        return Task(sparsity, rewind=True)
