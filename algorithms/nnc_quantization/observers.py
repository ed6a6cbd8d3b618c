"""Observers: from what passes a layer, batch after batch, to the range that its grid covers. Each keeps a few numbers, never the data.

    minmax                    the smallest and the largest number
    abs_max                   the largest |x|
    moving_average_abs_max    a mean of each batch's largest |x| that forgets
    avg                       the mean over batches of the mean over samples of the largest |x|
    percentile (hist)         what all but a few numbers lie within
    mse                       the range whose grid has the smallest squared error
    kl (entropy)              the range whose grid loses least information

Ranges that clip are symmetric in |x| and then cut where no number was: the grid of a ReLU's output begins at 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import frexp
from typing import ClassVar

import numpy as np

from nnc.errors import ConfigError
from nnc.graph.ir import Array

#: Bins of a histogram of |x|; at least half of them lie below the largest.
BINS = 4096


class Observer(ABC):
    """Sees batches, tells the range to cover."""

    name: ClassVar[str]

    def __init__(self, bits: int = 8) -> None:
        self.bits = bits
        self.low, self.high = np.inf, -np.inf

    def observe(self, batch: Array) -> None:
        """Take note of a batch. Raises `ConfigError` for one that is empty or holds numbers that are not finite."""
        if not batch.size:
            raise ConfigError(f"calibration data: a batch is empty, of shape {batch.shape}.")
        low, high = float(batch.min()), float(batch.max())
        if not np.isfinite([low, high]).all():
            count = int(batch.size - np.isfinite(batch).sum())
            raise ConfigError(f"calibration data: {count} of {batch.size} numbers are NaN or infinite.")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.note(batch, max(-low, high))

    @abstractmethod
    def note(self, batch: Array, largest: float) -> None:
        """Fold a batch, whose largest |x| is given, into what is kept."""

    @abstractmethod
    def reach(self) -> float:
        """Return the |x| to cover."""

    def range(self) -> tuple[float, float]:
        """Return the range to cover, 0 included."""
        reach = self.reach()
        return max(min(self.low, 0.0), -reach), min(max(self.high, 0.0), reach)


class AbsMax(Observer):
    """The largest |x| of all batches."""

    name = "abs_max"

    def note(self, batch: Array, largest: float) -> None: ...

    def reach(self) -> float:
        return max(-self.low, self.high, 0.0)


class MinMax(AbsMax):
    """The smallest and the largest number of all batches."""

    name = "minmax"


class MovingAverageAbsMax(Observer):
    """sum r^i max|x_i| / sum r^i: a mean that forgets old batches, unbiased from the first one on; r = 0.9.

    Jacob et al. 2018, arXiv:1712.05877, section 3.1, with the correction for the beginning.
    """

    name = "moving_average_abs_max"
    rate = 0.9

    def __init__(self, bits: int = 8) -> None:
        super().__init__(bits)
        self.state = self.total = 0.0

    def note(self, batch: Array, largest: float) -> None:
        self.state = self.rate * self.state + 1
        self.total = self.rate * self.total + largest

    def reach(self) -> float:
        return self.total / self.state

    def range(self) -> tuple[float, float]:
        reach = self.reach()
        return -reach if self.low < 0 else 0.0, reach if self.high > 0 else 0.0


class Average(Observer):
    """The mean over batches of the mean over samples of the largest |x|."""

    name = "avg"

    def __init__(self, bits: int = 8) -> None:
        super().__init__(bits)
        self.total, self.batches = 0.0, 0

    def note(self, batch: Array, largest: float) -> None:
        samples = np.abs(batch.reshape(len(batch), -1)) if batch.ndim else np.abs(batch.reshape(1, 1))
        self.total += float(samples.max(axis=1).mean(dtype=np.float64))
        self.batches += 1

    def reach(self) -> float:
        return self.total / self.batches


class HistogramObserver(Observer):
    """Keeps a histogram of |x| whose bins are as wide as a power of two, the smallest with which all numbers find a bin.

    Where a batch goes beyond, pairs of bins become one, which is exact: the histogram is the same in whatever order the batches come.
    """

    def __init__(self, bits: int = 8) -> None:
        super().__init__(bits)
        self.counts = np.zeros(BINS, np.int64)
        self.width = 0.0

    def note(self, batch: Array, largest: float) -> None:
        if not largest:
            self.counts[0] += batch.size
            return
        width = 2.0 ** frexp(largest)[1] / BINS
        self.width = self.width or width
        while self.width < width:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)])
            self.width *= 2
        bins = np.abs(batch.ravel() * np.float32(1 / self.width)).astype(np.int32)
        self.counts += np.bincount(bins, minlength=BINS)

    @property
    def top(self) -> float:
        return max(-self.low, self.high, 0.0)

    @property
    def centres(self) -> Array:
        return np.asarray((np.arange(BINS) + 0.5) * self.width)


class Percentile(HistogramObserver):
    """The upper edge of the first bin up to which 99.99 % of all |x| lie."""

    name = "percentile"
    fraction = 0.9999

    def reach(self) -> float:
        share = np.cumsum(self.counts) / self.counts.sum()
        return min(self.top, float((np.searchsorted(share, self.fraction) + 1) * self.width))


class MeanSquaredError(HistogramObserver):
    """The range, of a hundred from 0.05 to 1 of the largest |x| in equal ratios, whose symmetric grid has the smallest squared error."""

    name = "mse"

    def reach(self) -> float:
        if not self.top:
            return 0.0
        candidates = self.top * np.geomspace(0.05, 1.0, 100)
        levels = 2 ** (self.bits - 1) - 1
        scales = candidates[:, None] / levels
        on_grid = np.clip(np.rint(self.centres / scales), 0, levels) * scales  # (candidates, bins)
        errors = ((on_grid - self.centres) ** 2) @ self.counts
        # Of equal ones the larger: nothing is clipped without need.
        return float(candidates[::-1][np.argmin(errors[::-1])])


class Entropy(HistogramObserver):
    """The range whose histogram, on the grid, diverges least from the one that was seen, by Kullback and Leibler.

    Migacz, 8-bit inference with TensorRT, GTC 2017: of the first i bins, i from 2^(bits-1) up, what lies beyond is added to the last;
    Q has as many bins as the grid has levels, spread evenly over the bins that hold anything. An i whose last bin is empty is left out:
    Q has nothing there, and what lies beyond would diverge without end.
    """

    name = "kl"

    def reach(self) -> float:
        levels = 2 ** (self.bits - 1)
        if not self.counts[levels:].any():
            return self.top
        ends = np.arange(levels, BINS + 1)
        ends = ends[self.counts[ends - 1] > 0]
        return min(self.top, float((ends[np.argmin(self._divergences(ends, levels))] + 0.5) * self.width))

    def _divergences(self, ends: Array, levels: int) -> Array:
        """Return sum p log(p / q) for each number of bins in `ends`, whose last bins all hold something.

        With counts c, beyond the end o, n in all, and q = s_g / h_g / S within the group g of h_g bins that hold anything:
        sum p log p = (sum c log c) / n - log n, sum p log q = (sum over g of (s_g + o in the last) log(s_g / h_g)) / n - log S.
        """
        counts = self.counts.astype(np.float64)
        total, last = counts.sum(), counts[ends - 1]
        within = _before(counts)[ends]
        beyond = total - within
        own = _before(_times_log(counts))[ends] - _times_log(last) + _times_log(last + beyond)
        edges = -(-np.arange(levels + 1) * ends[:, None] // levels)  # (ends, levels + 1)
        sums = np.diff(_before(counts)[edges], axis=1)
        holds = np.diff(_before(counts > 0)[edges], axis=1)
        logs = np.log(np.maximum(sums, 1) / np.maximum(holds, 1))
        sums[:, -1] += beyond
        return np.asarray((own - (sums * logs).sum(axis=1)) / total - np.log(total) + np.log(within))


def _before(numbers: Array) -> Array:
    """Return the sum of the numbers in front of each place, and of all of them."""
    return np.concatenate([[0.0], np.cumsum(numbers, dtype=np.float64)])


def _times_log(numbers: Array) -> Array:
    return np.asarray(numbers * np.log(np.maximum(numbers, 1)))


_ALL: tuple[type[Observer], ...] = (MinMax, AbsMax, MovingAverageAbsMax, Average, Percentile, MeanSquaredError, Entropy)
OBSERVERS: Mapping[str, type[Observer]] = {**{cls.name: cls for cls in _ALL}, "hist": Percentile, "entropy": Entropy}
