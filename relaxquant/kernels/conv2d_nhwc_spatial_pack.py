"""Schedule ``nhwc_spatial_pack``: direct convolution on NHWC from packed patches, fp32.

Loop nest::

    parallel over (image, chunk of output channels, patch of output rows and columns)
      pack: the input patch with its border, zero outside the image, one contiguous buffer
      for tile of output channels in the chunk, output row, tile of output columns
        accumulators in registers: [pixels][vectors of output channels], started with the bias
        for kernel row, kernel column, input channel
          unrolled: every pixel's activation, broadcast, times every vector of weights
        epilogue on the registers, one store

Packing: activations (N, H, W, C), C padded to 16; weights as `pack_conv` lays them for a single
block of input channels, (O tiles, KH, KW, I, tile). A plain image of a few channels (NCHW) is
read as it comes and becomes NHWC in the patch.

What limits it: the multiply units, as in ``nchw_spatial_pack``, less the pass that packs the
patch, which pays only where the patch serves many output channels; and the cache: one pixel's
channels lie together, so that the rows of a wide patch with many channels soon leave L1.

Ideal speedup over scalar fp32: the lanes of a vector, one multiply-add a lane and instruction; see
`ideal`.

Source: ``topi/arm_cpu/conv2d_spatial_pack.py``, ``conv2d_spatial_pack_nhwc`` (Apache TVM up to
0.17): its ``data_vec`` is the patch, its ``compute_at`` of it the place in the nest. There tuning
picks the patch and the loop order; here the cache and the registers do.
"""

from __future__ import annotations

from dataclasses import replace

import tvm

from .blocking import channel_chunks, split, start_of
from .epilogue import Epilogue, conv_arguments
from .intrinsics import InstructionSet
from .pack import pack_conv
from .register_tile import RegisterTile
from .registry import Implementation, register
from .spec import NHWC, ConvSpec, ConvWeights, TensorSpec
from .tile import Tile, choose_tile, ranked_tiles
from .tir import T, arg, batch_extent, ceildiv, lanes_at, prim_func, splat, store, tensor_arg

NAME = "nhwc_spatial_pack"


def applies(spec: ConvSpec) -> bool:
    """Whether all channels lie in one block, or in a plain image, and make one group."""
    data = spec.data
    one_block = data.blocks == 1 and data.block % 16 == 0
    plain_image = data.block == 1 and data.rank == 4
    return spec.groups == 1 and spec.out.blocks == 1 and (one_block or plain_image)


def tiles(spec: ConvSpec, _weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing, the most promising first."""
    return ranked_tiles(spec, isa, None)


@register(NAME, precisions=("fp32",), tiles=tiles, layout=NHWC)
def nhwc_spatial_pack(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Direct convolution from packed patches of NHWC."""
    if spec.precision != "fp32" or not applies(spec):
        return None
    tile = tile or choose_tile(spec, isa, None)
    patched = replace(spec, data=_patch_tensor(spec.data))
    packed = pack_conv(patched, weights.weight, tile.vectors * isa.lanes)
    return Implementation(
        schedule=NAME,
        instructions="fp32 multiply-add",
        key=(NAME, spec, isa.name, tile),
        build=lambda: build(spec, isa, tile),
        arguments=conv_arguments(spec, weights, [packed]),
        tile=tile,
    )


def build(spec: ConvSpec, isa: InstructionSet, tile: Tile) -> tvm.tirx.PrimFunc:
    """The convolution as a PrimFunc. Arguments: data, weight, bias, [residual], bounds, output."""
    return prim_func(lambda: _Conv2d(spec, isa, tile).emit())


def _zeros(_channel, lanes: int):
    return splat(0, "float32", lanes) if lanes > 1 else T.float32(0)


def _patch_tensor(data: TensorSpec) -> TensorSpec:
    """The channels of a patch: those of NHWC data, or of a plain image without padding."""
    return data if data.block > 1 else replace(data, block=data.channels)


class _Conv2d:
    """Emits one convolution; the methods follow the loop nest from outside in."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile):
        self.spec, self.isa, self.tile = spec, isa, tile
        self.tile_channels = tile.vectors * isa.lanes
        self.out_tiles = spec.out.padded_channels // self.tile_channels
        self.depth = _patch_tensor(spec.data).padded_channels
        # Whole rows where one fits the cache, else parts of rows that are whole register tiles.
        column_tiles = split(
            ceildiv(spec.out.width, tile.pixels), self._extent(1, tile.pixels) * self.depth * 4
        )
        self.columns = min(column_tiles * tile.pixels, spec.out.width)
        self.patch_columns = self._extent(1, self.columns)
        row_bytes = self.patch_columns * self.depth * 4
        self.rows = split(spec.out.height, row_bytes * spec.window.strides[0])
        self.patch_rows = self._extent(0, self.rows)

    def _extent(self, axis: int, outputs: int) -> int:
        """Inputs under ``outputs`` neighbouring outputs."""
        window = self.spec.window
        reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
        return (outputs - 1) * window.strides[axis] + reach

    def emit(self) -> None:
        """Arguments, then the parallel loop over images, chunks of channels and patches."""
        spec = self.spec
        batch = batch_extent(spec.batch)
        self.data = tensor_arg("data", spec.data, batch)
        kernel = (self.out_tiles, *spec.window.kernel, self.depth, self.tile_channels)
        self.weight = arg("weight", (self.out_tiles, 1, *kernel[1:]), "float32")
        self.epilogue = Epilogue(spec, self.isa, batch)
        down = ceildiv(spec.out.height, self.rows)
        across = ceildiv(spec.out.width, self.columns)
        chunks = channel_chunks(self.out_tiles, down * across)
        with T.parallel(batch * chunks * down * across) as task:
            self.n, chunk = task // (chunks * down * across), task // (down * across) % chunks
            self.oh = start_of(task // across % down, self.rows, spec.out.height)
            self.ow = start_of(task % across, self.columns, spec.out.width)
            self.patch = T.alloc_buffer(
                (self.patch_rows, self.patch_columns, self.depth), "float32"
            )
            self._emit_pack()
            per_chunk = self.out_tiles // chunks
            with T.serial(per_chunk) as part, T.serial(self.rows) as row:
                self._emit_row(chunk * per_chunk + part, row)

    def _emit_pack(self) -> None:
        window, data = self.spec.window, self.spec.data
        with T.serial(self.patch_rows) as row, T.serial(self.patch_columns) as column:
            ih = self.oh * window.strides[0] - window.padding[0] + row
            iw = self.ow * window.strides[1] - window.padding[1] + column
            if not any(window.padding):
                self._copy_pixel(row, column, ih, iw)
                return
            inside = T.And(T.And(ih >= 0, ih < data.height), T.And(iw >= 0, iw < data.width))
            with T.If(inside):
                with T.Then():
                    self._copy_pixel(row, column, ih, iw)
                with T.Else():
                    self._each_channel(row, column, _zeros)

    def _copy_pixel(self, row, column, ih, iw) -> None:
        data = self.spec.data

        def load(channel, lanes):
            if data.block == 1:
                return self.data[tuple(data.element_at(self.n, channel, ih, iw))]
            return self.data[tuple(data.vector_at(self.n, channel, ih, iw, lanes))]

        self._each_channel(row, column, load)

    def _each_channel(self, row, column, value) -> None:
        """Fill a pixel of the patch, by vectors where whole vectors are there."""
        lanes = 1 if self.spec.data.block == 1 else self.isa.lanes
        with T.serial(self.depth // lanes) as step:
            channel = step * lanes
            index = channel if lanes == 1 else lanes_at(channel, lanes)
            store(self.patch, [row, column, index], value(channel, lanes))

    def _emit_row(self, out_tile, row) -> None:
        pixels = min(self.tile.pixels, self.columns)
        with T.serial(ceildiv(self.columns, pixels)) as step:
            first = start_of(step, pixels, self.columns)
            tile = Tile(self.tile.vectors, pixels)
            registers = RegisterTile(self.isa, tile, self.epilogue, out_tile * self.tile_channels)
            self._emit_taps(registers, out_tile, row, first)
            registers.finish(lambda i: (self.n, self.oh + row, self.ow + first + i))

    def _emit_taps(self, registers: RegisterTile, out_tile, row, first) -> None:
        (rows, columns), window = self.spec.window.kernel, self.spec.window
        # Four channels at a time keep the loop's own cost away and the code small.
        unrolled = next(count for count in (4, 3, 2, 1) if self.depth % count == 0)
        with (
            T.serial(rows) as kh,
            T.serial(columns) as kw,
            T.serial(self.depth // unrolled) as outer,
        ):

            def activation(i: int, inner: int):
                y = row * window.strides[0] + kh * window.dilation[0]
                x = (first + i) * window.strides[1] + kw * window.dilation[1]
                return self.patch[y, x, outer * unrolled + inner]

            def weight(j: int, inner: int):
                lanes = lanes_at(j * self.isa.lanes, self.isa.lanes)
                return self.weight[out_tile, 0, kh, kw, outer * unrolled + inner, lanes]

            registers.multiply_add(unrolled, activation, weight, None)
