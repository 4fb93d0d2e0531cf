"""Schedule ``cuda_dp4a``: direct int8 convolution and dense layers by four-way dot products.

A thread computes a few pixels times one or two fours of output channels (`thread_tile`). For each
block of 16 input channels and each tap it loads a pixel's 16 bytes at once, and for each four of
them a word of weights for every output channel; each word of the pixel meets each word of weights
in one ``dp4a``.

Packing: activations NCHW16c, each block of which is four words of NCHW4c, or NCHW4c for an image;
weights OIHW4o4i, the fours of a tile side by side, so that 16 bytes are four output channels. A
warp has one tile of channels: its weights are one address, sent to all threads.

Groups whose channels are fours, but no whole blocks, are read a word at a time, each from the group
of the thread's output channels.

What limits it: not measured. Counted are 16 ``dp4a`` for a pixel and four channels, against a load
of 16 bytes for the pixel and four for the weights, which the pixels of the thread share.

Ideal speedup over scalar fp32: 4.

Source: the layouts are those of the int8 schedules of TVM's Relay, ``topi/cuda/conv2d_int8.py``
(Apache TVM up to 0.17); the kernel is our own, without shared memory.
"""

from __future__ import annotations

import numpy as np

from ..epilogue import conv_arguments
from ..intrinsics import InstructionSet
from ..intrinsics.cuda import dp4a
from ..pack import pack_conv
from ..registry import Implementation, register
from ..spec import ConvSpec, ConvWeights
from ..tile import Tile
from ..tir import BLOCK, CUDA, T, arg, lanes_at, local, prim_func, store
from .thread_tile import FOUR, ThreadTile, fours_of_tile, pixel_threads, pixels_of_tile

NAME = "cuda_dp4a"


def applies(spec: ConvSpec) -> bool:
    """Whether input channels lie in one or four words, not NHWC's many, and groups in blocks."""
    words = spec.data.block in (FOUR, BLOCK)
    return words and not spec.data.halo and spec.groups_are_whole_blocks


@register(NAME, precisions=("int8",), machines=(CUDA,))
def by_dp4a(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Direct convolution by dot products of four bytes."""
    if not applies(spec):
        return None
    tile = tile or Tile(vectors=fours_of_tile(spec, 2), pixels=pixels_of_tile(spec, 4))
    return Implementation(
        schedule=NAME,
        instructions="dp4a",
        key=(NAME, spec, tile),
        build=lambda: prim_func(lambda: Dp4aConv2d(spec, isa, tile).emit()),
        arguments=conv_arguments(
            spec, weights, [pack_conv(spec, weights.weight, FOUR * tile.vectors)]
        ),
        tile=tile,
    )


class Dp4aConv2d(ThreadTile):
    """Emits the convolution as a PrimFunc for the threads of a GPU."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile):
        super().__init__(spec, isa, tile, pixel_threads(spec))
        self.words = spec.data.block // FOUR

    def emit_weights(self) -> None:
        """As `pack_conv` lays them: (tile, block, KH, KW, four of inputs, outputs x 4)."""
        kernel, outputs = self.spec.window.kernel, FOUR * self.tile.vectors
        shape = (self.channel_tiles(), self.group_blocks, *kernel, self.words, outputs * FOUR)
        self.weights = arg("weight", shape, "int8")

    def emit_tap(self, block, kh, kw) -> None:
        """Every word of the pixels times the words of the four output channels."""
        x = [local(self.words, "int32") for _ in range(self.tile.pixels)]
        for i, words in enumerate(x):
            whole = self.words * FOUR
            self.load_pixel(words, i, self.block_of_group(block), kh, kw, 0, whole)
        for step in range(self.words):
            for j in range(self.tile.vectors):
                w = local(FOUR, "int32")
                at = lanes_at(j * FOUR * FOUR, FOUR * FOUR)
                packed = self.weights[self.row, block, kh, kw, step, at]
                store(w, [lanes_at(0, FOUR)], T.reinterpret(f"int32x{FOUR}", packed))
                for i in range(self.tile.pixels):
                    acc = self.acc[i, j]
                    for channel in range(FOUR):
                        store(acc, [channel], dp4a(acc[channel], x[i][step], w[channel]))


def applies_to_fours(spec: ConvSpec) -> bool:
    """Whether it is grouped, and the channels of a group are words that share a block."""
    channels = spec.data.channels // spec.groups, spec.out.channels // spec.groups
    fours = not any(count % FOUR for count in channels)
    return fours and spec.data.block == BLOCK and not spec.groups_are_whole_blocks


@register(NAME, precisions=("int8",), machines=(CUDA,))
def grouped_by_dp4a(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Groups of fours of channels, such as those of ResNeXt."""
    if not applies_to_fours(spec):
        return None
    vectors = 1 if spec.out.channels // spec.groups % (2 * FOUR) else 2
    tile = tile or Tile(vectors=vectors, pixels=pixels_of_tile(spec, 4))
    packed = pack_fours(spec, weights.weight, FOUR * tile.vectors)
    return Implementation(
        schedule=NAME,
        instructions="dp4a",
        key=(NAME, "grouped", spec, tile),
        build=lambda: prim_func(lambda: GroupedDp4aConv2d(spec, isa, tile).emit()),
        arguments=conv_arguments(spec, weights, [packed]),
        tile=tile,
    )


def pack_fours(spec: ConvSpec, weight: np.ndarray, outputs: int) -> np.ndarray:
    """(O, I / groups, KH, KW) as (tile, fours of a group's inputs, KH, KW, outputs x 4)."""
    padded = np.zeros((spec.out.padded_channels, *weight.shape[1:]), weight.dtype)
    padded[: len(weight)] = weight
    _, inputs, kh, kw = weight.shape
    parts = padded.reshape(-1, outputs, inputs // FOUR, FOUR, kh, kw).transpose(0, 2, 4, 5, 1, 3)
    return np.ascontiguousarray(parts.reshape(-1, inputs // FOUR, kh, kw, outputs * FOUR))


class GroupedDp4aConv2d(ThreadTile):
    """Emits a convolution whose groups share blocks of channels."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile):
        super().__init__(spec, isa, tile, pixel_threads(spec))
        self.inputs = spec.data.channels // spec.groups

    def reduction_blocks(self) -> int:
        """Words of a group."""
        return self.inputs // FOUR

    def emit_weights(self) -> None:
        """As `pack_fours` lays them."""
        kernel, outputs = self.spec.window.kernel, FOUR * self.tile.vectors
        shape = (self.channel_tiles(), self.reduction_blocks(), *kernel, outputs * FOUR)
        self.weights = arg("weight", shape, "int8")

    def emit_tap(self, block, kh, kw) -> None:
        """One word of every pixel times those of the output channels."""
        spec = self.spec
        group = self.channel(0) // (spec.out.channels // spec.groups)
        # Channels of the padding have weights of 0, for which any group will do.
        first = T.min(group, spec.groups - 1) * self.inputs + block * FOUR
        x = [local(1, "int32") for _ in range(self.tile.pixels)]
        for i, word in enumerate(x):
            at = first // spec.data.block, kh, kw, first % spec.data.block
            self.load_pixel(word, i, *at, FOUR)
        for j in range(self.tile.vectors):
            w = local(FOUR, "int32")
            packed = self.weights[self.row, block, kh, kw, lanes_at(j * FOUR * FOUR, FOUR * FOUR)]
            store(w, [lanes_at(0, FOUR)], T.reinterpret(f"int32x{FOUR}", packed))
            for i in range(self.tile.pixels):
                acc = self.acc[i, j]
                for channel in range(FOUR):
                    store(acc, [channel], dp4a(acc[channel], x[i][0], w[channel]))
