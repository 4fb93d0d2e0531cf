"""Observers: what calibration remembers of a tensor, batch after batch, in bounded memory."""

from __future__ import annotations

import numpy as np

from .config import QuantizeError


class Ends:
    """The least and the greatest value seen, and 0.

    Attributes
    ----------
    low, high : float
        ``low <= 0 <= high``.
    """

    def __init__(self):
        self.low = self.high = 0.0

    def update(self, values: np.ndarray) -> None:
        """Take in the values of one batch, float32 of any shape.

        Raises
        ------
        QuantizeError
            If a value is NaN or infinite.
        """
        low, high = ends(values)
        self.low, self.high = min(self.low, low), max(self.high, high)

    @property
    def largest(self) -> float:
        """Largest magnitude seen."""
        return max(self.high, -self.low)

    @property
    def is_signed(self) -> bool:
        """Whether a value below 0 was seen."""
        return self.low < 0


class Histogram(Ends):
    """Counts of values in equal bins over [-reach, reach], with 0 on an edge.

    A batch that goes further doubles the reach as often as needed by adding neighbouring bins,
    which is exact.

    Parameters
    ----------
    bins : int
        Bins on each side of 0, a power of 2.

    Attributes
    ----------
    counts : numpy.ndarray
        int64, shape (2 * bins,); bin ``bins`` begins at 0 and holds the zeros.
    reach : float
        Where the last bin ends; 0 as long as only zeros were seen.
    """

    def __init__(self, bins: int = 8192):
        super().__init__()
        self.bins = bins
        self.counts = np.zeros(2 * bins, np.int64)
        self.reach = 0.0

    def update(self, values: np.ndarray) -> None:
        """Take in the values of one batch; see `Ends.update`."""
        super().update(values)
        if self.largest == 0:
            self.counts[self.bins] += values.size
            return
        self._widen()
        places = self._places(values.reshape(-1))
        counts = np.bincount(places, minlength=2 * self.bins + 1)
        self.counts += counts[:-1]
        self.counts[-1] += counts[-1]  # the largest magnitude itself may be the last edge

    def magnitudes(self) -> np.ndarray:
        """Counts of magnitudes in bins over [0, reach]: int64, shape (bins,)."""
        return self.counts[self.bins :] + self.counts[: self.bins][::-1]

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres and counts of the bins that hold anything, float64 both.

        The bin at 0 counts as exactly 0: it holds the zeros of a ReLU, and little else.
        """
        filled = np.flatnonzero(self.counts)
        centres = (filled - self.bins + 0.5) * (self.reach / self.bins)
        centres[filled == self.bins] = 0.0
        return np.clip(centres, self.low, self.high), self.counts[filled].astype(np.float64)

    def _places(self, values: np.ndarray) -> np.ndarray:
        factor = self.bins / self.reach
        if not 1e-30 < factor < 1e30:  # beyond these float32 may overflow
            values = values.astype(np.float64)
        scaled = values * factor
        if not self.is_signed:  # conversion to an integer truncates, which is floor here
            return scaled.astype(np.intp) + self.bins
        return np.maximum(np.floor(scaled).astype(np.intp) + self.bins, 0)

    def _widen(self) -> None:
        if self.reach == 0:
            self.reach = self.largest
        while self.reach < self.largest:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros_like(self.counts)
            self.counts[self.bins // 2 : self.bins // 2 + self.bins] = pairs
            self.reach *= 2


def ends(values: np.ndarray) -> tuple[float, float]:
    """The least and the greatest of `values` and 0, without a copy of `values`.

    Raises
    ------
    QuantizeError
        If a value is NaN or infinite.
    """
    found = float(values.min(initial=0)), float(values.max(initial=0))
    if not np.isfinite(found).all():
        raise QuantizeError("holds NaN or infinity")
    return found
