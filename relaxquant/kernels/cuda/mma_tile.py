"""What convolutions on tensor cores have in common: a warp's tile, and how its registers hold it.

A warp computes a tile of pixels (rows) times output channels (columns). An instruction multiplies
16 rows by 8 columns, and its sums lie two by two in the threads: thread ``4 * row + quarter`` has
the pixels ``row`` and ``row + 8``. The columns of the right operand are numbered so that the four
sums which two products leave in a thread are four neighbouring channels of one pixel, which the
epilogue stores at once.

Weights lie in the order of a warp's registers: for each thread 16 bytes, what it holds of the 16
output channels of two products.

Source: NVIDIA's PTX ISA, "Warp-level matrix instructions"; the kernels are our own.
"""

from __future__ import annotations

import numpy as np
from tvm.backend.cuda.op import cuda_func_call

from ..intrinsics import InstructionSet
from ..spec import ConvSpec
from ..tile import Tile
from ..tir import BLOCK, T, arg, ceildiv, lanes_at, local, store
from .thread_tile import FOUR, WARP, ThreadTile, bytes_of, pixels_of_tile

ROWS = 8  # pixels of a warp that are neighbours: a thread has every eighth
WORDS = 4  # of 32 bits: what a thread holds of the right operands of two products


def applies(spec: ConvSpec) -> bool:
    """Whether there are blocks of 16 channels, which are summed up together."""
    return spec.groups == 1 and spec.data.block == BLOCK


def tile_of(spec: ConvSpec) -> Tile:
    """Up to 64 channels by 32 pixels of a warp."""
    blocks = spec.out.padded_channels // BLOCK
    vectors = next(count for count in (4, 3, 2, 1) if blocks % count == 0)
    return Tile(vectors=vectors, pixels=max(pixels_of_tile(spec, 4), 2))


def pack_fragments(
    spec: ConvSpec, weight: np.ndarray, word: int = FOUR, side_by_side: bool = False
) -> np.ndarray:
    """Weights in the order of a warp's registers.

    Parameters
    ----------
    spec : ConvSpec
        The layer.
    weight : numpy.ndarray
        (O, I, KH, KW).
    word : int
        Weights in a register, an eighth of a product's inputs: 4 of int8 and 2 of float16.
    side_by_side : bool
        Whether a thread's two words of a pixel are neighbours in memory. Else they lie ``4 * word``
        inputs apart, as the instruction counts them.

    Returns
    -------
    numpy.ndarray
        (O / 16, I / (8 * word), KH, KW, 32, 4 * word): for each thread four words, the first and
        the second inputs of one output channel, then of another one.
    """
    outputs, inputs, kh, kw = weight.shape
    depth = 2 * FOUR * word
    tiles, steps = spec.out.padded_channels // BLOCK, ceildiv(inputs, depth)
    padded = np.zeros((tiles * BLOCK, steps * depth, kh, kw), weight.dtype)
    padded[:outputs, :inputs] = weight
    # Channel 4 * a + 2 * half + b is column 2 * a + b of its half's product: thread 4 * column + q
    # has its inputs 4 * q and on, if a word is four.
    k, q = (6, 5) if side_by_side else (5, 6)
    inner = (FOUR, 2) if side_by_side else (2, FOUR)
    shape = (tiles, FOUR, 2, 2, steps, *inner, word, kh, kw)  # t, a, half, b, s, k and q, element
    order = (0, 4, 8, 9, 1, 3, q, 2, k, 7)  # t, s, kh, kw, a, b, q, half, k, element
    packed = padded.reshape(shape).transpose(order)
    return np.ascontiguousarray(packed.reshape(tiles, steps, kh, kw, WARP, FOUR * word))


class MmaTile(ThreadTile):
    """Emits the convolution; a tile's vectors are blocks of 16 channels, of which a thread has 4.

    ``tile.pixels`` are a thread's: an even number, each pair a product's 16 rows. A subclass says
    what it multiplies: ``function``, on pointers to four sums of the upper and of the lower rows,
    four words of the left operand and four of the right one, its CUDA text ``source``, and
    ``weight_dtype``.
    """

    weight_dtype = function = source = ""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile):
        super().__init__(spec, isa, tile, ROWS)

    def threads_of_row(self) -> int:
        """A warp."""
        return WARP

    def pixel(self, i: int):
        """The rows of the products, eight by eight."""
        return self.first_pixel + i * ROWS + self.thread // FOUR

    def channel(self, j: int):
        """Four channels of a block for each thread of a row."""
        return (self.row * self.tile.vectors + j) * BLOCK + self.thread % FOUR * FOUR

    def channel_tiles(self) -> int:
        """Tiles of whole blocks."""
        return self.spec.out.padded_channels // (BLOCK * self.tile.vectors)

    def emit_weights(self) -> None:
        """In the order of a warp's registers."""
        blocks, kernel = self.spec.out.padded_channels // BLOCK, self.spec.window.kernel
        shape = (blocks, self.reduction_blocks(), *kernel, WARP, self._of_thread())
        self.weights = arg("weight", shape, self.weight_dtype)

    def emit_tap(self, block, kh, kw) -> None:
        """The input channels of one product of all pixels times those of all channels."""
        x = [self.load_words(i, block, kh, kw) for i in range(self.tile.pixels)]
        for j in range(self.tile.vectors):
            w = local(WORDS, "int32")
            which = self.row * self.tile.vectors + j
            at = which, block, kh, kw, self.thread, lanes_at(0, self._of_thread())
            store(w, [lanes_at(0, WORDS)], T.reinterpret(f"int32x{WORDS}", self.weights[at]))
            for i in range(0, self.tile.pixels, 2):
                left = [x[i + low][k] for k in (0, 1) for low in (0, 1)]
                self._multiply(self.acc[i, j], self.acc[i + 1, j], left, w)

    def load_words(self, i: int, block, kh, kw) -> list:
        """The two words that a thread holds of pixel ``i`` in the left operand."""
        raise NotImplementedError

    def _of_thread(self) -> int:
        """Weights of a thread."""
        return WORDS * FOUR // bytes_of(self.weight_dtype)

    def _multiply(self, top, bottom, left: list, w) -> None:
        sums = [T.address_of(acc[0]) for acc in (top, bottom)]
        right = [w[k] for k in range(WORDS)]
        T.evaluate(cuda_func_call(self.function, *sums, *left, *right, source_code=self.source))
