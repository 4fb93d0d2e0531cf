"""Schedule ``nchw_spatial_pack`` for depthwise convolution, fp32, int8 and int16.

Loop nest::

    parallel over (image, block of channels, output row)
      tile of output pixels in the row
        accumulators in registers: [pixels][vectors of the block], started with the bias
        for kernel row, kernel column
          unrolled: every pixel's vector of channels times the tap's vector of weights
        epilogue on the registers, one store

Packing: activations (N, C/16, H, W, 16), or NHWC; weights (C/16, KH, KW, 16), in int8 whatever
their bits: a few for each channel are not worth the decoding. There is no
reduction over channels, so no dot product helps: each integer is widened to int32 and multiplied
there.

What limits it: loads and widening, about one multiply for each load.

Ideal speedup over scalar fp32: the lanes of a vector, in int8 too, as no dot product helps.

Source: ``topi/x86/depthwise_conv2d.py`` (Apache TVM up to 0.17), with the border cut out of the
loops instead of padded in memory.
"""

from __future__ import annotations

import numpy as np
import tvm

from .epilogue import Epilogue, conv_arguments
from .intrinsics import InstructionSet
from .pack import block_channels
from .registry import Implementation, register
from .row_tiles import RowTiles
from .spec import ConvSpec, ConvWeights, without_zero_points
from .tile import Tile
from .tir import BLOCK, T, arg, batch_extent, lanes_at, local, prim_func, store, tensor_arg

NAME = "nchw_spatial_pack"


def applies(spec: ConvSpec) -> bool:
    """Whether each channel is convolved with one kernel of its own."""
    return spec.groups == spec.data.channels == spec.out.channels and spec.data.block % BLOCK == 0


@register(NAME, precisions=("fp32", "int8", "int16"), weight_zero_points=True)
def depthwise_spatial_pack(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, _tile: Tile | None = None
) -> Implementation | None:
    """One kernel a channel: vectors of channels, no dot product."""
    if not applies(spec):
        return None
    spec, weights = without_zero_points(spec, weights)
    packed, weight_dtype = [pack_weight(weights.weight)], str(weights.weight.dtype)
    if spec.pads_with_zero_point:
        packed.append(border_correction(spec, weights.weight))
    return Implementation(
        schedule=NAME,
        instructions=f"{'fp32' if spec.precision == 'fp32' else 'int32'} multiply-add",
        key=("depthwise", spec, isa.name, weight_dtype),
        build=lambda: build(spec, isa, weight_dtype),
        arguments=conv_arguments(spec, weights, packed),
    )


def pack_weight(weight: np.ndarray) -> np.ndarray:
    """(C, 1, KH, KW) to (C/16, KH, KW, 16), zero-padded."""
    return block_channels(weight.transpose(1, 0, 2, 3), BLOCK)[0]


def border_correction(spec: ConvSpec, weight: np.ndarray) -> np.ndarray:
    """int32 (KH, KW + 1, padded C), as `pack.border_correction`, for one kernel a channel."""
    taps = weight[:, 0].astype(np.int32).transpose(1, 2, 0) * spec.data.zero_point
    table = np.zeros((taps.shape[0], taps.shape[1] + 1, spec.out.padded_channels), np.int32)
    table[:, :-1, : taps.shape[2]] = taps
    table[:, -1, : taps.shape[2]] = taps.sum(axis=1)
    return table


def tile_pixels(spec: ConvSpec, isa: InstructionSet) -> int:
    """Pixels of a register tile: as many as leave room for one tap's weights."""
    vectors = BLOCK // isa.lanes
    most = max(isa.tile_registers // (2 * vectors), 1)
    fewest_tiles = -(-spec.out.width // most)
    return -(-spec.out.width // fewest_tiles)


def build(spec: ConvSpec, isa: InstructionSet, weight_dtype: str) -> tvm.tirx.PrimFunc:
    """The depthwise convolution as a PrimFunc, for weights of ``weight_dtype``.

    Arguments: data, weight, [border], bias, [multiplier], [residual], bounds, output.
    """
    return prim_func(lambda: _Depthwise(spec, isa, weight_dtype).emit())


class _Depthwise:
    """Emits one depthwise convolution, from the outer loop in."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, weight_dtype: str):
        self.spec, self.isa, self.weight_dtype = spec, isa, weight_dtype
        self.rows = RowTiles(spec.data, spec.out, spec.window, tile_pixels(spec, isa))
        self.vectors = BLOCK // isa.lanes

    def emit(self) -> None:
        spec = self.spec
        batch = batch_extent(spec.batch)
        self.data = tensor_arg("data", spec.data, batch)
        blocks = spec.data.padded_channels // BLOCK
        shape = (blocks, *spec.window.kernel, BLOCK)
        self.weight = arg("weight", shape, self.weight_dtype)
        if spec.pads_with_zero_point:
            border = (spec.window.kernel[0], spec.window.kernel[1] + 1, spec.out.padded_channels)
            self.border = arg("border", border, "int32")
        self.epilogue = Epilogue(spec, self.isa, batch)
        self.dtype = self.epilogue.bias.dtype
        height = spec.out.height
        with T.parallel(batch * blocks * height) as task:
            self.n = task // (blocks * height)
            self.block = task // height % blocks
            self.oh = task % height
            self.rows.emit(self._emit_tile)

    def _emit_tile(self, start, width: int, edge: int | None) -> None:
        self.start = start
        self.acc = local(width * BLOCK, self.dtype)
        with T.unroll(width) as i, T.unroll(self.vectors) as j:
            store(self.acc, [self._register(i, j)], self.epilogue.initial(self._channel(j)))
        if self.spec.pads_with_zero_point:
            self.rows.missing_taps(self.oh, width, edge, self._emit_missing_tap)
        self.rows.taps(self.oh, width, edge, self._emit_tap)
        with T.unroll(width) as i, T.unroll(self.vectors) as j:
            acc = self.acc[self._register(i, j)]
            self.epilogue.finish(acc, self.n, self._channel(j), self.oh, self.start + i)

    def _emit_missing_tap(self, kh, kw, first: int, last: int) -> None:
        with T.unroll(first, last) as i, T.unroll(self.vectors) as j:
            at = self._register(i, j)
            extra = self.border[kh, kw, lanes_at(self._channel(j), self.isa.lanes)]
            store(self.acc, [at], self.acc[at] + extra)

    def _emit_tap(self, kh, kw, first: int, last: int) -> None:
        window = self.spec.window
        ih = self.oh * window.strides[0] - window.padding[0] + kh * window.dilation[0]
        column = self.start * window.strides[1] - window.padding[1] + kw * window.dilation[1]
        wide = f"{self.dtype}x{self.isa.lanes}"
        with T.unroll(first, last) as i, T.unroll(self.vectors) as j:
            lanes = lanes_at(j * self.isa.lanes, self.isa.lanes)
            iw = column + i * window.strides[1]
            source = self.spec.data.vector_at(self.n, self._channel(j), ih, iw, self.isa.lanes)
            x = T.cast(self.data[tuple(source)], wide)
            w = T.cast(self.weight[self.block, kh, kw, lanes], wide)
            at = self._register(i, j)
            store(self.acc, [at], self.acc[at] + x * w)

    def _channel(self, j):
        return self.block * BLOCK + j * self.isa.lanes

    def _register(self, i, j):
        return lanes_at((i * self.vectors + j) * self.isa.lanes, self.isa.lanes)
