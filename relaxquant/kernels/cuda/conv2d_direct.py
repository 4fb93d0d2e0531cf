"""Schedule ``cuda_direct``: convolution and dense layers of floats, and depthwise ones of int8 too.

A thread computes a few pixels times one or two fours of output channels (`thread_tile`), in fp32 by
fused multiply-adds; float16 becomes float32 as it is loaded. In a depthwise layer the four channels
are those of the input too: a tap is four multiply-adds, of int32 for int8, as there is no sum over
channels that dp4a could take.

Packing: activations NCHW16c, or plain NCHW for an image; weights (tile, I blocks, KH, KW, I, O of
the tile), depthwise (O / 4, KH, KW, 4).

What limits it: not measured; the loads weigh as much as the multiply-adds in depthwise layers.

Ideal speedup over scalar fp32: 1.

Source: our own.
"""

from __future__ import annotations

import numpy as np

from ..epilogue import conv_arguments
from ..intrinsics import InstructionSet
from ..pack import block_channels, pack_conv
from ..registry import Implementation, register
from ..requantize import fused_multiply_add
from ..spec import ConvSpec, ConvWeights
from ..tile import Tile
from ..tir import BLOCK, CUDA, T, arg, lanes_at, local, prim_func, store
from .thread_tile import FOUR, ThreadTile, fours_of_tile, pixel_threads, pixels_of_tile

NAME = "cuda_direct"
WHOLE = lanes_at(0, FOUR)


@register(NAME, precisions=("fp32", "fp16"), machines=(CUDA,))
def in_fp32(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Direct convolution, computed in float32."""
    if not spec.groups_are_whole_blocks:
        return None
    tile = tile or Tile(vectors=fours_of_tile(spec, 2), pixels=pixels_of_tile(spec, 4))
    packed = pack_conv(spec, weights.weight, FOUR * tile.vectors)
    return Implementation(
        schedule=NAME,
        instructions="fp32 multiply-add",
        key=(NAME, spec, tile),
        build=lambda: prim_func(lambda: Fp32Conv2d(spec, isa, tile).emit()),
        arguments=conv_arguments(spec, weights, [packed]),
        tile=tile,
    )


@register(NAME, precisions=("fp32", "fp16", "int8"), machines=(CUDA,))
def depthwise(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """One kernel a channel, four channels a thread."""
    is_depthwise = spec.groups == spec.data.channels == spec.out.channels
    if not is_depthwise or spec.data.block % BLOCK:
        return None
    tile = tile or Tile(vectors=1, pixels=pixels_of_tile(spec, 2))
    return Implementation(
        schedule=NAME,
        instructions=f"{'int32' if spec.is_integer else 'fp32'} multiply-add",
        key=(NAME, "depthwise", spec, tile),
        build=lambda: prim_func(lambda: DepthwiseConv2d(spec, isa, tile).emit()),
        arguments=conv_arguments(spec, weights, [pack_depthwise(spec, weights.weight)]),
        tile=tile,
    )


def pack_depthwise(spec: ConvSpec, weight: np.ndarray) -> np.ndarray:
    """(C, 1, KH, KW) as (padded C / 4, KH, KW, 4)."""
    padding = spec.out.padded_channels - spec.out.channels
    padded = np.pad(weight, ((0, padding), (0, 0), (0, 0), (0, 0)))
    return block_channels(padded.transpose(1, 0, 2, 3), FOUR)[0]


class Fp32Conv2d(ThreadTile):
    """Emits a convolution of floats."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile):
        super().__init__(spec, isa, tile, pixel_threads(spec))

    def emit_weights(self) -> None:
        """As `pack_conv` lays them."""
        outputs, block = FOUR * self.tile.vectors, self.spec.data.block
        kernel = self.spec.window.kernel
        shape = (self.channel_tiles(), self.group_blocks, *kernel, block, outputs)
        self.weights = arg("weight", shape, self.spec.data.dtype)

    def emit_tap(self, block, kh, kw) -> None:
        """Four input channels at a time, or the one that there is."""
        step = FOUR if self.spec.data.block % FOUR == 0 else 1
        with T.serial(self.spec.data.block // step) as outer:
            x = [local(step, "float32") for _ in range(self.tile.pixels)]
            for i, values in enumerate(x):
                at = self.block_of_group(block), kh, kw, outer * step
                self.load_pixel(values, i, *at, step)
            for inner in range(step):
                self._multiply_add(x, inner, (self.row, block, kh, kw, outer * step + inner))

    def _multiply_add(self, x: list, inner: int, at: tuple) -> None:
        for j in range(self.tile.vectors):
            w = local(FOUR, "float32")
            loaded = self.weights[(*at, lanes_at(j * FOUR, FOUR))]
            store(w, [WHOLE], T.cast(loaded, f"float32x{FOUR}"))
            for i in range(self.tile.pixels):
                acc = self.acc[i, j]
                for channel in range(FOUR):
                    total = fused_multiply_add(x[i][inner], w[channel], acc[channel], 1)
                    store(acc, [channel], total)


class DepthwiseConv2d(ThreadTile):
    """Emits a depthwise convolution."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile):
        super().__init__(spec, isa, tile, pixel_threads(spec))

    def reduction_blocks(self) -> int:
        """Nothing is summed over channels."""
        return 1

    def emit_weights(self) -> None:
        """As `pack_depthwise` lays them."""
        dtype = "int8" if self.spec.is_integer else self.spec.data.dtype
        shape = (self.spec.out.padded_channels // FOUR, *self.spec.window.kernel, FOUR)
        self.weights = arg("weight", shape, dtype)

    def emit_tap(self, block, kh, kw) -> None:
        """Four channels of every pixel times the tap's weights."""
        data = self.spec.data
        dtypes = (data.dtype, "int8") if self.spec.is_integer else ("float32", "float32")
        for j in range(self.tile.vectors):
            channel = self.channel(j)
            w = local(FOUR, dtypes[1])
            loaded = self.weights[channel // FOUR, kh, kw, WHOLE]
            store(w, [WHOLE], T.cast(loaded, f"{w.dtype}x{FOUR}"))
            for i in range(self.tile.pixels):
                x = local(FOUR, dtypes[0])
                self.load_pixel(x, i, channel // data.block, kh, kw, channel % data.block, FOUR)
                for lane in range(FOUR):
                    self._multiply_add(self.acc[i, j], x, w, lane)

    def _multiply_add(self, acc, x, w, lane: int) -> None:
        if self.spec.is_integer:
            total = acc[lane] + T.cast(x[lane], "int32") * T.cast(w[lane], "int32")
        else:
            total = fused_multiply_add(x[lane], w[lane], acc[lane], 1)
        store(acc, [lane], total)
