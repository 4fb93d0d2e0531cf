"""Winograd's minimal filtering F(m x m, 3 x 3): the transforms, as data and as emitted code.

A tile of ``m x m`` outputs is computed from ``(m + 2) x (m + 2)`` inputs: both the inputs and the
3 x 3 weights are transformed to ``(m + 2) x (m + 2)`` points, multiplied point by point, summed
over the input channels and transformed back::

    Y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A

A point costs one multiply-accumulate an input and output channel, so there are
``9 m^2 / (m + 2)^2`` times fewer of them than in a direct convolution: 2.25 for m = 2, 4 for m = 4.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016; matrices
for the points 0, 1, -1 (and 2, -2) and infinity as given there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .spec import ConvSpec
from .tir import BLOCK, splat

KERNEL = 3  # rows and columns of the kernel


@dataclass(frozen=True, eq=False)
class Transform:
    """One F(m x m, 3 x 3).

    Parameters
    ----------
    outputs : int
        ``m``: rows and columns of outputs in a tile.
    weight : numpy.ndarray
        ``G``, (points, 3).
    data, inverse : tuple of numpy.ndarray
        ``B^T`` (points, points) and ``A^T`` (m, points) as sparse factors, the first to be applied
        first: sums that several rows share are computed once.
    """

    outputs: int
    weight: np.ndarray = field(repr=False)
    data: tuple[np.ndarray, ...] = field(repr=False)
    inverse: tuple[np.ndarray, ...] = field(repr=False)

    @property
    def points(self) -> int:
        """Rows and columns of a transformed tile, and of the inputs it is made from."""
        return self.outputs + KERNEL - 1

    def weights(self, weight: np.ndarray) -> np.ndarray:
        """``G g G^T`` of (O, I, 3, 3), in the dtype of ``weight`` times ``G``: (O, I, points^2)."""
        transformed = self.weight @ weight @ self.weight.T
        return transformed.reshape(*weight.shape[:2], self.points**2)


def f2x2(scale: int = 1) -> Transform:
    """F(2 x 2, 3 x 3), its ``G`` times ``scale``; with 2 all of it is integer."""
    half = scale / 2
    weight = np.array([[scale, 0, 0], [half, half, half], [half, -half, half], [0, 0, scale]])
    if scale == 2:
        weight = weight.astype(np.int64)
    data = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    inverse = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
    return Transform(2, weight, (data,), (inverse,))


def f4x4() -> Transform:
    """F(4 x 4, 3 x 3): rows for 1 and -1, and for 2 and -2, are a sum and a difference."""
    weight = np.array(
        [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
    ) / np.array([[24]])
    even_odd = np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, 0, -4, 0, 1, 0],
            [0, -4, 0, 1, 0, 0],
            [0, 0, -1, 0, 1, 0],
            [0, -1, 0, 1, 0, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    )
    pairs = np.array(
        [
            [1, 0, 0, 0, 0, 0],
            [0, 1, 1, 0, 0, 0],
            [0, 1, -1, 0, 0, 0],
            [0, 0, 0, 1, 2, 0],
            [0, 0, 0, 1, -2, 0],
            [0, 0, 0, 0, 0, 1],
        ]
    )
    sums = np.array(
        [
            [1, 0, 0, 0, 0, 0],
            [0, 1, 1, 0, 0, 0],
            [0, 1, -1, 0, 0, 0],
            [0, 0, 0, 1, 1, 0],
            [0, 0, 0, 1, -1, 0],
            [0, 0, 0, 0, 0, 1],
        ]
    )
    outputs = np.array(
        [[1, 1, 0, 1, 0, 0], [0, 0, 1, 0, 2, 0], [0, 1, 0, 4, 0, 0], [0, 0, 1, 0, 8, 1]]
    )
    return Transform(4, weight, (even_odd, pairs), (sums, outputs))


def applies(spec: ConvSpec) -> bool:
    """Whether a layer is a 3 x 3 convolution of stride 1 between tensors in NCHW16c."""
    window = spec.window
    ones = window.strides == window.dilation == (1, 1)
    blocked = spec.data.block == spec.out.block == BLOCK and not spec.data.halo
    return window.kernel == (KERNEL, KERNEL) and ones and spec.groups == 1 and blocked


def largest_sum(transform: Transform, products: np.ndarray) -> int:
    """A bound on every sum of a kernel, those within the inverse transform included.

    Parameters
    ----------
    transform : Transform
        With an inverse of one factor, as `f2x2` has.
    products : numpy.ndarray
        (O, points^2): for each point a bound on its sum over the input channels, partial ones
        included.
    """
    (rows,) = transform.inverse
    magnitudes = np.abs(np.einsum("ia,jb->ijab", rows, rows)).reshape(-1, transform.points**2)
    return int((products @ magnitudes.T).max(initial=0))


def pack_points(
    spec: ConvSpec, transformed: np.ndarray, tile_channels: int, depth: int
) -> np.ndarray:
    """Transformed weights as one contiguous stream for each register tile and point.

    Parameters
    ----------
    spec : ConvSpec
        The layer.
    transformed : numpy.ndarray
        (O, I, points^2), as `Transform.weights` gives them.
    tile_channels : int
        Output channels of a register tile, a divisor of the padded output channels.
    depth : int
        Input channels that one multiply-add takes: they lie side by side.

    Returns
    -------
    numpy.ndarray
        (O tiles * points^2, I / depth, tile_channels * depth), padded channels zero.
    """
    outputs, inputs, points = transformed.shape
    channels = spec.out.padded_channels, spec.data.padded_channels
    padded = np.zeros((*channels, points), transformed.dtype)
    padded[:outputs, :inputs] = transformed
    split = padded.reshape(-1, tile_channels, spec.data.padded_channels // depth, depth, points)
    packed = split.transpose(0, 4, 2, 1, 3)
    return np.ascontiguousarray(packed.reshape(-1, packed.shape[2], tile_channels * depth))


def apply(factors: Sequence[np.ndarray], values: list, dtype: str, lanes: int) -> list:
    """Multiply vectors by sparse factors: additions, and multiplications where not by 1 or -1."""
    for factor in factors:
        values = [_combination(row, values, dtype, lanes) for row in factor]
    return values


def _combination(row: np.ndarray, values: list, dtype: str, lanes: int):
    # Positive terms first, so that a difference needs no negation.
    terms = sorted(((int(c), v) for c, v in zip(row, values, strict=True) if c), key=_negative)
    (coefficient, value), *rest = terms
    total = _times(coefficient, value, dtype, lanes)
    for coefficient, value in rest:
        product = _times(abs(coefficient), value, dtype, lanes)
        total = total + product if coefficient > 0 else total - product
    return total


def _negative(term: tuple) -> tuple[bool, bool]:
    return term[0] < 0, abs(term[0]) != 1


def _times(coefficient: int, value, dtype: str, lanes: int):
    return value if coefficient == 1 else value * splat(coefficient, dtype, lanes)
