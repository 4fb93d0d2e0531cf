"""How weights and activations are cut for look-ups.

Weights are cut into bits, as two's complement: ``w = b0 - 2 * b1`` for two of them. Weights that
are all -1 or 1 are ``2 * b - 1``: one bit. Activations are cut into parts of few bits, so that a
table's sums, and those of a few look-ups, fit a byte. Each bit of the weights meets each part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .intrinsics import TableLookup
from .lookup_tables import ChannelTables, indices
from .tir import ceildiv
from .weight_bits import bits_of

BYTE_MAX, SUM_MAX = 255, (1 << 16) - 1
LONGEST = 8  # look-ups in straight code


@dataclass(frozen=True)
class Part:
    """Some bits of the activations: ``x >> shift``, of which the lowest ``bits``."""

    shift: int
    bits: int
    largest: int
    chain: int  # look-ups whose sum fits a byte, `LONGEST` at most

    @property
    def cost(self) -> float:
        """Instructions for a look-up: itself, an addition, and its share of widening."""
        return 2 + 2 / self.chain


def cut(largest: int, index_bits: int) -> tuple[Part, ...]:
    """The parts of activations up to ``largest`` that take the fewest instructions."""
    total = largest.bit_length()

    def ways(first: int) -> list[tuple[Part, ...]]:
        if first == total:
            return [()]
        found = []
        for bits in range(1, total - first + 1):
            most = min((1 << bits) - 1, largest >> first)
            chain = min(BYTE_MAX // (index_bits * most), LONGEST)
            if chain:
                part = Part(first, bits, most, chain)
                found += [(part, *rest) for rest in ways(first + bits)]
        return found

    return min(ways(0), key=lambda parts: sum(part.cost for part in parts))


def weight_planes(weight: np.ndarray) -> np.ndarray:
    """int8 weights as bits, (planes, O, I, KH, KW)."""
    bits = bits_of(weight)
    if bits == 1:
        return (weight > 0)[None].astype(np.uint8)
    shifts = np.arange(bits, dtype=np.uint8)
    return weight.view(np.uint8) >> shifts.reshape(-1, 1, 1, 1, 1) & 1


def largest_sums(planes: np.ndarray, part: Part) -> tuple[int, int]:
    """Largest 16-bit sum of a whole window, and of a kernel row, for any output channel."""
    rows = planes.sum(axis=(2, 4), dtype=np.int64) * part.largest
    return int(rows.sum(axis=-1).max(initial=0)), int(rows.max(initial=0))


def pack_indices(
    planes: np.ndarray, tables: ChannelTables, lookup: TableLookup, vectors: int
) -> np.ndarray:
    """Indices in the order in which the kernel reads them.

    Parameters
    ----------
    planes : numpy.ndarray
        (planes, O, I, KH, KW), 0 and 1.
    tables : ChannelTables
        Channels of each index.
    lookup : TableLookup
        Bytes of a vector.
    vectors : int
        Of a tile of output channels, which are zero-padded to whole tiles.

    Returns
    -------
    numpy.ndarray
        uint8 (O tiles, planes, KH, KW * tables, vectors * bytes), or half as many tables where two
        indices of 4 bits lie in a byte. Even bytes of a vector are its lower half of channels, odd
        ones its upper half: so the 16-bit sums of each are neighbouring channels.
    """
    size = lookup.bytes
    count, out_channels, _, height, _ = planes.shape
    tiles = ceildiv(out_channels, vectors * size)
    padded = np.zeros((count, tiles * vectors * size, *planes.shape[2:]), np.uint8)
    padded[:, :out_channels] = planes
    rows = indices(padded, tables).reshape(count, tiles, vectors, 2, size // 2, height, -1)
    stream = rows.transpose(1, 0, 5, 6, 2, 4, 3).reshape(tiles, count, height, -1, vectors * size)
    if tables.index_bits == 4:
        stream = np.pad(stream, ((0, 0), (0, 0), (0, 0), (0, stream.shape[3] % 2), (0, 0)))
        stream = stream[..., ::2, :] | stream[..., 1::2, :] << 4
    return np.ascontiguousarray(stream)
