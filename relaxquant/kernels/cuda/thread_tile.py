"""What the convolutions of a GPU have in common: a register tile for each thread, and its epilogue.

Loop nest::

    blocks of threads over (tiles of pixels, tiles of output channels), several of either in one
      a thread's accumulators in registers: [pixels][fours of output channels], from the bias
      for block of input channels, kernel row, kernel column
        what multiplies, which is a subclass's
      epilogue on the registers, one 32-bit store for each pixel and four channels

A pixel is a place in the output of the whole batch, numbered through images, rows and columns, so
that small images fill a tile too. Pixels past the last one repeat it, and are not stored.
"""

from __future__ import annotations

from math import gcd

import numpy as np
import tvm

from ..epilogue import Epilogue
from ..intrinsics import InstructionSet
from ..spec import ConvSpec
from ..tile import Tile
from ..tir import T, arg, batch_extent, ceildiv, lanes_at, local, store

WARP = 32
THREADS = 128  # in a block
FOUR = 4  # output channels that a thread stores at once
# Outputs from which on a thread takes one pixel more: about one block of threads, of two fours of
# channels each, on each of some 64 multiprocessors. Reckoned, not measured.
MANY = 64 * THREADS * 2 * FOUR


class ThreadTile:
    """Emits one convolution; subclasses say what multiplies.

    Parameters
    ----------
    spec : ConvSpec
        The layer; no block of channels may belong to two groups.
    isa : InstructionSet
        One of CUDA's.
    tile : Tile
        Fours of output channels, and pixels, of a thread.
    pixel_threads : int
        Neighbouring threads that have the same channels and neighbouring pixels.
    """

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile, pixel_threads: int):
        self.spec, self.isa, self.tile = spec, isa, tile
        self.pixel_threads = pixel_threads
        self.group_blocks = max(spec.data.blocks // spec.groups, 1)

    def emit(self) -> None:
        """Arguments, then the kernel."""
        spec = self.spec
        batch = batch_extent(spec.batch)
        self.data = arg("data", spec.data.physical_shape(batch), spec.data.dtype)
        self.emit_weights()
        self.epilogue = Epilogue(spec, self.isa, batch)
        self.image = spec.out.height * spec.out.width
        self.pixels = batch * self.image
        rows = self.channel_tiles()
        tile = self.pixel_threads * self.tile.pixels
        tiles = self.tiles_of_block(rows)
        pixels, rows_of_block = tiles * tile, THREADS // self.threads_of_row() // tiles
        with (
            T.thread_binding((self.pixels + (pixels - 1)) // pixels, "blockIdx.x") as block,
            T.thread_binding(ceildiv(rows, rows_of_block), "blockIdx.y") as block_row,
            T.thread_binding(self.threads_of_row(), "threadIdx.x") as thread,
            T.thread_binding(rows_of_block * tiles, "threadIdx.y") as row,
        ):
            self.thread = thread
            self.first_pixel = block * pixels + row // rows_of_block * tile
            self.row = block_row * rows_of_block + row % rows_of_block
            if rows % rows_of_block:
                with T.If(self.row < rows), T.Then():
                    self._emit_thread()
            else:
                self._emit_thread()

    def tiles_of_block(self, rows: int) -> int:
        """Tiles of pixels of a block: as many as leave no row of threads without channels.

        As far as there are pixels; a power of two.
        """
        row_threads = THREADS // self.threads_of_row()
        needed = ceildiv(pixels_known(self.spec), self.pixel_threads * self.tile.pixels)
        tiles = 1
        while tiles < row_threads // gcd(rows, row_threads) and tiles < needed:
            tiles *= 2
        return tiles

    def _emit_thread(self) -> None:
        self._find_pixels()
        self.acc = {at: local(FOUR, self.epilogue.bias.dtype) for at in self.all_accumulators()}
        for (_, j), acc in self.acc.items():
            store(acc, [lanes_at(0, FOUR)], self.epilogue.initial(self.channel(j)))
        kernel = self.spec.window.kernel
        with (
            T.serial(self.reduction_blocks()) as block,
            T.serial(kernel[0]) as kh,
            T.serial(kernel[1]) as kw,
        ):
            self.emit_tap(block, kh, kw)
        for i in range(self.tile.pixels):
            with T.If(self.pixel(i) < self.pixels), T.Then():
                for j in range(self.tile.vectors):
                    acc = self.acc[i, j][lanes_at(0, FOUR)]
                    self.epilogue.finish(acc, self.n[i], self.channel(j), self.oh[i], self.ow[i])

    def all_accumulators(self) -> list[tuple[int, int]]:
        """(pixel, four channels) of the tile."""
        return [(i, j) for i in range(self.tile.pixels) for j in range(self.tile.vectors)]

    def _find_pixels(self) -> None:
        self.n, self.oh, self.ow = [], [], []
        for i in range(self.tile.pixels):
            pixel = T.min(self.pixel(i), self.pixels - 1)
            self.n.append(T.bind(pixel // self.image))
            self.oh.append(T.bind(pixel % self.image // self.spec.out.width))
            self.ow.append(T.bind(pixel % self.spec.out.width))

    # What a subclass may have otherwise.

    def threads_of_row(self) -> int:
        """Neighbouring threads that have the same tile of output channels."""
        return self.pixel_threads

    def pixel(self, i: int):
        """Number of the thread's pixel ``i``: those of one ``i`` are neighbours' neighbours."""
        return self.first_pixel + i * self.pixel_threads + self.thread % self.pixel_threads

    def channel(self, j: int):
        """First of the thread's four output channels ``j``."""
        return (self.row * self.tile.vectors + j) * FOUR

    def channel_tiles(self) -> int:
        """Tiles of output channels."""
        return self.spec.out.padded_channels // (FOUR * self.tile.vectors)

    def reduction_blocks(self) -> int:
        """How many blocks of input channels are summed up."""
        return self.group_blocks

    def emit_weights(self) -> None:
        """Declare the weights."""
        raise NotImplementedError

    def emit_tap(self, block, kh, kw) -> None:
        """Multiply and add one block of input channels of one tap of the window."""
        raise NotImplementedError

    # For subclasses.

    def load_pixel(self, into, i: int, block, kh, kw, first, count: int) -> None:
        """Load neighbouring channels of a pixel's tap into registers; zero points at the border.

        Parameters
        ----------
        into : Buffer
            Registers: int32, for the data as they lie in memory, four bytes in each; else of the
            data's own dtype or one that they are converted to.
        i : int
            The pixel of the tile.
        block, kh, kw
            Which block of channels, and which tap.
        first
            The first channel in the block.
        count : int
            Channels.
        """
        window, data = self.spec.window, self.spec.data
        ih = self.oh[i] * window.strides[0] - window.padding[0] + kh * window.dilation[0]
        iw = self.ow[i] * window.strides[1] - window.padding[1] + kw * window.dilation[1]
        at = [self.n[i], block, ih, iw]
        if data.block > 1:
            at.append(lanes_at(first, count) if count > 1 else first)
        value, words = self.data[tuple(at[: len(self.data.shape)])], count
        border = tvm.tirx.const(data.zero_point, into.dtype)
        if into.dtype == "int32":
            words = count * bytes_of(data.dtype) // FOUR
            value = T.reinterpret(vector("int32", words), value)
            border = T.int32(zero_word(data.zero_point))
        else:
            value = T.cast(value, vector(into.dtype, count))
        whole = lanes_at(0, words) if words > 1 else 0
        if not any(window.padding):
            store(into, [whole], value)
            return
        inside = T.And(T.And(ih >= 0, ih < data.height), T.And(iw >= 0, iw < data.width))
        with T.If(inside):
            with T.Then():
                store(into, [whole], value)
            with T.Else():
                store(into, [whole], T.broadcast(border, words) if words > 1 else border)

    def block_of_group(self, block):
        """Which block of all input channels is number ``block`` of the thread's group."""
        if self.spec.groups == 1:
            return block
        group = self.channel(0) // (self.spec.out.channels // self.spec.groups)
        return group * self.group_blocks + block


def bytes_of(dtype: str) -> int:
    """Bytes of one element."""
    return np.dtype(dtype).itemsize


def vector(dtype: str, lanes: int) -> str:
    """Name of a vector type; of the scalar where there is one lane."""
    return f"{dtype}x{lanes}" if lanes > 1 else dtype


def zero_word(zero_point: int) -> int:
    """Four uint8 zero points as one int32."""
    word = zero_point * 0x01010101
    return word - (1 << 32) if word >= 1 << 31 else word


def pixels_known(spec: ConvSpec) -> int:
    """Output pixels of the batch; of one image where the batch is symbolic."""
    return (spec.batch or 1) * spec.out.height * spec.out.width


def pixel_threads(spec: ConvSpec) -> int:
    """Threads side by side in pixels: a warp, or as few as one where there are no more pixels."""
    threads = WARP
    while threads > 1 and threads // 2 >= pixels_known(spec):
        threads //= 2
    return threads


def fours_of_tile(spec: ConvSpec, most: int) -> int:
    """Fours of output channels of a tile: as many as divide a group's, up to ``most``."""
    channels = spec.out.padded_channels // spec.groups
    return next(fours for fours in range(most, 0, -1) if channels % (FOUR * fours) == 0)


def pixels_of_tile(spec: ConvSpec, most: int) -> int:
    """Pixels of a thread, halved as long as there are too few outputs for many threads."""
    pixels = most
    while pixels > 1 and pixels_known(spec) * spec.out.padded_channels < MANY * pixels:
        pixels //= 2
    return pixels
