"""How good the answers are: top-k, agreement, paired differences, signal to noise.

Speeds are never shown without one of these beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .intervals import Proportion, newcombe_paired, wilson
from .progress import progress_bar


def top_k(logits: np.ndarray, labels: np.ndarray, k: int = 1) -> np.ndarray:
    """Which samples have their label among the k highest logits.

    Equal logits rank in the order of their class index, as `numpy.argmax` takes them, so that
    exactly k classes count. A network whose output is quantized has many such ties: see `tied`.

    Parameters
    ----------
    logits : numpy.ndarray
        Shape (N, C), any real dtype.
    labels : numpy.ndarray
        Shape (N,), integers in [0, C).
    k : int
        1 to C.

    Returns
    -------
    numpy.ndarray
        bool, shape (N,).

    Raises
    ------
    InputError
        Shapes that do not fit, labels outside [0, C), k outside 1..C, or NaN among the logits.
    """
    logits, labels = _logits(logits), _labels(labels)
    count, classes = logits.shape
    if len(labels) != count:
        raise InputError(f"{count} rows of logits but {len(labels)} labels: they must pair up")
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"labels run from {labels.min()} to {labels.max()} but there are {classes} classes: "
            "labels are 0-based, and some networks have a background class 0 that shifts them"
        )
    _check_k(k, classes)
    own = logits[np.arange(count), labels][:, None]
    earlier = np.arange(classes) < labels[:, None]
    rank = np.count_nonzero((logits > own) | ((logits == own) & earlier), axis=1)
    return rank < k


def tied(logits: np.ndarray, k: int = 1) -> np.ndarray:
    """Which samples have no unique set of k highest logits: their k-th and next one are equal.

    Parameters
    ----------
    logits : numpy.ndarray
        Shape (N, C), any real dtype.
    k : int
        1 to C.

    Returns
    -------
    numpy.ndarray
        bool, shape (N,). An accuracy may be off by at most this share.
    """
    logits = _logits(logits)
    _check_k(k, logits.shape[1])
    if k == logits.shape[1]:
        return np.zeros(len(logits), dtype=bool)
    ordered = np.sort(logits, axis=1)[:, ::-1]
    return ordered[:, k - 1] == ordered[:, k]


def accuracy(
    logits: np.ndarray, labels: np.ndarray, k: int = 1, confidence: float = 0.95
) -> Proportion:
    """Top-k accuracy, a fraction, with its Wilson interval; parameters and errors as `top_k`."""
    return _share(top_k(logits, labels, k), confidence)


def agreement(logits_a: np.ndarray, logits_b: np.ndarray, confidence: float = 0.95) -> Proportion:
    """Share of samples for which two networks predict the same class, with its Wilson interval.

    Parameters
    ----------
    logits_a, logits_b : numpy.ndarray
        Both of shape (N, C), any real dtype; row i of both from the same input.
    confidence : float
        Coverage of the interval.

    Raises
    ------
    InputError
        Shapes that differ or are not (N, C), or NaN among the logits.
    """
    a, b = _logits(logits_a), _logits(logits_b)
    if a.shape != b.shape:
        raise InputError(f"logits to compare must have one shape, got {a.shape} and {b.shape}")
    return _share(a.argmax(axis=1) == b.argmax(axis=1), confidence)


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of a minus accuracy of b on the same samples, in percentage points.

    `low` and `high` bound it at `confidence`. `only_a` and `only_b` count the samples that only one
    of the two had right: all that the difference rests on.
    """

    points: float
    low: float
    high: float
    n: int
    only_a: int
    only_b: int
    confidence: float

    def __str__(self) -> str:
        return f"{self.points:+.2f} points ({self.low:+.2f} to {self.high:+.2f}, n={self.n})"


def paired_difference(
    correct_a: np.ndarray, correct_b: np.ndarray, confidence: float = 0.95
) -> PairedDifference:
    """Difference of two accuracies measured on the same samples: a minus b, percentage points.

    The interval is Newcombe's for paired proportions (see `intervals.newcombe_paired`). It is much
    narrower than that of two accuracies taken apart, and needs no resampling.

    Parameters
    ----------
    correct_a, correct_b : numpy.ndarray
        bool, shape (N,): what `top_k` returns for the two networks, sample by sample.
    confidence : float
        Coverage of the interval.

    Raises
    ------
    InputError
        Arrays that are empty, not boolean, not one-dimensional or not equally long.
    """
    a, b = _correct(correct_a, "correct_a"), _correct(correct_b, "correct_b")
    if len(a) != len(b):
        raise InputError(
            f"paired answers must be equally long, got {len(a)} and {len(b)}: "
            "both networks must see the same samples in the same order"
        )
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    both, neither = int(np.sum(a & b)), int(np.sum(~a & ~b))
    low, high = newcombe_paired(both, only_a, only_b, neither, confidence)
    points = 100.0 * (only_a - only_b) / len(a)
    return PairedDifference(points, 100 * low, 100 * high, len(a), only_a, only_b, confidence)


def signal_to_noise(reference: np.ndarray, value: np.ndarray) -> float:
    """Signal-to-noise ratio of `value` against `reference`, in dB.

    10 log10(sum(reference^2) / sum((reference - value)^2)), in float64: what quantization papers
    call SQNR. Infinite where the two are equal.

    Parameters
    ----------
    reference, value : numpy.ndarray
        Any real dtype, one shape.

    Raises
    ------
    InputError
        Shapes that differ, or NaN or infinity in either.
    """
    reference, value = np.asarray(reference, np.float64), np.asarray(value, np.float64)
    if reference.shape != value.shape:
        raise InputError(f"shapes differ: reference {reference.shape}, value {value.shape}")
    if not (np.isfinite(reference).all() and np.isfinite(value).all()):
        raise InputError("signal to noise needs finite numbers: there is NaN or infinity")
    signal, noise = np.sum(reference**2), np.sum((reference - value) ** 2)
    if noise == 0:
        return math.inf
    return float(10.0 * math.log10(signal / noise)) if signal > 0 else -math.inf


@dataclass(frozen=True)
class Predictions:
    """Logits, shape (N, C), and labels, shape (N,), of one network on one set of images."""

    logits: np.ndarray
    labels: np.ndarray

    def correct(self, k: int = 1) -> np.ndarray:
        """Which samples are right, bool (N,): see `top_k`."""
        return top_k(self.logits, self.labels, k)

    def accuracy(self, k: int = 1, confidence: float = 0.95) -> Proportion:
        """Top-k accuracy with its Wilson interval."""
        return _share(self.correct(k), confidence)


def predict(
    fn: Callable[[np.ndarray], Any], x: np.ndarray, batch: int = 1, progress: bool = False
) -> np.ndarray:
    """Run a network over images, batch by batch.

    The last batch is filled up with its own last image and the surplus answers dropped, so that
    `fn` always sees exactly `batch` images: compiled graphs may have a static batch.

    Parameters
    ----------
    fn : callable
        (batch, C, H, W) float32 in; (batch, classes) out, anything that `numpy.asarray` takes.
    x : numpy.ndarray
        float32, shape (N, C, H, W).
    batch : int
        Images a call.
    progress : bool
        Draw a progress bar.

    Returns
    -------
    numpy.ndarray
        Logits, shape (N, classes).

    Raises
    ------
    InputError
        Input of another shape or dtype, or an output whose shape is not (batch, classes).
    """
    _check_images(x, batch)
    starts = range(0, len(x), batch)
    parts = []
    with progress_bar("evaluating", len(starts), progress) as step:
        for start in starts:
            parts.append(_run_batch(fn, x[start : start + batch], batch))
            step()
    return np.concatenate(parts)


def evaluate(
    fn: Callable[[np.ndarray], Any],
    x: np.ndarray,
    labels: np.ndarray,
    batch: int = 1,
    progress: bool = False,
) -> Predictions:
    """Run a network over labelled images: `predict`, with `labels`, integers of shape (N,).

    Raises
    ------
    InputError
        As `predict`; or labels that are no integers or do not pair up with the images.
    """
    labels = _labels(labels)
    if len(labels) != len(x):
        raise InputError(f"{len(x)} images but {len(labels)} labels: they must pair up")
    return Predictions(predict(fn, x, batch, progress), labels)


def _run_batch(fn: Callable[[np.ndarray], Any], images: np.ndarray, batch: int) -> np.ndarray:
    filled = images
    if len(images) < batch:
        filler = np.repeat(images[-1:], batch - len(images), axis=0)
        filled = np.concatenate([images, filler])
    out = np.asarray(fn(np.ascontiguousarray(filled)))
    if out.ndim != 2 or len(out) != batch:
        raise InputError(
            f"the network must return (batch, classes) = ({batch}, ...), got shape {out.shape}"
        )
    # A copy: an executor may hand out the same output buffer at every call.
    return out[: len(images)].copy()


def _check_images(x: np.ndarray, batch: int) -> None:
    if batch < 1:
        raise InputError(f"batch must be at least 1, got {batch}")
    if x.ndim != 4 or len(x) == 0:
        raise InputError(f"images must have shape (N, C, H, W) with N >= 1, got {x.shape}")
    if x.dtype != np.float32:
        raise InputError(f"images must be float32, got {x.dtype}: use x.astype('float32')")


def _logits(values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"logits must have shape (N, C) with N, C >= 1, got {array.shape}")
    # A NaN compares as neither larger nor smaller, and would count as a right answer.
    bad = int(np.isnan(array).any(axis=1).sum())
    if bad:
        raise InputError(f"{bad} of {len(array)} rows of logits hold NaN: the network is broken")
    return array


def _labels(values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or len(array) == 0:
        raise InputError(f"labels must have shape (N,) with N >= 1, got {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"labels must be integers, got {array.dtype}")
    return array


def _correct(values: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype != bool or array.ndim != 1 or len(array) == 0:
        raise InputError(
            f"{name} must be a boolean array of shape (N,) with N >= 1 such as top_k returns, "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array


def _check_k(k: int, classes: int) -> None:
    if not 1 <= k <= classes:
        raise InputError(f"k must lie in 1..{classes} (the number of classes), got {k}")


def _share(hits: np.ndarray, confidence: float) -> Proportion:
    return wilson(int(np.count_nonzero(hits)), len(hits), confidence)
