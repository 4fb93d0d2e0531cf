"""From the range of values that is not clipped to a scale, a zero point and the integers used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIN_SCALE = 2.0**-64
"""Below this a tensor counts as all zeros: products of two scales must stay normal in float32."""


@dataclass(frozen=True)
class Range:
    """Values of a tensor that are not clipped; 0 is always among them.

    Parameters
    ----------
    low : float
        Smallest, at most 0.
    high : float
        Largest, at least 0.
    """

    low: float
    high: float

    @property
    def threshold(self) -> float:
        """Largest magnitude."""
        return max(-self.low, self.high)


@dataclass(frozen=True)
class Codes:
    """How an activation becomes integers.

    ``clip(round(x / scale) + zero_point, lowest, highest)``, which stands for
    ``(code - zero_point) * scale``.

    Parameters
    ----------
    dtype : str
        ``"uint8"``, ``"int8"`` or ``"int16"``.
    scale : numpy.ndarray
        float32 of shape (), positive and finite.
    zero_point : int
        The integer that stands for 0.
    lowest, highest : int
        The integers used; `dtype` may hold more.
    """

    dtype: str
    scale: np.ndarray
    zero_point: int
    lowest: int
    highest: int

    @property
    def fill_dtype(self) -> bool:
        """Whether the integers used are all that `dtype` holds."""
        info = np.iinfo(self.dtype)
        return (self.lowest, self.highest) == (info.min, info.max)

    @property
    def bounds(self) -> tuple[float, float]:
        """The values that `lowest` and `highest` stand for."""
        scale = float(self.scale)
        return (self.lowest - self.zero_point) * scale, (self.highest - self.zero_point) * scale

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """What float32 `values` become in these integers and back; float32, same shape."""
        steps = np.rint(values / self.scale)
        lowest, highest = self.lowest - self.zero_point, self.highest - self.zero_point
        return np.clip(steps, lowest, highest) * self.scale


def activation_codes(found: Range, dtype: str, nbit: int, largest: int | None = None) -> Codes:
    """The integers of an activation.

    Parameters
    ----------
    found : Range
        The values that are not clipped.
    dtype : str
        ``"int8"`` and ``"int16"`` are symmetric: zero point 0 and one scale for both sides.
        ``"uint8"`` has the zero point 0 for a range from 0 up, ``2**(nbit - 1)`` for a symmetric
        range, and else what makes the most of the range.
    nbit : int
        Bits, at most those of `dtype`.
    largest : int, optional
        Largest integer of int16, where fewer are allowed; see `int32_budget`.

    Notes
    -----
    One bit has no integer below the zero point: there negative values become 0.
    """
    positive = positive_codes(found.low < 0, nbit)
    if dtype == "int16":
        positive = min(positive, largest or np.iinfo(np.int16).max)
        lowest = -positive if found.low < 0 else 0
        return Codes(dtype, scale_of(found.threshold, positive), 0, lowest, positive)
    if dtype == "int8":
        scale = scale_of(found.threshold, positive)
        return Codes(dtype, scale, 0, -(2 ** (nbit - 1)), positive)
    last = 2**nbit - 1
    if found.low == 0 or nbit == 1:
        return Codes(dtype, scale_of(found.high, last), 0, 0, last)
    if found.low == -found.high:
        return Codes(dtype, scale_of(found.high, positive), last - positive, 0, last)
    scale = scale_of(found.high - found.low, last)
    zero_point = int(np.clip(np.rint(-found.low / float(scale)), 0, last))
    return Codes(dtype, scale, zero_point, 0, last)


def positive_codes(signed: bool, nbit: int) -> int:
    """How many integers of `nbit` bits lie above the zero point of a symmetric tensor."""
    return max(2 ** (nbit - 1) - 1, 1) if signed else 2**nbit - 1


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


def power_of_two_above(scale: np.ndarray) -> np.ndarray:
    """The smallest power of two that is not below each scale; float32, same shape."""
    fraction, exponent = np.frexp(np.asarray(scale, np.float32))
    return np.ldexp(np.float32(1), exponent - (fraction == 0.5)).astype(np.float32)
