"""Tables of partial sums of a pixel's channels, and weights as indices into them.

One bit of each of the weights of four input channels makes an index of 16, that of six an index of
64. What the index stands for, the sum of those channels' activations whose bit is set, is the same
for all output channels: it is computed once a pixel and stored in a table of bytes, after which
every output channel takes a look-up and an addition for four or six multiply-accumulates.

A table of 64 is the sum of two of 16, so that few additions fill it: one of four channels, its
*base*, and a quarter of one of four others, of which it takes two channels, its *extra*. Tables
are made of `SET` blocks of channels at a time: the bases are the first channels of the set, the
extras the rest.

Source: look-ups in place of multiplications by 1-bit weights are those of T-MAC (Wei et al.,
"T-MAC: CPU Renaissance via Table Lookup for Low-Bit LLM Deployment on Edge", 2024, arXiv
2407.00088), which rounds its tables to 8 bits. Here they are exact: activations are cut into
parts of few bits, whose sums fit bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tvm

from .intrinsics import TableLookup
from .tir import BLOCK, T, ceildiv, splat

SET = 3  # blocks whose channels share tables of 64: 48 channels fill eight
NONE = 128  # `TableLookup.shuffle` gives 0 for it


@dataclass(frozen=True)
class ChannelTables:
    """Which channels each table of a pixel sums.

    Parameters
    ----------
    channels : int
        Input channels.
    index_bits : int
        Channels in a table: 4, or 6.
    """

    channels: int
    index_bits: int

    @property
    def entries(self) -> int:
        """Bytes of a table."""
        return 1 << self.index_bits

    @property
    def count(self) -> int:
        """Tables of a pixel."""
        sets, rest = divmod(self.channels, SET * BLOCK)
        if self.index_bits == 4:
            return ceildiv(self.channels, BLOCK) * BLOCK // 4
        return sets * SET * BLOCK // 6 + ceildiv(rest, 6)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the tables of a pixel."""
        return self.count * self.entries

    def members(self) -> np.ndarray:
        """int (count, index_bits): the channel behind each bit of an index, -1 for none."""
        if self.index_bits == 4:
            found = np.arange(4 * self.count).reshape(-1, 4)
            return np.where(found < self.channels, found, -1)
        parts = []
        for first in range(0, self.channels, SET * BLOCK):
            size = min(SET * BLOCK, self.channels - first)
            tables = ceildiv(size, 6)
            bases = np.arange(4 * tables).reshape(-1, 4)
            extras = 4 * tables + np.arange(2 * tables).reshape(-1, 2)
            part = np.concatenate([bases, extras], axis=1)
            parts.append(np.where(part < size, first + part, -1))
        return np.concatenate(parts)


def indices(bits: np.ndarray, tables: ChannelTables) -> np.ndarray:
    """One bit of every weight as indices: (..., I, KH, KW) of 0 and 1 to (..., KH, KW, count)."""
    members = tables.members()
    picked = np.moveaxis(bits, -3, -1)[..., members] * (members >= 0)
    return (picked << np.arange(tables.index_bits)).sum(axis=-1).astype(np.uint8)


class TableBuilder:
    """Emits the tables of one pixel.

    Parameters
    ----------
    tables : ChannelTables
        Their channels.
    lookup : TableLookup
        Its shuffle makes them.
    """

    def __init__(self, tables: ChannelTables, lookup: TableLookup):
        self.tables, self.lookup = tables, lookup

    def emit(self, load: Callable, save: Callable) -> None:
        """Emit all tables.

        Parameters
        ----------
        load : callable
            ``load(block)``: uint8 x 16, the activations of a block of channels.
        save : callable
            ``save(offset, vector)``: stores part of the tables, from byte ``offset`` on.
        """
        if self.tables.index_bits == 4:
            with T.serial(ceildiv(self.tables.channels, BLOCK)) as block:
                for i, quads in enumerate(self._quads(load(block))):
                    save(block * BLOCK * 4 + i * self.lookup.bytes, quads)
            return
        size = SET * BLOCK
        sets, rest = divmod(self.tables.channels, size)
        if sets:
            with T.serial(sets) as i:
                self._emit_set(load, save, i * SET, size, i * (size // 6))
        if rest:
            self._emit_set(load, save, sets * SET, rest, sets * (size // 6))

    def _quads(self, block) -> list:
        """Tables of four channels each, of the 16 of a block, as vectors."""
        size = self.lookup.bytes
        x = T.bind(repeat(block, size))
        vectors = []
        for first in range(0, 64, size):
            entry = np.arange(first, first + size)
            total = None
            for k in range(4):
                control = np.where(entry >> k & 1, entry // 16 * 4 + k, NONE)
                picked = self.lookup.shuffle(x, constant(control))
                total = picked if total is None else total + picked
            vectors.append(total)
        return vectors

    def _emit_set(self, load, save, first_block, size: int, first_table) -> None:
        blocks = ceildiv(size, BLOCK)
        quads = [T.bind(self._quads(load(first_block + k))[0]) for k in range(blocks)]
        tables, entry = ceildiv(size, 6), np.arange(64)
        for j in range(tables):
            base, extra = 4 * j, 4 * tables + 2 * j
            table = self.lookup.emit(quads[base // BLOCK], constant(base % BLOCK * 4 + entry % 16))
            if extra < size:
                two = entry // 16 << extra % 4
                table = table + self.lookup.emit(
                    quads[extra // BLOCK], constant(extra % BLOCK // 4 * 16 + two)
                )
            save((first_table + j) * 64, table)


def repeat(block, size: int):
    """The 16 bytes of a vector, as often as they fit ``size``."""
    if size == BLOCK:
        return block
    words = T.reinterpret("int32x4", block)
    lanes = [T.int32(i) for i in range(size // 4)]
    copies = tvm.tirx.Shuffle([words] * (size // BLOCK), lanes)
    return T.reinterpret(f"uint8x{size}", copies)


def constant(values: np.ndarray):
    """A vector of these bytes."""
    lanes = [tvm.tirx.const(int(value), "uint8") for value in values]
    return tvm.tirx.Shuffle(lanes, [T.int32(i) for i in range(len(lanes))])


def part_of(x, shift: int, bits: int, size: int):
    """``bits`` bits of every byte, from bit ``shift`` on."""
    if shift:
        x = T.shift_right(x, splat(shift, "uint8", size))
    if shift + bits < 8:
        x = T.bitwise_and(x, splat((1 << bits) - 1, "uint8", size))
    return x
