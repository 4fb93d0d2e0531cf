"""Proof that a layer's sum of products stays within int32, and what it allows activations.

Bytes never get there in practice: 255 * 127 leaves room for 66 thousand products. Of 16 bits by 16
it takes one product to fill int32, so that a network's weights decide how many bits its activations
may have. No order of summation matters: with ``|x| <= largest`` every partial sum lies within
``sum|w| * largest + |bias|``.
"""

from __future__ import annotations

import numpy as np

INT32_MAX = 2**31 - 1


def largest_sums(weight: np.ndarray, largest: int, bias: np.ndarray) -> np.ndarray:
    """A bound on every partial sum of each output channel, attained by some activations.

    Parameters
    ----------
    weight : numpy.ndarray
        (O, ...), integers.
    largest : int
        Largest magnitude of an activation.
    bias : numpy.ndarray
        (O,), in units of the accumulator.

    Returns
    -------
    numpy.ndarray
        (O,), int64.
    """
    return _magnitudes(weight) * largest + np.abs(bias.astype(np.int64))


def largest_activation(weight: np.ndarray, bias: np.ndarray | float = 0.0) -> int:
    """The largest magnitude of activations with which no sum can leave int32.

    Parameters
    ----------
    weight : numpy.ndarray
        (O, ...), integers.
    bias : numpy.ndarray or float
        (O,) or one for all: the bias in units of the accumulator, for each unit of the answer. (A
        finer scale of the activations counts the bias in more units.)
    """
    room = INT32_MAX - 1  # a bias is rounded, by half a unit
    load = _magnitudes(weight) + np.abs(bias)
    return int(room / max(float(load.max(initial=0)), 1.0))


def _magnitudes(weight: np.ndarray) -> np.ndarray:
    """``sum|w|`` of each output channel."""
    return np.abs(weight.astype(np.int64)).reshape(len(weight), -1).sum(axis=1)
