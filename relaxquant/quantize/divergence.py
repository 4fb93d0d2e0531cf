"""Calibration by Kullback-Leibler divergence, as TensorRT, MXNet and relay.quantize do it.

Migacz, "8-bit Inference with TensorRT", GTC 2017; ``_find_scale_by_kl`` of TVM's
``python/tvm/relay/quantize/kl_divergence.py`` (removed with Relay), after MXNet's
``python/mxnet/contrib/quantization.py``.
"""

from __future__ import annotations

import numpy as np

from .histogram import Histogram
from .scales import Range
from .thresholds import Form

BINS = 2048
"""Bins of a side that are compared, as in TensorRT; TVM takes 4000."""

SMOOTHING = 1e-4
"""Share of a count that an empty bin gets, at the expense of the others."""


def kl_divergence(histogram: Histogram, form: Form) -> Range:
    """The threshold whose quantized distribution is nearest to that of the values seen.

    For each threshold, the clipped values are added to the outermost bin of the reference
    distribution P; Q is the distribution inside, merged into as many bins as there are integers and
    spread evenly over the bins that P fills. The threshold with the least ``KL(P || Q)`` is taken.
    An asymmetric range is the symmetric one, cut to what was seen.
    """
    if histogram.largest == 0:
        return Range(0.0, 0.0)
    counts = _merged(histogram)
    half = len(counts) // 2
    signed = histogram.is_signed
    levels = 2**form.nbit - 1 if signed else 2**form.nbit
    fewest = max(levels // 2 if signed else levels, 1)
    top = int(np.ceil(histogram.largest / histogram.reach * half))
    best, threshold = np.inf, histogram.largest
    for size in range(min(fewest, top), top + 1):
        low = half - size if signed else half
        found = divergence(counts, low, half + size, levels)
        if found < best:
            best, threshold = found, min(size / half * histogram.reach, histogram.largest)
    return form.range(max(-threshold, histogram.low), min(threshold, histogram.high))


def divergence(counts: np.ndarray, low: int, high: int, levels: int) -> float:
    """``KL(P || Q)`` where bins `low` to `high` of `counts` are kept and `levels` represent them.

    Parameters
    ----------
    counts : numpy.ndarray
        Of all bins, shape (n,).
    low, high : int
        Bins kept, ``0 <= low < high <= n``.
    levels : int
        Bins that Q has before it is spread.
    """
    inside = counts[low:high].astype(np.float64)
    reference = inside.copy()
    reference[0] += counts[:low].sum()
    reference[-1] += counts[high:].sum()
    filled = reference > 0
    width = max(len(inside) // levels, 1)
    # The last level takes what is left over.
    group = np.minimum(np.arange(len(inside)) // width, levels - 1)
    mass = np.bincount(group, inside, minlength=1)
    sharing = np.bincount(group, filled, minlength=1)
    candidate = np.where(filled, mass[group] / np.maximum(sharing[group], 1), 0.0)
    p, q = _smooth(reference), _smooth(candidate)
    if p is None or q is None:
        return np.inf
    return float(np.sum(p * np.log(p / q)))


def _smooth(counts: np.ndarray) -> np.ndarray | None:
    """A distribution without zeros; None where nothing, or too little, is there to share."""
    empty = counts == 0
    full = len(counts) - np.count_nonzero(empty)
    if full == 0:
        return None
    taken = SMOOTHING * (len(counts) - full) / full
    smoothed = np.where(empty, SMOOTHING, counts - taken)
    return smoothed / smoothed.sum() if smoothed.min() > 0 else None


def _merged(histogram: Histogram) -> np.ndarray:
    """Counts in at most `BINS` bins a side."""
    factor = max(histogram.bins // BINS, 1)
    return histogram.counts.reshape(-1, factor).sum(axis=1)
