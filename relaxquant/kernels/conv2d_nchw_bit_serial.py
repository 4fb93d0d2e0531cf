"""Schedule ``nchw_bit_serial``: products of bits by AND and population count, on NCHW16c.

Loop nest::

    for image
      parallel over rows, with the border around the image
        for pixel: a word of 32 channels' bits, for each bit of the activations
      parallel over (tile of output channels, output row)
        tile of output pixels in the row
          accumulators in registers: [pixels][vectors of output channels]
          for every bit of a weight and of an activation, those of the highest value first
            double the accumulators where the value halves
            for kernel row, word of the kernel row's pixels
              unrolled: every pixel's word, broadcast, AND every vector of weights' bits, counted
          epilogue on the registers, one store

Packing: weights as two's complement, a word of 32 input channels for each bit and output channel;
those that are all -1 or 1 are ``2 * b - 1``, and the sum of all activations is taken away.

What limits it: three instructions (AND, count, add) for 512 products of bits in a 512-bit vector,
for each bit of the weights times each of the activations. 1-bit weights and activations run up to
five times as fast as bytes do by VNNI, more bits are looked up faster (`conv2d_nchw_lookup`). It
needs an instruction that counts the bits of every lane (AVX512-VPOPCNTDQ): AVX2 would have to look
the counts up, half of them for every look-up of whole sums.

Ideal speedup over scalar fp32: 32 products of bits in every lane over three instructions, over the
bits of weights times those of activations; see `ideal.bit_serial_speedup`.

Source: Tulloch and Jia, "High performance ultra-low-precision convolutions on mobile devices", 2017
(arXiv 1712.02427); ``topi/nn/bitserial_conv2d.py`` of TVM up to 0.19. Here the bits are packed by
the kernel itself, and the register tile is that of `conv2d_nchw_spatial_pack`.
"""

from __future__ import annotations

import numpy as np

from .epilogue import Epilogue, conv_arguments
from .intrinsics import InstructionSet
from .lookup_plan import weight_planes
from .padded_image import PaddedImage, output_size
from .registry import Implementation, register
from .spec import ConvSpec, ConvWeights
from .tile import Tile, ranked_tiles
from .tir import BLOCK, T, arg, batch_extent, ceildiv, lanes_at, local, prim_func, splat, store
from .weight_bits import bits_of

NAME = "nchw_bit_serial"
MOST_BITS = 4  # of weights
WORD = 32  # channels


def pack_words(spec: ConvSpec, planes: np.ndarray, tile_channels: int) -> np.ndarray:
    """Bits of weights as words, in the order in which the kernel reads them.

    Parameters
    ----------
    spec : ConvSpec
        The layer.
    planes : numpy.ndarray
        (planes, O, I, KH, KW), 0 and 1.
    tile_channels : int
        Output channels of a register tile, a divisor of the padded output channels.

    Returns
    -------
    numpy.ndarray
        int32 (O tiles, planes, KH, KW * words, tile_channels): bit k of a word is channel k of 32.
    """
    count, out_channels, channels, height, width = planes.shape
    words = ceildiv(channels, WORD)
    padded = np.zeros((count, spec.out.padded_channels, words * WORD, height, width), np.uint32)
    padded[:, :out_channels, :channels] = planes
    split = padded.reshape(count, -1, tile_channels, words, WORD, height, width)
    shifts = np.arange(WORD, dtype=np.uint32)[:, None, None]
    packed = np.bitwise_or.reduce(split << shifts, axis=4)
    stream = packed.transpose(1, 0, 4, 5, 3, 2)  # tiles, planes, KH, KW, words, channels
    stream = stream.reshape(len(stream), count, height, width * words, tile_channels)
    return np.ascontiguousarray(stream).view(np.int32)


def applies(spec: ConvSpec, isa: InstructionSet) -> bool:
    """Whether it is an int8 layer of one group, whose channels lie in blocks of 16."""
    if spec.precision != "int8" or isa.bit_count is None or spec.groups > 1:
        return False
    whole = spec.data.block % BLOCK == 0 and spec.out.block % BLOCK == 0
    return whole and not spec.data.halo and spec.window.dilation == (1, 1)


def tiles(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing, the most promising first."""
    if bit_serial(spec, weights, isa) is None:
        return []
    return ranked_tiles(spec, isa, isa.bit_count)


@register(NAME, precisions=("int8",), tiles=tiles)
def bit_serial(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Convolutions and dense layers whose weights have few bits."""
    if not applies(spec, isa) or bits_of(weights.weight) > MOST_BITS:
        return None
    planes = weight_planes(weights.weight)
    tile = tile or ranked_tiles(spec, isa, isa.bit_count)[0]
    packed = pack_words(spec, planes, tile.vectors * isa.lanes)
    pairs = len(planes) * spec.data.largest.bit_length()
    return Implementation(
        schedule=NAME,
        instructions=f"{isa.bit_count.name}, {pairs} pairs of bits",
        key=(NAME, spec, isa.name, len(planes), tile),
        build=lambda: prim_func(lambda: _BitSerial(spec, isa, tile, len(planes)).emit()),
        arguments=conv_arguments(spec, weights, [packed]),
        tile=tile,
    )


class _BitSerial:
    """Emits one convolution; the methods follow the loop nest from outside in."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile, planes: int):
        self.spec, self.isa, self.tile, self.planes = spec, isa, tile, planes
        self.signs = planes == 1
        self.bits = spec.data.largest.bit_length()
        self.image, self.kernel = PaddedImage(spec), spec.window.kernel
        self.words = ceildiv(spec.data.channels, WORD)
        self.in_row = self.kernel[1] * self.words
        self.tile_channels = tile.vectors * isa.lanes
        self.out_tiles = spec.out.padded_channels // self.tile_channels

    def emit(self) -> None:
        """Arguments, then for each image the loop that packs bits and the one that counts them."""
        spec, image = self.spec, self.image
        batch = batch_extent(spec.batch)
        self.data = arg("data", spec.data.physical_shape(batch), "uint8")
        shape = (self.out_tiles, self.planes, self.kernel[0], self.in_row, self.tile_channels)
        self.weight = arg("weight", shape, "int32")
        self.epilogue = Epilogue(spec, self.isa, batch)
        row_words = image.columns * self.words
        self.word = T.alloc_buffer((max(self.bits, 1), image.rows, row_words), "int32")
        if self.signs:
            self.sums = T.alloc_buffer((image.rows, image.columns), "int32")
        with T.serial(1 if image.dense else batch) as self.n:
            with T.parallel(image.rows) as row:
                image.emit_row(
                    self.data, self.n, row, lambda column, load: self._pack(row, column, load)
                )
            with T.parallel(self.out_tiles * image.height) as task:
                self.out_tile, self.oh = task // image.height, task % image.height
                self._emit_row()

    # Bits of the activations.

    def _pack(self, row, column, load) -> None:
        """Words of one pixel, and the sum of its activations."""
        if self.signs:
            store(self.sums, [row, column], T.int32(0))
        whole, rest = divmod(self.spec.data.channels, WORD)
        if whole:
            with T.serial(whole) as i:
                self._pack_word(row, column, i, load, WORD)
        if rest:
            self._pack_word(row, column, whole, load, rest)

    def _pack_word(self, row, column, i, load, channels: int) -> None:
        halves = [T.bind(load(i * 2 + half)) for half in range(ceildiv(channels, BLOCK))]
        for bit in range(self.bits):
            word = None
            for half, x in enumerate(halves):
                moved = T.shift_left(x, splat(7 - bit, "uint8", BLOCK)) if bit < 7 else x
                bits = self.isa.bit_count.top_bits(moved)
                word = bits if half == 0 else T.bitwise_or(word, T.shift_left(bits, T.int32(16)))
            if channels < WORD:  # padded channels may hold anything
                word = T.bitwise_and(word, T.int32((1 << channels) - 1))
            word = T.bind(word)
            store(self.word, [bit, row, column * self.words + i], word)
            if self.signs:
                value = T.shift_left(T.popcount(word), T.int32(bit))
                store(self.sums, [row, column], self.sums[row, column] + value)

    # Counts for the pixels of an output row.

    def _emit_row(self) -> None:
        pixels = self.tile.pixels
        whole, rest = divmod(output_size(self.spec)[1], pixels)
        if whole:
            with T.serial(whole) as i:
                self._emit_tile(i * pixels, pixels)
        if rest:
            self._emit_tile(whole * pixels, rest)

    def _emit_tile(self, start, pixels: int) -> None:
        self.start, lanes = start, self.isa.lanes
        at = [(i, j) for i in range(pixels) for j in range(self.tile.vectors)]
        self.acc = {ij: local(lanes, "int32") for ij in at}
        self._update(lambda _acc, i, j: splat(0, "int32", lanes))
        for value in reversed(range(self.planes + self.bits - 1 if self.bits else 0)):
            for plane in range(self.planes):
                if 0 <= value - plane < self.bits:
                    self._emit_pair(plane, value - plane)
            if value or self.signs:
                self._update(lambda acc, i, j: acc + acc)
        for i in range(pixels):
            self._finish_pixel(i)

    def _emit_pair(self, plane: int, bit: int) -> None:
        negative = not self.signs and plane == self.planes - 1
        with T.serial(self.kernel[0]) as kh, T.serial(self.in_row) as step:

            def add(acc, i: int, j: int):
                row = self.oh * self.image.strides[0] + kh
                column = (self.start + i) * self.image.strides[1]
                x = self.word[bit, row, column * self.words + step]
                lanes = lanes_at(j * self.isa.lanes, self.isa.lanes)
                both = self.isa.bit_count.emit(
                    x, self.weight[self.out_tile, plane, kh, step, lanes]
                )
                return acc - both if negative else acc + both

            self._update(add)

    def _finish_pixel(self, i: int) -> None:
        lanes, position = self.isa.lanes, self.image.output(self.n, self.oh, self.start + i)
        shared = None
        if self.signs:
            shared = T.bind(self.image.window_sum(self.sums, self.oh, self.start + i))
        for j in range(self.tile.vectors):
            channel = self.out_tile * self.tile_channels + j * lanes
            n, oh, ow = position
            acc = self.acc[i, j][lanes_at(0, lanes)] + self.epilogue.initial(channel)
            if shared is not None:
                acc = acc - T.broadcast(shared, lanes)
            self.epilogue.finish(acc, n, channel, oh, ow)

    def _update(self, value) -> None:
        every = lanes_at(0, self.isa.lanes)
        for (i, j), buffer in self.acc.items():
            store(buffer, [every], value(buffer[every], i, j))
