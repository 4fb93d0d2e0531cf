"""Schedule ``nchw_spatial_pack`` with sums in int16, for few bits of weights and activations.

Loop nest: that of `conv2d_nchw_spatial_pack`, the int32 accumulators outside of int16 ones::

    parallel over (image, tile of output channels, output rows)
      tile of output pixels in the row
        int32 sums, started with the bias
        for run of blocks of input channels
          accumulators in registers, int16: [pixels][vectors of output channels]
          for block of the run, kernel row, kernel column, step in the block
            every pixel's activation, broadcast, times every vector of weights
          widened and added to the int32 sums
        epilogue on the sums, one store

Packing: as `conv2d_nchw_spatial_pack`.

What limits it: the multiply units and the instructions that reach them, two for each four of input
channels instead of the 2.25 of a chain of four and three without one. How long a run may be is
proven from the weights and from the largest activation, see `short_sums`. Where
AVX2 is all there is, the layers that gain are those of 3 x 3, from 4-bit activations on whatever
the weights, from 4-bit weights on for 8-bit activations; and 1 x 1 of many channels at 4 by 4 bits.
Measured on Zen 4, one core, GMAC/s: 160 to 170 for 3 x 3, 145 for 1 x 1, where chains of four
reach 120 to 140 and registers alone 188. With AVX-512 but no VNNI the gain was 5 %, with VNNI
there is none: one instruction does it all.

Ideal speedup over scalar fp32: that of `conv2d_nchw_spatial_pack`, times up to 1.125; see `ideal`.

Source: our own; XNNPACK, oneDNN and gemmlowp (``L8R8WithLhsNonzeroBitDepthParams``) sum a few
products in 16 bits.
"""

from __future__ import annotations

import tvm

from .conv2d_nchw_spatial_pack import NAME, DirectConv2d, applies
from .epilogue import conv_arguments
from .intrinsics import InstructionSet
from .pack import border_correction, pack_conv
from .registry import Implementation, register
from .short_sums import fours_of_block, run_of
from .spec import ConvSpec, ConvWeights
from .tile import Tile, vector_counts
from .tir import T, ceildiv, lanes_at, local, prim_func, splat, store
from .weight_store import bits_of_panels, stored


def ranked_tiles(spec: ConvSpec, isa: InstructionSet) -> list[Tile]:
    """Register tiles, those of the fewest instructions for a whole output row first.

    An addition to int16 takes one cycle, so that no number of accumulators must be under way; what
    counts beside the multiply-adds is loads.
    """
    registers = isa.short_sums.tile_registers

    def merit(tile: Tile) -> tuple[float, int]:
        whole, rest = divmod(spec.out.width, tile.pixels)
        widths = [tile.pixels] * whole + [rest] * (rest > 0)
        count = sum(2 * tile.vectors * w + tile.vectors + w for w in widths)
        return count / tile.vectors, tile.vectors

    possible = [
        Tile(vectors, pixels)
        for vectors in vector_counts(spec, isa)
        for pixels in range(1, min(registers // vectors - 1, spec.out.width) + 1)
    ]
    return sorted(possible, key=merit)


def tiles(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing, the most promising first."""
    return ranked_tiles(spec, isa) if run_of(spec, weights, isa) else []


@register(NAME, precisions=("int8",), tiles=tiles)
def short_spatial_pack(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Direct convolution whose weights and activations are small enough for long int16 sums."""
    run = run_of(spec, weights, isa)
    if not run or not applies(spec):
        return None
    tile = tile or ranked_tiles(spec, isa)[0]
    panels = pack_conv(spec, weights.weight, tile.vectors * isa.lanes)
    bits = bits_of_panels(panels, spec)
    packed = [stored(panels, bits, isa)]
    if spec.pads_with_zero_point:
        packed.append(border_correction(spec, weights.weight))
    return Implementation(
        schedule=NAME,
        instructions=f"{run * fours_of_block(spec)} x {isa.short_sums.name}",
        key=("short", spec, isa.name, tile, bits, run),
        build=lambda: build(spec, isa, tile, bits, run),
        arguments=conv_arguments(spec, weights, packed),
        tile=tile,
    )


def build(
    spec: ConvSpec, isa: InstructionSet, tile: Tile, bits: int, run: int
) -> tvm.tirx.PrimFunc:
    """The convolution as a PrimFunc; arguments as `conv2d_nchw_spatial_pack.build`."""
    return prim_func(lambda: _ShortConv2d(spec, isa, tile, bits, run).emit())


class _ShortConv2d(DirectConv2d):
    """A direct convolution with accumulators of int16 between those of int32 and the products."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile, bits: int, run: int):
        super().__init__(spec, isa, isa.dots[0], tile, bits=bits)
        self.run, self.adder = run, isa.short_sums
        self.every = lanes_at(0, 2 * isa.lanes)

    def _emit_reduction(self, width: int, edge: int | None) -> None:
        blocks, run = self.group_blocks, self.run
        whole = self._pixels_and_vectors(0, width)
        self.short = {at: local(2 * self.isa.lanes, "int16") for at in whole}
        with T.serial(ceildiv(blocks, run)) as part:
            for at in whole:
                store(self.short[at], [self.every], splat(0, "int16", 2 * self.isa.lanes))
            first = part * run
            with T.serial(T.min(run, blocks - first) if blocks % run else run) as inner:
                self._emit_block(first + inner, width, edge)
            for i, j in whole:
                self._set(i, j, self.adder.widen(self._get(i, j), self.short[i, j][self.every]))

    def _emit_steps(self, _dot, block, kh, kw, first: int, last: int) -> None:
        # Were the number of steps known to LLVM, it would unroll them, add the steps' products
        # first, pixel after pixel, and run out of registers: half as fast. It is what it looks
        # like, as no image has a negative number.
        size = 4 * self.isa.lanes
        with T.serial(T.min(self.steps, self.n + self.steps)) as step:
            for i, j in self._pixels_and_vectors(first, last):
                short, x = self.short[i, j], self._activation(block, kh, kw, step, i)
                w = self.weights.read((block, kh, kw, step), j * size, size)
                store(short, [self.every], self.adder.add(short[self.every], x, w))
