"""Schedule ``nchw_spatial_pack`` for a dense layer on several images, fp32, int8 and int16.

Loop nest: that of `conv2d_nchw_spatial_pack` with the images of the batch in the place of the
pixels of a row::

    parallel over tiles of output channels
      tile of images
        accumulators in registers: [images][vectors of output channels], started with the bias
        for block of input channels, step in the block
          unrolled: every image's activation, broadcast, times every vector of weights
        epilogue on the registers, one store

Packing: as for a 1x1 convolution.

What limits it: at batch 1 (which the direct schedule takes) memory, as every weight is used once;
each tile of images reads the weights once, so from a few images on the multiply units do.

Ideal speedup over scalar fp32: that of `conv2d_nchw_spatial_pack`; see `ideal`.

Source: our own; a GEMM with a register tile as in `conv2d_nchw_spatial_pack`.
"""

from __future__ import annotations

from dataclasses import replace

import tvm

from .conv2d_nchw_spatial_pack import NAME, DirectConv2d
from .dot_choice import dot_for_all
from .epilogue import conv_arguments
from .intrinsics import DotProduct, InstructionSet
from .pack import pack_conv
from .registry import Implementation, register
from .row_tiles import RowTiles
from .spec import ConvSpec, ConvWeights
from .tile import Tile, choose_tile, ranked_tiles
from .tir import T, prim_func
from .weight_store import bits_of_panels, stored
from .window_sums import instructions


def applies(spec: ConvSpec) -> bool:
    """Whether it is a dense layer of a batch known at compile time, in whole steps."""
    return spec.is_batched_dense and spec.data.block % spec.taps == 0


def images_as_row(spec: ConvSpec) -> ConvSpec:
    """The layer as a 1x1 convolution of one image, whose row holds the images of the batch."""
    data, out = (replace(tensor, width=spec.batch) for tensor in (spec.data, spec.out))
    return replace(spec, batch=1, data=data, out=out)


def tiles(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing, the most promising first."""
    if not applies(spec):
        return []
    return ranked_tiles(images_as_row(spec), isa, dot_for_all(spec, weights, isa))


@register(NAME, precisions=("fp32", "int8", "int16"), tiles=tiles, weight_zero_points=True)
def dense_spatial_pack(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Dense layer, register tiles of output channels by images."""
    if not applies(spec):
        return None
    dot = dot_for_all(spec, weights, isa)
    tile = tile or choose_tile(images_as_row(spec), isa, dot)
    panels = pack_conv(spec, weights.weight, tile.vectors * isa.lanes)
    bits = bits_of_panels(panels, spec)
    return Implementation(
        schedule=NAME,
        instructions=instructions(spec, dot.name if dot else "fp32 multiply-add"),
        key=("dense", spec, isa.name, dot.name if dot else None, tile, bits),
        build=lambda: build(spec, isa, dot, tile, bits),
        arguments=conv_arguments(spec, weights, [stored(panels, bits, isa)]),
        tile=tile,
    )


def build(
    spec: ConvSpec, isa: InstructionSet, dot: DotProduct | None, tile: Tile, bits: int
) -> tvm.tirx.PrimFunc:
    """The layer as a PrimFunc.

    Arguments: data, weight, bias, [multiplier], [residual], bounds, output.
    """
    return prim_func(lambda: _Dense(spec, isa, dot, tile, bits).emit())


class _Dense(DirectConv2d):
    """A direct convolution whose pixels are the images of the batch."""

    def __init__(
        self, spec: ConvSpec, isa: InstructionSet, dot: DotProduct | None, tile: Tile, bits: int
    ):
        super().__init__(spec, isa, dot, tile, bits=bits)
        row = images_as_row(spec)
        self.rows = RowTiles(row.data, row.out, row.window, tile.pixels)
        self.oh = 0

    def _emit_tasks(self, _batch) -> None:
        with T.parallel(self.out_tiles) as self.out_tile:
            self.weights.select(self.out_tile)
            if self.sums:
                self.sums.emit_images(self.data)
            self.rows.emit(self._emit_tile)

    def _position(self, i: int) -> tuple:
        return self.start + i, 0, 0
