"""Schedule ``nchw_simd``: direct int8 convolution in plain vector arithmetic, no dot product.

Loop nest::

    parallel over (image, tile of output channels, output row)
      tile of output pixels in the row
        accumulators in registers: [pixels][vectors of output channels], started with the bias
        for block of input channels, kernel row, kernel column, input channel
          unrolled: every pixel's activation, widened to int32 and broadcast, times every vector of
                    weights, widened to int32; multiply, then add
        epilogue on the registers, one store

Packing: activations (N, C/16, H, W, 16), weights as `pack_conv` lays them with one input channel a
step. Both stay bytes in memory and are widened when loaded.

What limits it: a multiplication and an addition for each vector of accumulators, where the dot
product of four does four times the work in one to three instructions and fp32 multiplies and adds
in one. It is what int8 costs a compiler that is told of no dot product: less memory traffic than
fp32, and no less arithmetic. LLVM sees that both factors fit 16 bits and multiplies them by
``vpmaddwd`` with every second product zero, or, where the CPU has VNNI, multiplies and adds by
``vpdpwssd`` in the same way: one MAC a 32-bit lane all the same.

Ideal speedup over scalar fp32: the lanes of a vector over the two instructions, or over the one
that VNNI and NEON make of them; see `ideal`.

Source: the study compares a schedule of this name (arXiv 2308.10905, Table 2) without printing it.
The nearest by name in TVM up to 0.17 is ``topi/arm_cpu/cortex_m7/conv2d/direct_simd.py``, for
microcontrollers. What is kept of the idea: direct loops over NCHW, narrow integers widened when
multiplied, sums in 32 bits, no tensorized dot product. What differs: vectors run over the output
channels of NCHW16c and not along the width of plain NCHW, so that a network can mix the schedule
with others without changing layout, and strides cost nothing.
"""

from __future__ import annotations

import tvm

from .epilogue import Epilogue, conv_arguments
from .intrinsics import InstructionSet
from .pack import border_correction, pack_conv
from .register_tile import RegisterTile
from .registry import Implementation, register
from .row_tiles import RowTiles
from .spec import ConvSpec, ConvWeights
from .tile import Tile, choose_tile, ranked_tiles
from .tir import T, arg, batch_extent, lanes_at, prim_func

NAME = "nchw_simd"


def applies(spec: ConvSpec) -> bool:
    """Whether groups lie in whole blocks, and no halo around an image, which is not read here."""
    if spec.data.halo:
        return False
    return spec.groups_are_whole_blocks


def tiles(spec: ConvSpec, _weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing; a step needs the registers of an fp32 tile, best first."""
    return ranked_tiles(spec, isa, None)


@register(NAME, precisions=("int8",), tiles=tiles)
def nchw_simd(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """int8 convolution by widening multiplications and additions."""
    if spec.precision != "int8" or not applies(spec):
        return None
    tile = tile or choose_tile(spec, isa, None)
    packed = [pack_conv(spec, weights.weight, tile.vectors * isa.lanes, taps=1)]
    if spec.pads_with_zero_point:
        packed.append(border_correction(spec, weights.weight))
    return Implementation(
        schedule=NAME,
        instructions="int32 multiply-add",
        key=(NAME, spec, isa.name, tile),
        build=lambda: build(spec, isa, tile),
        arguments=conv_arguments(spec, weights, packed),
        tile=tile,
    )


def build(spec: ConvSpec, isa: InstructionSet, tile: Tile) -> tvm.tirx.PrimFunc:
    """The convolution as a PrimFunc.

    Arguments: data, weight, [border], bias, multiplier, [residual], bounds, output.
    """
    return prim_func(lambda: _Conv2d(spec, isa, tile).emit())


class _Conv2d:
    """Emits one convolution; the methods follow the loop nest from outside in."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile):
        self.spec, self.isa, self.tile = spec, isa, tile
        self.rows = RowTiles(spec.data, spec.out, spec.window, tile.pixels)
        self.tile_channels = tile.vectors * isa.lanes
        self.out_tiles = spec.out.padded_channels // self.tile_channels
        self.group_blocks = spec.data.blocks // spec.groups

    def emit(self) -> None:
        """Arguments, then the parallel loop over images, channel tiles and output rows."""
        spec, kernel = self.spec, self.spec.window.kernel
        batch = batch_extent(spec.batch)
        self.data = arg("data", spec.data.physical_shape(batch), "uint8")
        steps = (self.group_blocks, *kernel, spec.data.block)
        self.weight = arg("weight", (self.out_tiles, *steps, self.tile_channels), "int8")
        if spec.pads_with_zero_point:
            border = (kernel[0], kernel[1] + 1, spec.out.padded_channels)
            self.border = arg("border", border, "int32")
        self.epilogue = Epilogue(spec, self.isa, batch)
        height = spec.out.height
        with T.parallel(batch * self.out_tiles * height) as task:
            self.n = task // (self.out_tiles * height)
            self.out_tile = task // height % self.out_tiles
            self.oh = task % height
            self.rows.emit(self._emit_tile)

    def _emit_tile(self, start, width: int, edge: int | None) -> None:
        self.start = start
        channel = self.out_tile * self.tile_channels
        tile = Tile(self.tile.vectors, width)
        self.registers = RegisterTile(self.isa, tile, self.epilogue, channel)
        if self.spec.pads_with_zero_point:
            self.rows.missing_taps(self.oh, width, edge, self._emit_missing_tap)
        with T.serial(self.group_blocks) as block:
            self.rows.taps(
                self.oh,
                width,
                edge,
                lambda kh, kw, first, last: self._emit_tap(block, kh, kw, first, last),
            )
        self.registers.finish(lambda i: (self.n, self.oh, start + i))

    def _emit_missing_tap(self, kh, kw, first: int, last: int) -> None:
        def corrected(acc, _i: int, j: int):
            return acc + self.border[kh, kw, self._lanes(self.registers.channel_of(j))]

        self.registers.update(corrected, first, last)

    def _emit_tap(self, block, kh, kw, first: int, last: int) -> None:
        wide = f"int32x{self.isa.lanes}"
        # Four channels at a time keep the loop's own cost away and the code small.
        unrolled = min(self.spec.data.block, 4)
        with T.serial(self.spec.data.block // unrolled) as outer:
            for inner in range(unrolled):
                step = outer * unrolled + inner

                def multiply_add(acc, i: int, j: int, step=step):
                    lanes = self._lanes(j * self.isa.lanes)
                    weight = T.cast(self.weight[self.out_tile, block, kh, kw, step, lanes], wide)
                    x = T.cast(self._activation(block, kh, kw, step, i), "int32")
                    return acc + T.broadcast(x, self.isa.lanes) * weight

                self.registers.update(multiply_add, first, last)

    def _activation(self, block, kh, kw, step, i: int):
        """One uint8; ``block`` counts within the group."""
        window, data = self.spec.window, self.spec.data
        if self.spec.groups > 1:
            out_group = self.spec.out.channels // self.spec.groups
            block = block + self.registers.channel // out_group * self.group_blocks
        ih = self.oh * window.strides[0] - window.padding[0] + kh * window.dilation[0]
        iw = (self.start + i) * window.strides[1] - window.padding[1] + kw * window.dilation[1]
        return self.data[tuple(data.element_at(self.n, block * data.block + step, ih, iw))]

    def _lanes(self, first):
        return lanes_at(first, self.isa.lanes)
