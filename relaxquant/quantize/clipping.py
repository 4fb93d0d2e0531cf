"""Weight scales with the least squared error: with few levels it pays to clip the largest weights.

The grid search of Nagel et al., "A White Paper on Neural Network Quantization",
arXiv 2106.08295, section 3.1, for each channel by itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

FRACTIONS = (np.linspace(0.05, 1.0, 20), np.linspace(-0.04, 0.04, 9))
"""Of the scale that clips nothing: first these, then these around the best of them."""

Rounding = Callable[[np.ndarray, np.ndarray], np.ndarray]


def least_error_scale(
    weight: np.ndarray,
    widest: np.ndarray,
    rounding: Rounding,
    importance: np.ndarray | float = 1.0,
) -> np.ndarray:
    """The scale of each channel that leaves the least squared error.

    Parameters
    ----------
    weight : numpy.ndarray
        float32, shape (channels, inputs).
    widest : numpy.ndarray
        The scale of each channel that clips nothing, shape (channels,).
    rounding : callable
        ``(weight, scale)`` to the integers allowed, as float or int.
    importance : numpy.ndarray or float
        Weight of each squared error, broadcast to `weight`: the mean square of what it is
        multiplied by, where that is known.

    Returns
    -------
    numpy.ndarray
        float32, shape (channels,), between a hundredth of `widest` and `widest`.
    """
    best = np.full(widest.shape, np.inf)
    found = np.ones(widest.shape)
    for fractions in FRACTIONS:
        centre = np.zeros_like(found) if fractions[0] > 0 else found.copy()
        for fraction in fractions:
            trial = np.minimum(centre + fraction, 1.0)
            scale = (widest * trial).astype(np.float32)
            error = weight - rounding(weight, scale) * scale[:, None]
            cost = np.sum(error * error * importance, axis=1)
            better = cost < best
            best[better], found[better] = cost[better], trial[better]
    return (widest * found).astype(np.float32)
