"""How a direct schedule keeps the weights of a layer: int8, or packed where they need fewer bits.

Packed weights are decoded by the tile of output channels, once for each task, into memory of the
task's own that stays in the L2 cache; the inner loops then read int8 as ever. That costs three to
nine instructions for each vector of weights, little where a vector is used for a hundred pixels,
and saves memory in proportion to the bits. Measured on Zen 4 with VNNI, where fewer bits leave
nothing else to gain: 1 to 2 % slower than int8 with all weights in the cache, 6 % for images of
7 x 7; a ResNet-18 of 4-bit weights 1 % slower.
"""

from __future__ import annotations

import numpy as np

from .intrinsics import InstructionSet
from .prefetch import WeightPrefetch
from .spec import ConvSpec
from .tir import T, arg, ceildiv
from .weight_bits import WHOLE, bits_of, decoded_vectors, emit_decode, group_size, pack
from .weight_bits import stored_vectors as group_vectors

# Pixels of a task below which decoding the weights would show.
PIXELS = 128


def bits_of_panels(panels: np.ndarray, spec: ConvSpec) -> int:
    """The fewest bits for weights as `pack.pack_conv` lays them; 8 also for those not of int8.

    Zeros count where they stand for padded input channels, so that what such channels hold does not
    matter; padded output channels may have any weights.
    """
    if panels.dtype != np.int8:
        return WHOLE
    tiles, tile_channels = len(panels), panels.shape[-1] // spec.taps
    steps = panels.reshape(tiles, -1, tile_channels, spec.taps)
    by_channel = steps.swapaxes(1, 2).reshape(tiles * tile_channels, -1)
    return bits_of(by_channel[: spec.out.channels])


def stored(panels: np.ndarray, bits: int, isa: InstructionSet) -> np.ndarray:
    """The constant that holds the weights of a layer.

    Parameters
    ----------
    panels : numpy.ndarray
        (O tiles, ..., tile_channels * taps), as `pack.pack_conv` lays them.
    bits : int
        From `bits_of_panels`.
    isa : InstructionSet
        Its vectors are what is packed.

    Returns
    -------
    numpy.ndarray
        ``panels`` themselves for 8 bits, else uint8 (O tiles, groups, vectors, bytes of a vector).
    """
    if bits == WHOLE:
        return panels
    vectors = panels.reshape(len(panels), -1, 4 * isa.lanes)
    if bits == 1:  # there is no 0; only padded output channels have any
        vectors = np.where(vectors == 0, np.int8(-1), vectors)
    return pack(vectors, bits)


def rows_of_task(height: int, width: int, bits: int) -> int:
    """Output rows that share one decoding; a task is one row where nothing is decoded."""
    if bits == WHOLE:
        return 1
    return ceildiv(height, max(height * width // PIXELS, 1))


class WeightStore:
    """Declares the argument ``weight`` and emits how it is read.

    Parameters
    ----------
    shape : tuple
        (O tiles, ..., elements of a step): as `pack.pack_conv` lays the weights.
    dtype : str
        ``"int8"``, ``"int16"`` or ``"float32"``.
    bits : int
        Of the weights in memory; 8 for those that are not packed.
    isa : InstructionSet
        Vector width.
    visits : int
        Times that `prefetch` is called for a tile of output channels.
    """

    def __init__(self, shape: tuple, dtype: str, bits: int, isa: InstructionSet, visits: int):
        self.shape, self.bits, self.lanes = shape, bits, isa.lanes
        elements = int(np.prod(shape[1:]))
        self.vectors = elements // (4 * isa.lanes)  # of bytes
        if bits == WHOLE:
            self.weight = arg("weight", shape, dtype)
            size = elements * np.dtype(dtype).itemsize
        else:
            groups = ceildiv(self.vectors, group_size(bits))
            inner = (group_vectors(bits), 4 * isa.lanes)
            self.weight = arg("weight", (shape[0], groups, *inner), "uint8")
            size = groups * inner[0] * inner[1]
        self._prefetch = WeightPrefetch(size, visits)

    def select(self, tile) -> None:
        """Take the weights of one tile of output channels: decode them, if they are packed."""
        self.tile = tile
        if self.bits != WHOLE:
            size = decoded_vectors(self.vectors, self.bits) * 4 * self.lanes
            self.panel = T.alloc_buffer((size,), "int8")
            args = self.vectors, self.bits, self.lanes
            emit_decode(self.weight, [tile], self.panel, *args)

    def prefetch(self, visit) -> None:
        """Ask for part of the next tile's weights; see `prefetch`."""
        self._prefetch.emit(self.weight, self.tile, visit)

    def read(self, at: tuple, first, count: int):
        """``count`` elements of the selected tile's step ``at``, from the ``first`` on."""
        if self.bits == WHOLE:
            return self.weight[(self.tile, *at, T.ramp(first, 1, count))]
        step = at[0]
        for index, extent in zip(at[1:], self.shape[2:], strict=False):
            step = step * extent + index
        return self.panel[T.ramp(step * self.shape[-1] + first, 1, count)]
