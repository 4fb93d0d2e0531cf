"""Real factors as the integers that TFLite multiplies and shifts by; see `kernels.fixed_point`.

Source: the arithmetic of TensorFlow Lite's ``kernels/internal/quantization_util.cc``
(QuantizeMultiplier).
"""

from __future__ import annotations

import numpy as np


def quantize_multiplier(factor: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Factors as ``multiplier * 2.0**(shift - 31)``.

    Parameters
    ----------
    factor : numpy.ndarray or float
        Not negative; float64.

    Returns
    -------
    multiplier, shift : numpy.ndarray
        int32 of the factor's shape: a multiplier is 0 or in ``[2**30, 2**31 - 1]``.
    """
    fraction, shift = np.frexp(np.asarray(factor, np.float64))
    multiplier = round_half_away(fraction * 2.0**31).astype(np.int64)
    carried = multiplier == 1 << 31
    multiplier, shift = np.where(carried, multiplier // 2, multiplier), shift + carried
    vanishes = shift < -31
    multiplier, shift = np.where(vanishes, 0, multiplier), np.where(vanishes, 0, shift)
    return multiplier.astype(np.int32), shift.astype(np.int32)


def round_half_away(value: np.ndarray | float) -> np.ndarray:
    """To the nearest integer, halves away from zero; float64."""
    value = np.asarray(value, np.float64)
    return np.copysign(np.floor(np.abs(value) + 0.5), value)


def multiply_by_quantized_multiplier(x: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    """int64 ``x`` by a factor as `kernels.fixed_point.multiply` does it, for constants."""
    product = (x << max(shift, 0)) * multiplier
    high = (product + (1 << 30)) >> 31
    right = max(-shift, 0)
    if not right:
        return high
    remainder, threshold = high & ((1 << right) - 1), ((1 << right) - 1) >> 1
    return (high >> right) + (remainder > threshold + (high < 0))
