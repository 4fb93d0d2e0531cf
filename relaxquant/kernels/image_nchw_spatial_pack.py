"""Schedule ``nchw_spatial_pack`` for the first convolution of a network: an image, int8.

Loop nest: that of `conv2d_nchw_spatial_pack`, with a whole kernel row in one step sequence::

    parallel over (image, tile of output channels, output row)
      tile of output pixels in the row
        accumulators in registers, started with the bias
        for kernel row
          unrolled over fours of bytes of the kernel row: every pixel's four, broadcast, times every
          vector of weights
        epilogue on the registers, one store

Packing: the image as NHWC with its zero points around it (`TensorSpec.halo`, written by the
conversion that quantizes it), so that a kernel row is ``KW * C`` neighbouring bytes; they are cut
into fours for the dot product wherever the pixels' borders lie. Weights (O tiles, KH, fours,
channels of the tile * 4), zero where the last four reaches past the row.

What limits it: the multiply units. A 7x7 kernel on 3 channels takes 6 fours a row instead of the 7
of a layout that pads every pixel to four channels; a 3x3 kernel gains nothing.

Ideal speedup over scalar fp32: that of `conv2d_nchw_spatial_pack`, times ``KW * C`` over four times
its fours, for the bytes of padding; see `ideal`.

Source: our own; the idea of reading kernel rows as flat memory is that of the implicit im2col of
Dukhan, "The Indirect Convolution Algorithm" (2019), and of oneDNN's first-convolution kernels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tvm

from .conv2d_nchw_spatial_pack import NAME, DirectConv2d
from .dot_choice import straight_steps
from .epilogue import conv_arguments
from .intrinsics import DotProduct, InstructionSet
from .registry import Implementation, register
from .row_tiles import RowTiles
from .spec import ConvSpec, ConvWeights, TensorSpec, Window
from .tile import Tile, choose_tile, ranked_tiles
from .tir import T, ceildiv, lanes_at, prim_func
from .weight_store import bits_of_panels, stored
from .window_sums import instructions


def applies(spec: ConvSpec) -> bool:
    """Whether the data is an image with a halo, in int8."""
    return spec.precision == "int8" and spec.data.halo is not None and spec.groups == 1


def halo(data: TensorSpec, window: Window) -> tuple[int, int, int, int] | None:
    """The halo an image needs for this schedule; None where the schedule saves nothing.

    Parameters
    ----------
    data : TensorSpec
        The image, without a halo.
    window : Window
        Of the convolution that reads it.

    Returns
    -------
    tuple of int, optional
        Top, left, bottom, right. The right side holds what the last four of the last pixel reads.
    """
    channels, fours = data.channels, _fours(data.channels, window)
    if fours >= window.kernel[1] or window.dilation != (1, 1):
        return None
    top, left, bottom, right = window.padding
    _, out_width = window.output_size(data.height, data.width)
    read = (out_width - 1) * window.strides[1] * channels + 4 * fours
    return top, left, bottom, max(right, ceildiv(read, channels) - left - data.width)


def _fours(channels: int, window: Window) -> int:
    return ceildiv(window.kernel[1] * channels, 4)


def row_fours(weight: np.ndarray) -> np.ndarray:
    """(O, C, KH, KW) int8 to (O, KH, fours, 4): kernel rows as they meet the bytes of the image."""
    out_channels, _, height, _ = weight.shape
    rows = weight.transpose(0, 2, 3, 1).reshape(out_channels, height, -1)
    padding = -rows.shape[-1] % 4
    return np.pad(rows, ((0, 0), (0, 0), (0, padding))).reshape(out_channels, height, -1, 4)


def pack_rows(spec: ConvSpec, weight: np.ndarray, tile_channels: int) -> np.ndarray:
    """Weights as (O tiles, 1, KH, 1, fours, tile_channels * 4), output channels zero-padded."""
    fours = row_fours(weight)
    padded = np.zeros((spec.out.padded_channels, *fours.shape[1:]), weight.dtype)
    padded[: len(fours)] = fours
    split = padded.reshape(-1, tile_channels, *fours.shape[1:]).transpose(0, 2, 3, 1, 4)
    return np.ascontiguousarray(split.reshape(len(split), 1, fours.shape[1], 1, fours.shape[2], -1))


def dot_product(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> DotProduct:
    """The fastest dot product that is exact for the layer's weights."""
    fours = row_fours(weights.weight)
    return isa.dot_for(fours, spec.data.largest, straight_steps(fours.shape[2]))


def tiles(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing, the most promising first."""
    return ranked_tiles(spec, isa, dot_product(spec, weights, isa)) if applies(spec) else []


@register(NAME, precisions=("int8",), tiles=tiles, weight_zero_points=True)
def image_spatial_pack(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Direct convolution of an image, kernel rows read as flat memory."""
    if not applies(spec):
        return None
    dot = dot_product(spec, weights, isa)
    tile = tile or choose_tile(spec, isa, dot)
    panels = pack_rows(spec, weights.weight, tile.vectors * isa.lanes)
    bits = bits_of_panels(panels, spec)
    return Implementation(
        schedule=NAME,
        instructions=instructions(spec, dot.name),
        key=("image", spec, isa.name, dot.name, tile, bits),
        build=lambda: build(spec, isa, dot, tile, bits),
        arguments=conv_arguments(spec, weights, [stored(panels, bits, isa)]),
        tile=tile,
    )


def build(
    spec: ConvSpec, isa: InstructionSet, dot: DotProduct, tile: Tile, bits: int
) -> tvm.tirx.PrimFunc:
    """The convolution as a PrimFunc. Arguments: data, weight, bias, multiplier, ..., output."""
    return prim_func(lambda: _ImageConv2d(spec, isa, dot, tile, bits=bits).emit())


class _ImageConv2d(DirectConv2d):
    """A direct convolution whose kernel is one column wide and a kernel row deep."""

    def __init__(self, spec: ConvSpec, isa: InstructionSet, dot: DotProduct, tile: Tile, bits: int):
        super().__init__(spec, isa, dot, tile, bits=bits)
        window = spec.window
        self.kernel = (window.kernel[0], 1)
        self.steps = _fours(spec.data.channels, window)
        # With the border in memory every tap of every tile is inside.
        top, left, bottom, right = spec.data.halo
        height, width = spec.data.height + top + bottom, spec.data.width + left + right
        whole = replace(spec.data, height=height, width=width, halo=None)
        self.rows = RowTiles(whole, spec.out, Window(self.kernel, window.strides), tile.pixels)

    def _activation(self, block, kh, kw, step, i: int):
        strides = self.spec.window.strides
        ih, iw = self.oh * strides[0] + kh, (self.start + i) * strides[1]
        return T.reinterpret("int32", self.data[self.n, 0, ih, iw, lanes_at(4 * step, 4)])
