"""Confidence intervals: the three that the measurements here are shown with.

Kept apart from what is measured, so that a speed and an accuracy are judged by the same, separately
tested arithmetic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ..errors import InputError

_RESAMPLES = 10_000


def check_confidence(confidence: float) -> float:
    """Return `confidence` if it lies strictly between 0 and 1, else raise InputError."""
    if not 0.0 < confidence < 1.0:
        raise InputError(
            f"confidence must lie between 0 and 1, got {confidence!r}: 0.95 means 95 percent"
        )
    return float(confidence)


def enough_for_median(n: int, confidence: float) -> bool:
    """Whether `n` samples can bound a median at this confidence at all.

    The widest interval that n samples can give, [min, max], holds the median with probability
    1 - 2^(1-n) (sign test). Below that a bootstrap still prints an interval, only too narrow: at 95
    percent, 5 samples are too few and 6 are enough.
    """
    return n >= 1 and 1.0 - 2.0 ** (1 - n) >= confidence


def bootstrap_median(
    samples: np.ndarray, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the median (Efron and Tibshirani 1993, chapter 13).

    Parameters
    ----------
    samples : numpy.ndarray
        One-dimensional, shape (n,), any unit.
    confidence : float
        Coverage aimed at.
    seed : int
        Seed of the resampling: the same samples and seed give the same interval.

    Returns
    -------
    tuple of float
        (low, high) in the unit of the samples; (nan, nan) where n is too small for the confidence
        (see `enough_for_median`), because an interval printed there would be false precision.

    Raises
    ------
    InputError
        `samples` is not one-dimensional, or the confidence is not between 0 and 1.
    """
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 1:
        raise InputError(f"samples must be one-dimensional, got shape {values.shape}")
    check_confidence(confidence)
    if not enough_for_median(values.size, confidence):
        return math.nan, math.nan
    picks = np.random.default_rng(seed).integers(0, values.size, (_RESAMPLES, values.size))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.median(values[picks], axis=1), [tail, 1.0 - tail])
    return float(low), float(high)


@dataclass(frozen=True)
class Proportion:
    """A share of n trials with its interval; value, low and high are fractions in [0, 1]."""

    successes: int
    n: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"{100 * self.value:.2f} % ({100 * self.low:.2f} to {100 * self.high:.2f}, n={self.n})"
        )


def wilson(successes: int, n: int, confidence: float = 0.95) -> Proportion:
    """Wilson score interval for a binomial proportion (Wilson 1927, JASA 22:209).

    Unlike the normal approximation it keeps its coverage for proportions near 0 and 1, and never
    has zero width.

    Parameters
    ----------
    successes : int
        Trials that succeeded, 0 to n.
    n : int
        Trials, at least 1.
    confidence : float
        Coverage aimed at.

    Returns
    -------
    Proportion

    Raises
    ------
    InputError
        n < 1, `successes` outside 0..n, or the confidence is not between 0 and 1.
    """
    if n < 1:
        raise InputError(f"a proportion needs at least one trial, got n={n}")
    if not 0 <= successes <= n:
        raise InputError(f"successes must lie in 0..{n}, got {successes}")
    z = NormalDist().inv_cdf(0.5 + check_confidence(confidence) / 2.0)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # The bounds meet 0 and 1 exactly; rounding must not leave them a hair short of the estimate.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Proportion(int(successes), int(n), p, low, high)


def newcombe_paired(
    both: int, only_a: int, only_b: int, neither: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval for the difference p_a - p_b of two paired proportions: Newcombe's method 10.

    Wilson intervals of the two proportions, combined by square-and-add with a correlation corrected
    for continuity: Newcombe 1998, "Improved confidence intervals for the difference between
    binomial proportions based on paired data", Statistics in Medicine 17:2635. It does not collapse
    to zero width where the two never disagree, as a bootstrap does.

    Parameters
    ----------
    both, only_a, only_b, neither : int
        Counts of the pairs in which both, only a, only b or neither succeeded.
    confidence : float
        Coverage aimed at.

    Returns
    -------
    tuple of float
        (low, high) of p_a - p_b, in [-1, 1].

    Raises
    ------
    InputError
        No pairs, or the confidence is not between 0 and 1.
    """
    n = both + only_a + only_b + neither
    a = wilson(both + only_a, n, confidence)
    b = wilson(both + only_b, n, confidence)
    phi = _continuity_corrected_phi(both, only_a, only_b, neither)
    difference = a.value - b.value
    below = _square_and_add(a.value - a.low, b.high - b.value, phi)
    above = _square_and_add(a.high - a.value, b.value - b.low, phi)
    return max(-1.0, difference - below), min(1.0, difference + above)


def _square_and_add(x: float, y: float, phi: float) -> float:
    return math.sqrt(max(0.0, x * x - 2.0 * phi * x * y + y * y))


def _continuity_corrected_phi(both: int, only_a: int, only_b: int, neither: int) -> float:
    n = both + only_a + only_b + neither
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    determinant = both * neither - only_a * only_b
    corrected = max(determinant - n / 2.0, 0.0) if determinant > 0 else float(determinant)
    return corrected / math.sqrt(margins)
