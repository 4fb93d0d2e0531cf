"""From a threshold, the largest magnitude that is not clipped, to a scale."""

from __future__ import annotations

import numpy as np

MIN_SCALE = 2.0**-64
"""Below this a tensor counts as all zeros: products of two scales must stay normal in float32."""

ACTIVATION_QMAX = {"uint8": 255, "int8": 127}


def scale_of(threshold: np.ndarray | float, qmax: int) -> np.ndarray:
    """Symmetric scale: ``threshold / qmax``, always positive and finite.

    Parameters
    ----------
    threshold : float or numpy.ndarray
        Largest magnitude, 0 or more and finite.
    qmax : int
        The integer it is mapped to.

    Returns
    -------
    numpy.ndarray
        float32, same shape. Where `threshold` is 0 or next to it (a dead tensor or channel) it is
        that of a threshold of 1, which maps every value to 0.
    """
    scale = np.asarray(threshold, np.float64) / qmax
    return np.where(scale < MIN_SCALE, 1.0 / qmax, scale).astype(np.float32)
