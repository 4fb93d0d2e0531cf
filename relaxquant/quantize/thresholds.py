"""From a histogram of a tensor's values to the range that quantization keeps.

Each calibrator is a function of what an observer remembers and of the `Form` of the tensor;
what lies outside the range it returns is clipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .histogram import Ends, Histogram
from .scales import Codes, Range, activation_codes


@dataclass(frozen=True)
class Form:
    """How a tensor is stored, which decides what a range becomes.

    Parameters
    ----------
    dtype : str
        ``"uint8"``, ``"int8"`` or ``"int16"``.
    nbit : int
        Bits used.
    signed : bool
        Whether there are integers below the zero point.
    asymmetric : bool
        Whether the two sides of a signed range may differ.
    """

    dtype: str = "uint8"
    nbit: int = 8
    signed: bool = False
    asymmetric: bool = False

    def range(self, low: float, high: float) -> Range:
        """The narrowest range of this form around `low` and `high`."""
        if self.signed and self.asymmetric:
            return Range(min(low, 0.0), max(high, 0.0))
        threshold = max(high, -low)
        return Range(-threshold if self.signed else 0.0, threshold)

    def codes(self, found: Range) -> Codes:
        """The integers that a range becomes."""
        return activation_codes(found, self.dtype, self.nbit)


Calibrator = Callable[[Histogram, Form], Range]


def min_max(observer: Ends, form: Form) -> Range:
    """Everything seen."""
    return form.range(observer.low, observer.high)


def percentile(histogram: Histogram, form: Form, percentile: float = 99.99) -> Range:
    """All but the ``100 - percentile`` percent of largest magnitude, zeros counted.

    An asymmetric range leaves out half of that percentage at each end. Ends are upper edges of
    bins: a threshold is never below the true percentile, and above it by at most ``2 / bins`` of
    the largest magnitude.
    """
    if not (form.asymmetric and histogram.is_signed):
        threshold = _quantile(histogram, histogram.magnitudes(), percentile)
        return form.range(0.0, threshold)
    tail = (100 - percentile) / 2
    below, above = histogram.counts[: histogram.bins][::-1], histogram.counts[histogram.bins :]
    low = _quantile(histogram, _with_zeros(below, above.sum()), 100 - tail)
    high = _quantile(histogram, _with_zeros(above, below.sum()), 100 - tail)
    return form.range(max(-low, histogram.low), min(high, histogram.high))


def mse(histogram: Histogram, form: Form) -> Range:
    """The range with the least squared error of rounding and clipping, over what was seen.

    Ends are searched among 1/128 to 1 of those seen, then around the best one; those of an
    asymmetric range in turn until neither moves. Of 16 bits, whose steps are finer than the bins,
    nothing is clipped.
    """
    if histogram.largest == 0 or form.nbit > 8:
        return min_max(histogram, form)
    centres, counts = histogram.seen()

    def error(low: float, high: float) -> float:
        return squared_error(centres, counts, form, form.range(low, high))

    if not (form.asymmetric and histogram.is_signed):
        best = _search(lambda end: error(-end, end), histogram.largest)
        return form.range(0.0, best)
    low, high = histogram.low, histogram.high
    for _ in range(3):
        before = low, high
        if high > 0:
            high = _search(lambda end, low=low: error(low, end), histogram.high)
        low = -_search(lambda end, high=high: error(-end, high), -histogram.low)
        if (low, high) == before:
            break
    return Range(low, high)


def squared_error(values: np.ndarray, counts: np.ndarray, form: Form, range_: Range) -> float:
    """Sum of squared errors of `values`, each `counts` times, in the integers of a range."""
    codes = form.codes(range_)
    scale = float(codes.scale)
    lowest, highest = codes.lowest - codes.zero_point, codes.highest - codes.zero_point
    rounded = np.clip(np.rint(values / scale), lowest, highest) * scale
    return float(counts @ (values - rounded) ** 2)


def _search(error: Callable[[float], float], end: float) -> float:
    """The end in (0, `end`] of least error: first on a coarse grid, then around the best."""
    fractions = np.arange(1, 129) / 128
    for _ in range(2):
        errors = [error(fraction * end) for fraction in fractions]
        place = int(np.argmin(errors))
        near = fractions[max(place - 1, 0)], fractions[min(place + 1, len(fractions) - 1)]
        best = fractions[place]
        fractions = np.append(np.linspace(*near, 16), best)
    return float(best * end)


def _with_zeros(counts: np.ndarray, zeros: int) -> np.ndarray:
    """Counts of one side of 0, with those of the other side taken for zeros."""
    counts = counts.copy()
    counts[0] += zeros
    return counts


def _quantile(histogram: Histogram, magnitudes: np.ndarray, percentile: float) -> float:
    """Upper edge of the bin in which `percentile` percent of the magnitudes are reached."""
    cumulative = np.cumsum(magnitudes)
    place = int(np.searchsorted(cumulative, cumulative[-1] * (percentile / 100)))
    edge = (min(place, histogram.bins - 1) + 1) * histogram.reach / histogram.bins
    return min(edge, histogram.largest)
