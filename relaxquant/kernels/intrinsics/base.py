"""What an instruction set offers to a schedule, and the proof that a dot product is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

INT16_MIN, INT16_MAX = -(1 << 15), (1 << 15) - 1


@dataclass(frozen=True)
class DotProduct:
    """A way to add four u8 x s8 products to each int32 lane.

    Parameters
    ----------
    name : str
        The instructions, as shown in ``lib.kernels``.
    emit : callable
        ``emit(acc, x, w)`` with ``acc`` int32 x lanes, ``x`` one int32 holding four uint8
        activations, ``w`` int8 x 4 lanes; returns the new int32 x lanes.
    cost : float
        Instructions for each vector of accumulators, for choosing register tiles.
    tile_registers : int
        Registers for accumulators and weights of a tile; the rest hold intermediates.
    pairs_saturate : bool
        True if the sum of two neighbouring products is kept in a saturating int16, so that the
        result is exact only for weights that `proven_free_of_saturation` accepts.
    """

    name: str
    emit: Callable
    cost: float
    tile_registers: int
    pairs_saturate: bool = False


@dataclass(frozen=True)
class InstructionSet:
    """What schedules need to know of a CPU.

    Parameters
    ----------
    name : str
        Name shown in ``lib.kernels``.
    features : frozenset of str
        LLVM features a target must have.
    lanes : int
        32-bit lanes in a vector.
    tile_registers : int
        Registers for accumulators and weights of an fp32 tile, measured as the size beyond which
        the compiler spills.
    dots : tuple of DotProduct
        Fastest first; the last one is exact for all weights.
    round_to_int : callable
        ``round_to_int(v)``: float32 x lanes to int32 x lanes, nearest, ties to even.
    """

    name: str
    features: frozenset[str]
    lanes: int
    tile_registers: int
    dots: tuple[DotProduct, ...] = field(repr=False)
    round_to_int: Callable = field(repr=False)

    def dot_for(self, quads: np.ndarray, activation_max: int = 255) -> DotProduct:
        """The fastest dot product that is exact for these weights.

        Parameters
        ----------
        quads : numpy.ndarray
            int8 weights, last axis 4: the four input channels of one dot product.
        activation_max : int
            Largest value that the unsigned activations can take.
        """
        safe = proven_free_of_saturation(quads, activation_max)
        return next(dot for dot in self.dots if safe or not dot.pairs_saturate)


def proven_free_of_saturation(quads: np.ndarray, activation_max: int = 255) -> bool:
    """Whether no sum of two neighbouring products can leave int16, whatever the activations.

    The worst activation for a pair of weights is the largest where a weight is positive and 0
    where it is not (and the other way round for the lower end), so the bound is attained: this is
    an equivalence, not an estimate. Weights in [-64, 64] always pass for 8-bit activations
    (255 * 64 * 2 = 32640).

    Parameters
    ----------
    quads : numpy.ndarray
        int8 weights, last axis 4.
    activation_max : int
        Largest unsigned activation.
    """
    pairs = quads.reshape(*quads.shape[:-1], 2, 2).astype(np.int32)
    highest = np.maximum(pairs, 0).sum(-1).max(initial=0) * activation_max
    lowest = np.minimum(pairs, 0).sum(-1).min(initial=0) * activation_max
    return bool(lowest >= INT16_MIN and highest <= INT16_MAX)
