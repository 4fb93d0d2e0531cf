"""Schedule ``nhwc_quantized_interleaved``: im2col and a GEMM on interleaved panels, int8.

Loop nest::

    parallel over (image, chunk of output channels, block of output pixels)
      gather: the block's rows of the im2col matrix, interleaved, zero point outside the image
      for tile of output channels in the chunk, group of `pixels` rows in the block
        accumulators in registers: [pixels][vectors of output channels], started with the bias
        for 16 values of k
          unrolled over their fours: every row's four, broadcast, dotted with all vectors of weights
        epilogue on the registers, one store

The convolution is C = A * B: A is (output pixels, k) with k over kernel row, kernel column and
input channel, B is (k, output channels). With a static batch the pixels of all images are the rows
of one A.

Packing: A is never formed whole. A task gathers a panel of it, (groups of rows, k / 16, rows,
16): all that a group of rows needs for sixteen values of k lies together, so that the inner loop
reads A and B as two contiguous streams. B is packed at compile time, `pack_conv`. An image of four
channels is gathered by fours of k.

Zero points: a tap outside the image is gathered as the zero point, and all of it is then taken out
of the bias at once (`corrected_bias`); the inner loop knows nothing of either.

What limits it: the dot products, after the gather, which writes every activation KH * KW times and
is done again for each chunk of output channels. Against ``nchw_spatial_pack`` the inner loop is the
same; the gather is what the layout costs. Where few output channels share a panel it shows.

Ideal speedup over scalar fp32: four MACs a lane over the instructions of the dot product; `ideal`.

Source: ``topi/arm_cpu/conv2d_gemm.py`` (Apache TVM up to 0.17), whose A is interleaved by 4 rows
x 16 values; gemmlowp (Jacob and Warden), ``doc/packing.md``. There im2col is a pass of its own over
the whole image, and the zero point is padded in memory; here both are part of the panel.
"""

from __future__ import annotations

from dataclasses import replace

import tvm

from .blocking import channel_chunks, split, start_of
from .epilogue import Epilogue, conv_arguments
from .intrinsics import DotProduct, InstructionSet
from .pack import channel_quads, pack_conv
from .register_tile import RegisterTile
from .registry import Implementation, register
from .spec import NHWC, ConvSpec, ConvWeights
from .tile import Tile, choose_tile, ranked_tiles
from .tir import T, arg, batch_extent, ceildiv, lanes_at, prim_func, splat, store

NAME = "nhwc_quantized_interleaved"
# Rows that the choice of a register tile looks at: more than enough to weigh the last, part one.
ROWS = 256


def applies(spec: ConvSpec) -> bool:
    """Whether all channels lie in one block, in fours, and make one group."""
    one_block = spec.data.blocks == spec.out.blocks == 1
    return spec.groups == 1 and one_block and spec.data.block % 4 == 0


def run_of(spec: ConvSpec) -> int:
    """Values of k that a row of the panel holds side by side."""
    return 16 if spec.data.block % 16 == 0 else 4


def dot_product(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> DotProduct:
    """The fastest dot product that is exact for the layer's weights."""
    run = run_of(spec)
    return isa.dot_for(channel_quads(weights.weight, run), spec.data.largest, run // 4)


def tiles(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing, the most promising first."""
    return ranked_tiles(_as_rows(spec), isa, dot_product(spec, weights, isa))


@register(NAME, precisions=("int8",), tiles=tiles, layout=NHWC)
def quantized_interleaved(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """im2col and a GEMM on interleaved panels."""
    if spec.precision != "int8" or not applies(spec):
        return None
    dot = dot_product(spec, weights, isa)
    tile = tile or choose_tile(_as_rows(spec), isa, dot)
    tile = Tile(tile.vectors, min(tile.pixels, _rows(spec)))
    packed = pack_conv(spec, weights.weight, tile.vectors * isa.lanes)
    return Implementation(
        schedule=NAME,
        instructions=dot.name,
        key=(NAME, spec, isa.name, dot.name, tile),
        build=lambda: build(spec, isa, dot, tile),
        arguments=conv_arguments(spec, weights, [packed]),
        tile=tile,
    )


def build(spec: ConvSpec, isa: InstructionSet, dot: DotProduct, tile: Tile) -> tvm.tirx.PrimFunc:
    """The convolution as a PrimFunc.

    Arguments: data, weight, bias, multiplier, [residual], bounds, output.
    """
    return prim_func(lambda: _Gemm(spec, isa, dot, tile).emit())


def _rows(spec: ConvSpec) -> int:
    """Rows of A: pixels of one image, or of all where their number is known."""
    return (spec.batch or 1) * spec.out.height * spec.out.width


def _as_rows(spec: ConvSpec) -> ConvSpec:
    """The layer as the choice of a register tile sees it: a single row of output pixels."""
    out = replace(spec.out, height=1, width=min(_rows(spec), ROWS))
    return replace(spec, out=out)


class _Gemm:
    """Emits one convolution; the methods follow the loop nest from outside in."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, dot: DotProduct, tile: Tile):
        self.spec, self.isa, self.dot, self.tile = spec, isa, dot, tile
        self.tile_channels = tile.vectors * isa.lanes
        self.out_tiles = spec.out.padded_channels // self.tile_channels
        self.rows = _rows(spec)
        self.run = run_of(spec)
        self.runs_per_tap = spec.data.block // self.run
        self.runs = spec.window.kernel[0] * spec.window.kernel[1] * self.runs_per_tap
        self.groups = ceildiv(self.rows, tile.pixels)
        self.groups_per_block = split(self.groups, self.runs * self.run * tile.pixels)

    def emit(self) -> None:
        """Arguments, then the parallel loop over images, chunks of channels and blocks of rows."""
        spec = self.spec
        batch = batch_extent(spec.batch)
        self.data = arg("data", spec.data.physical_shape(batch), "uint8")
        self.weight = arg(
            "weight",
            (self.out_tiles, 1, *spec.window.kernel, spec.data.block // 4, self.tile_channels * 4),
            "int8",
        )
        self.epilogue = Epilogue(spec, self.isa, batch)
        images = batch if spec.batch is None else 1
        blocks = ceildiv(self.groups, self.groups_per_block)
        chunks = channel_chunks(self.out_tiles, blocks)
        with T.parallel(images * chunks * blocks) as task:
            self.image = task // (chunks * blocks)
            chunk, self.first_group = task // blocks % chunks, task % blocks * self.groups_per_block
            self.panel = T.alloc_buffer(
                (self.groups_per_block, self.runs, self.tile.pixels, self.run), "uint8"
            )
            count = T.min(self.groups_per_block, self.groups - self.first_group)
            with T.serial(count) as group, T.serial(self.tile.pixels) as i:
                self._emit_gather(group, i)
            per_chunk = self.out_tiles // chunks
            with T.serial(per_chunk) as part, T.serial(count) as group:
                self._emit_tile(chunk * per_chunk + part, group)

    def _position(self, group, i) -> tuple:
        """Image, output row and output column of row ``i`` of a group of the block."""
        height, width = self.spec.out.height, self.spec.out.width
        row = start_of(self.first_group + group, self.tile.pixels, self.rows) + i
        n = self.image if self.spec.batch is None else row // (height * width)
        return n, row // width % height, row % width

    def _emit_gather(self, group, i) -> None:
        window, data = self.spec.window, self.spec.data
        n, oh, ow = self._position(group, i)
        with T.serial(window.kernel[0]) as kh, T.serial(window.kernel[1]) as kw:
            ih = oh * window.strides[0] - window.padding[0] + kh * window.dilation[0]
            iw = ow * window.strides[1] - window.padding[1] + kw * window.dilation[1]
            inside = T.And(T.And(ih >= 0, ih < data.height), T.And(iw >= 0, iw < data.width))
            first = (kh * window.kernel[1] + kw) * self.runs_per_tap
            if not any(window.padding):
                self._copy(group, i, first, (n, ih, iw))
                return
            with T.If(inside):
                with T.Then():
                    self._copy(group, i, first, (n, ih, iw))
                with T.Else():
                    self._copy(group, i, first, None)

    def _copy(self, group, i, first, source: tuple | None) -> None:
        """A pixel's channels into the panel, or the zero point where there is no pixel."""
        data = self.spec.data
        with T.serial(self.runs_per_tap) as part:
            value = splat(data.zero_point, "uint8", self.run)
            if source is not None:
                n, ih, iw = source
                at = data.vector_at(n, part * self.run, ih, iw, self.run)
                value = self.data[tuple(at)]
            store(self.panel, [group, first + part, i, lanes_at(0, self.run)], value)

    def _emit_tile(self, out_tile, group) -> None:
        registers = RegisterTile(self.isa, self.tile, self.epilogue, out_tile * self.tile_channels)
        (rows, columns), size = self.spec.window.kernel, self.isa.lanes * 4
        with T.serial(rows) as kh, T.serial(columns) as kw, T.serial(self.runs_per_tap) as part:
            run = (kh * columns + kw) * self.runs_per_tap + part

            def activation(i: int, four: int):
                return T.reinterpret("int32", self.panel[group, run, i, lanes_at(four * 4, 4)])

            def weight(j: int, four: int):
                step = part * (self.run // 4) + four
                return self.weight[out_tile, 0, kh, kw, step, lanes_at(j * size, size)]

            registers.multiply_add(self.run // 4, activation, weight, self.dot)
        registers.finish(lambda i: self._position(group, i))
