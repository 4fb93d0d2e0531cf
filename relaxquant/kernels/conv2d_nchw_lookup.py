"""Schedule ``nchw_lookup``: weights of 1 to 4 bits by table look-up, exact, on NCHW16c.

Loop nest::

    for image
      parallel over rows, with the border around the image
        for pixel: the tables of its channels (`lookup_tables`), for each part of the activations
      parallel over (tile of output channels, output row)
        tile of output pixels in the row
          for bit of the weights, part of the activations
            for kernel row
              for tables of the kernel row's pixels, one after the other
                unrolled: every pixel's table, looked up for every vector of output channels, added
                          in bytes; every few of them, added to sums of 16 bits
            sums of 16 bits, shifted, to the accumulators of 32
          epilogue on the accumulators, one store

Packing: weights as two's complement, a plane for each bit: ``w = b0 - 2 * b1`` for two bits. Those
that are all -1 or 1 are ``2 * b - 1``: one plane, and from the accumulator the sum of all
activations is taken. Indices lie one a byte where they have 6 bits, two where they have 4:
`pack_indices`. Activations are cut into parts of few bits, so that several look-ups fit a byte.

What limits it: the look-ups, as many as there are bits of the weights times parts of the
activations; `few_bits` counts their instructions. Filling the tables costs about as much as
three to four look-ups of each, so that layers of few taps and output channels gain less.

Ideal speedup over scalar fp32: the bytes of a vector times the channels of a table, over a
look-up, its addition and its share of widening, for each bit and part; see `ideal.lookup_speedup`.

Source: see `lookup_tables`; border, packing of channels and epilogue are those of
`conv2d_nchw_spatial_pack`.
"""

from __future__ import annotations

import tvm

from .epilogue import Epilogue, conv_arguments
from .intrinsics import InstructionSet
from .lookup_plan import SUM_MAX, Part, cut, largest_sums, pack_indices, weight_planes
from .lookup_tables import ChannelTables, TableBuilder, part_of, repeat
from .padded_image import PaddedImage, output_size
from .registry import Implementation, register
from .spec import ConvSpec, ConvWeights
from .tile import Tile
from .tir import (
    BLOCK,
    T,
    arg,
    batch_extent,
    ceildiv,
    lanes_at,
    local,
    prim_func,
    splat,
    store,
)
from .weight_bits import bits_of

NAME = "nchw_lookup"
MOST_BITS = 4  # of weights: beyond, more planes than the multiplications they stand for


def applies(spec: ConvSpec, isa: InstructionSet) -> bool:
    """Whether it is an int8 layer of one group, whose channels lie in blocks of 16."""
    if spec.precision != "int8" or isa.lookup is None or spec.groups > 1:
        return False
    whole = spec.data.block % BLOCK == 0 and spec.out.block % BLOCK == 0
    return whole and not spec.data.halo and spec.window.dilation == (1, 1)


def possible_tiles(spec: ConvSpec, isa: InstructionSet) -> list[Tile]:
    """Register tiles that fit; a vector of output channels takes three registers a pixel."""
    lookup = isa.lookup
    vectors = ceildiv(spec.out.padded_channels, lookup.bytes)
    return [
        Tile(count, pixels)
        for count in (1, 2)
        if vectors % count == 0
        for pixels in range(1, min(lookup.tile_registers // count // 3, output_size(spec)[1]) + 1)
    ]


def ranked_tiles(spec: ConvSpec, isa: InstructionSet) -> list[Tile]:
    """Register tiles, the one with the fewest cycles for a row first.

    A look-up takes two, a load of a table or of indices one; fewer than four under way wait.
    """

    def cycles(tile: Tile) -> float:
        whole, rest = divmod(output_size(spec)[1], tile.pixels)
        widths = [tile.pixels] * whole + [rest] * bool(rest)
        steps = (2 * max(tile.vectors * width, 4) + tile.vectors + width for width in widths)
        return sum(steps) / tile.vectors

    return sorted(possible_tiles(spec, isa), key=cycles)


def tiles(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing, the most promising first."""
    return ranked_tiles(spec, isa) if lookup_tables(spec, weights, isa) else []


@register(NAME, precisions=("int8",), tiles=tiles)
def lookup_tables(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Convolutions and dense layers whose weights have few bits."""
    if not applies(spec, isa) or bits_of(weights.weight) > MOST_BITS:
        return None
    planes = weight_planes(weights.weight)
    parts = cut(spec.data.largest, isa.lookup.index_bits)
    sums = [largest_sums(planes, part) for part in parts]
    if any(row > SUM_MAX for _, row in sums):
        return None
    by_row = any(window > SUM_MAX for window, _ in sums)
    tile = tile or ranked_tiles(spec, isa)[0]
    channels = ChannelTables(spec.data.channels, isa.lookup.index_bits)
    packed = pack_indices(planes, channels, isa.lookup, tile.vectors)
    count, signs = len(planes), len(planes) == 1
    return Implementation(
        schedule=NAME,
        instructions=f"{isa.lookup.name}, {count * len(parts)} bits x parts",
        key=(NAME, spec, isa.name, count, by_row, tile),
        build=lambda: prim_func(lambda: _Lookup(spec, isa, tile, count, signs, by_row).emit()),
        arguments=conv_arguments(spec, weights, [packed]),
        tile=tile,
    )


class _Lookup:
    """Emits one convolution; the methods follow the loop nest from outside in."""

    def __init__(
        self,
        spec: ConvSpec,
        isa: InstructionSet,
        tile: Tile,
        planes: int,
        signs: bool,
        by_row: bool,
    ):
        self.spec, self.isa, self.tile, self.lookup = spec, isa, tile, isa.lookup
        self.planes, self.signs, self.by_row = planes, signs, by_row
        self.parts = cut(spec.data.largest, isa.lookup.index_bits)
        self.tables = ChannelTables(spec.data.channels, isa.lookup.index_bits)
        self.size = isa.lookup.bytes
        self.tile_channels = tile.vectors * self.size
        self.out_tiles = ceildiv(spec.out.padded_channels, self.tile_channels)
        self.kernel, self.image = spec.window.kernel, PaddedImage(spec)
        self.in_row = self.kernel[1] * self.tables.count

    def emit(self) -> None:
        """Arguments, then for each image the loop that fills tables and the one that reads them."""
        spec = self.spec
        batch = batch_extent(spec.batch)
        self.data = arg("data", spec.data.physical_shape(batch), "uint8")
        stream = ceildiv(self.in_row, self.in_byte)
        shape = (self.out_tiles, self.planes, self.kernel[0], stream, self.tile_channels)
        self.weight = arg("weight", shape, "uint8")
        self.epilogue = Epilogue(spec, self.isa, batch)
        row_bytes = self.image.columns * self.tables.pixel_bytes
        self.table = T.alloc_buffer((len(self.parts), self.image.rows, row_bytes), "uint8")
        if self.signs:
            self.sums = T.alloc_buffer((self.image.rows, self.image.columns), "int32")
        with T.serial(1 if self.image.dense else batch) as self.n:
            with T.parallel(self.image.rows) as row:
                self._emit_table_row(row)
            with T.parallel(self.out_tiles * self.image.height) as task:
                self.out_tile, self.oh = task // self.image.height, task % self.image.height
                self._emit_row()

    @property
    def in_byte(self) -> int:
        """Indices in a byte of packed weights."""
        return 8 // self.tables.index_bits

    # Tables of the pixels of a row.

    def _emit_table_row(self, row) -> None:
        builder = TableBuilder(self.tables, self.lookup)

        def pixel(column, load) -> None:
            for k, part in enumerate(self.parts):

                def save(offset, vector, k=k):
                    at = column * self.tables.pixel_bytes + offset
                    store(self.table, [k, row, lanes_at(at, self.size)], vector)

                def part_load(block, part=part):
                    return part_of(load(block), part.shift, part.bits, BLOCK)

                builder.emit(part_load, save)
            if self.signs:
                self._emit_sum(row, column, load)

        self.image.emit_row(self.data, self.n, row, pixel)

    def _emit_sum(self, row, column, load) -> None:
        """The sum of a pixel's activations, without the padding of the last block."""
        every = lanes_at(0, BLOCK)
        total = local(BLOCK, "int32")
        store(total, [every], splat(0, "int32", BLOCK))
        blocks, rest = divmod(self.spec.data.channels, BLOCK)
        if blocks:
            with T.serial(blocks) as block:
                store(total, [every], total[every] + T.cast(load(block), f"int32x{BLOCK}"))
        if rest:
            wide = T.cast(load(blocks), f"int32x{BLOCK}")
            ones = [tvm.tirx.const(int(i < rest), "int32") for i in range(BLOCK)]
            mask = tvm.tirx.Shuffle(ones, [T.int32(i) for i in range(BLOCK)])
            store(total, [every], total[every] + wide * mask)
        reduced = T.call_llvm_pure_intrin("int32", "llvm.vector.reduce.add.v16i32", total[every])
        store(self.sums, [row, column], reduced)

    # Look-ups for the pixels of an output row.

    def _emit_row(self) -> None:
        pixels = self.tile.pixels
        whole, rest = divmod(self.image.width, pixels)
        if whole:
            with T.serial(whole) as i:
                self._emit_tile(i * pixels, pixels)
        if rest:
            self._emit_tile(whole * pixels, rest)

    def _emit_tile(self, start, pixels: int) -> None:
        self.start = start
        self.at = [(i, j) for i in range(pixels) for j in range(self.tile.vectors)]
        quarters = range(self.size // self.isa.lanes)
        self.acc = {(*at, q): local(self.isa.lanes, "int32") for at in self.at for q in quarters}
        for buffer in self.acc.values():
            self._set(buffer, splat(0, "int32", self.isa.lanes))
        for plane in range(self.planes):
            for k, part in enumerate(self.parts):
                self._emit_pass(plane, k, part)
        for i in range(pixels):
            self._finish_pixel(i)

    def _emit_pass(self, plane: int, k: int, part: Part) -> None:
        shift = part.shift + (1 if self.signs else plane)
        negative = not self.signs and plane == self.planes - 1
        if self.by_row:
            with T.serial(self.kernel[0]) as kh:
                self._zero_sums()
                self._emit_kernel_row(plane, k, part, kh)
                self._add_sums(shift, negative)
            return
        self._zero_sums()
        with T.serial(self.kernel[0]) as kh:
            self._emit_kernel_row(plane, k, part, kh)
        self._add_sums(shift, negative)

    def _zero_sums(self) -> None:
        # The whole sum of words: even bytes plus 256 times odd ones, and the odd ones alone.
        half = self.size // 2
        self.both = {at: local(half, "uint16") for at in self.at}
        self.odd = {at: local(half, "uint16") for at in self.at}
        for buffer in (*self.both.values(), *self.odd.values()):
            self._set(buffer, splat(0, "uint16", half))

    def _emit_kernel_row(self, plane: int, k: int, part: Part, kh) -> None:
        chain = part.chain
        if chain > 1:
            chain -= chain % self.in_byte
        steps = max(chain, self.in_byte)

        def emit(first, count: int) -> None:
            for link in range(0, count, chain):
                self._emit_chain(plane, k, kh, first, range(link, min(link + chain, count)))

        whole, rest = divmod(self.in_row, steps)
        if whole:
            with T.serial(whole) as i:
                emit(i * steps, steps)
        if rest:
            emit(whole * steps, rest)

    def _emit_chain(self, plane: int, k: int, kh, first, links: range) -> None:
        """Look-ups of successive tables, summed in bytes and then added to the sums."""
        half = self.size // 2
        total = {at: local(self.size, "uint8") for at in self.at}
        for link in links:
            for (i, j), buffer in total.items():
                index = self._index(plane, kh, first, link, j)
                found = self.lookup.emit(self._table(k, kh, first + link, i), index)
                self._set(buffer, found if link == links[0] else self._get(buffer) + found)
        for at, buffer in total.items():
            words = T.reinterpret(f"uint16x{half}", self._get(buffer))
            self._set(self.both[at], self._get(self.both[at]) + words)
            high = T.shift_right(words, splat(8, "uint16", half))
            self._set(self.odd[at], self._get(self.odd[at]) + high)

    def _index(self, plane: int, kh, first, link: int, j: int):
        lanes = lanes_at(j * self.size, self.size)
        if self.in_byte == 1:
            return self.weight[self.out_tile, plane, kh, first + link, lanes]
        byte = self.weight[self.out_tile, plane, kh, first // 2 + link // 2, lanes]
        if link % 2:
            words = T.reinterpret(f"uint32x{self.isa.lanes}", byte)
            shifted = T.shift_right(words, splat(4, "uint32", self.isa.lanes))
            byte = T.reinterpret(f"uint8x{self.size}", shifted)
        return T.bitwise_and(byte, splat(15, "uint8", self.size))

    def _table(self, k: int, kh, step, i: int):
        row, column = self.oh * self.image.strides[0] + kh, (self.start + i) * self.image.strides[1]
        first = column * self.tables.pixel_bytes + step * self.tables.entries
        table = self.table[k, row, lanes_at(first, self.tables.entries)]
        return repeat(table, self.size) if self.tables.index_bits == 4 else table

    def _add_sums(self, shift: int, negative: bool) -> None:
        half, lanes = self.size // 2, self.isa.lanes
        for at in self.at:
            odd = T.bind(self._get(self.odd[at]))
            even = self._get(self.both[at]) - T.shift_left(odd, splat(8, "uint16", half))
            for q in range(self.size // lanes):
                words, first = (even, q * lanes) if q * lanes < half else (odd, q * lanes - half)
                picked = [T.int32(first + lane) for lane in range(lanes)]
                wide = T.cast(tvm.tirx.Shuffle([words], picked), f"int32x{lanes}")
                wide = T.shift_left(wide, splat(shift, "int32", lanes))
                acc = self.acc[(*at, q)]
                self._set(acc, self._get(acc) - wide if negative else self._get(acc) + wide)

    def _finish_pixel(self, i: int) -> None:
        n, oh, ow = self.image.output(self.n, self.oh, self.start + i)
        shared = None
        if self.signs:
            shared = self.image.window_sum(self.sums, self.oh, self.start + i)
        for j in range(self.tile.vectors):
            for q in range(self.size // self.isa.lanes):
                channel = self.out_tile * self.tile_channels + j * self.size + q * self.isa.lanes
                self._finish(self.acc[i, j, q], shared, n, channel, oh, ow)

    def _finish(self, buffer, shared, n, channel, oh, ow) -> None:
        def emit() -> None:
            acc = self._get(buffer) + self.epilogue.initial(channel)
            if shared is not None:
                acc = acc - T.broadcast(shared, self.isa.lanes)
            self.epilogue.finish(acc, n, channel, oh, ow)

        if self.spec.out.padded_channels % self.tile_channels == 0:
            emit()
            return
        with T.If(channel < self.spec.out.padded_channels), T.Then():
            emit()

    # Every register is a buffer of one vector, as in the direct schedule.

    def _get(self, buffer):
        return buffer[lanes_at(0, buffer.shape[0])]

    def _set(self, buffer, value) -> None:
        store(buffer, [lanes_at(0, buffer.shape[0])], value)
