"""Observers: what calibration remembers of a tensor, batch after batch, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .config import QConfig, QuantizeError


class MinMaxObserver:
    """Threshold: the largest magnitude seen."""

    def __init__(self):
        self.largest = 0.0

    def update(self, values: np.ndarray) -> None:
        """Take in the values of one batch, float32 of any shape.

        Raises
        ------
        QuantizeError
            If a value is NaN or infinite.
        """
        self.largest = max(self.largest, largest_magnitude(values))

    @property
    def threshold(self) -> float:
        """Largest magnitude that is not clipped."""
        return self.largest


class PercentileObserver:
    """Threshold: a percentile of the magnitudes seen, zeros included.

    Magnitudes are counted in a histogram of equal bins over [0, range]. A batch that exceeds the
    range doubles it as often as needed by adding neighbouring bins, which is exact. The threshold
    is the upper edge of the percentile's bin, at most the largest magnitude seen: never below the
    true percentile, and above it by no more than ``2 / bins`` of the largest.

    Parameters
    ----------
    percentile : float
        In (0, 100].
    bins : int
        A power of 2.
    """

    def __init__(self, percentile: float, bins: int = 8192):
        self.percentile, self.bins = percentile, bins
        self.counts = np.zeros(bins, np.int64)
        self.range = 0.0
        self.largest = 0.0
        self._zeros = 0  # seen before there was any range

    def update(self, values: np.ndarray) -> None:
        """Take in the values of one batch, float32 of any shape.

        Raises
        ------
        QuantizeError
            If a value is NaN or infinite.
        """
        largest = largest_magnitude(values)
        if largest == 0 and self.range == 0:
            self._zeros += values.size
            return
        self._widen_to(largest)
        self.largest = max(self.largest, largest)
        magnitudes = np.abs(values.astype(np.float64)).reshape(-1)
        places = np.minimum(magnitudes * (self.bins / self.range), self.bins - 1)
        self.counts += np.bincount(places.astype(np.int64), minlength=self.bins)

    @property
    def threshold(self) -> float:
        """Largest magnitude that is not clipped."""
        if self.range == 0:
            return 0.0
        counts = self.counts.copy()
        counts[0] += self._zeros
        cumulative = np.cumsum(counts)
        place = np.searchsorted(cumulative, cumulative[-1] * (self.percentile / 100))
        edge = (min(int(place), self.bins - 1) + 1) * self.range / self.bins
        return min(edge, self.largest)

    def _widen_to(self, largest: float) -> None:
        if self.range == 0:
            self.range = largest
        while self.range < largest:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([pairs, np.zeros_like(pairs)])
            self.range *= 2


Observer = MinMaxObserver | PercentileObserver


def observer_factory(config: QConfig) -> Callable[[], Observer]:
    """A function that makes a new observer for `config.calibrate_mode`."""
    if config.calibrate_mode == "percentile":
        return lambda: PercentileObserver(config.percentile)
    return MinMaxObserver


def largest_magnitude(values: np.ndarray) -> float:
    """``max(abs(values))`` without a copy of `values`.

    Raises
    ------
    QuantizeError
        If a value is NaN or infinite.
    """
    ends = (float(values.max(initial=0)), float(values.min(initial=0)))
    if not np.isfinite(ends).all():
        raise QuantizeError("holds NaN or infinity")
    return max(ends[0], -ends[1])
