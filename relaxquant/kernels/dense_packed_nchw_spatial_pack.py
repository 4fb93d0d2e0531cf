"""Schedule ``nchw_spatial_pack`` for a dense layer on one image, weights of 1 to 7 bits.

Loop nest::

    parallel over (image, tile of output channels)
      accumulators in registers: one pixel by vectors of output channels, started with the bias
      for group of weights
        decoded in registers; every vector times its step's activation, broadcast
      epilogue on the registers, one store

Packing: weights as for a 1x1 convolution, then `weight_bits.pack`.

What limits it: memory, as every weight is used once, until decoding takes longer than reading does
(three instructions for each vector of 4 bits, up to nine for one of 7). So nothing is decoded into
memory first, as the direct schedule does. Measured on Zen 4 with VNNI, weights of 2 and 16 million
in the L3 cache: 1.6 to 2 times as fast as int8 for 1, 2 and 4 bits, 1.1 to 1.3 for 3, 5 and 6, and
0.85 for 7.

Ideal speedup over scalar fp32: that of `conv2d_nchw_spatial_pack`; see `ideal`.

Source: our own.
"""

from __future__ import annotations

from math import lcm

import tvm

from .conv2d_nchw_spatial_pack import NAME, DirectConv2d, tiles
from .dot_choice import dot_for_all
from .epilogue import conv_arguments
from .intrinsics import DotProduct, InstructionSet
from .pack import pack_conv
from .registry import Implementation, register
from .spec import ConvSpec, ConvWeights
from .tile import Tile, choose_tile
from .tir import T, lanes_at, prim_func
from .weight_bits import decode, group_size
from .weight_store import WHOLE, bits_of_panels, stored


def applies(spec: ConvSpec) -> bool:
    """Whether it is an int8 dense layer of which each task sees one image."""
    sizes = {spec.data.height, spec.data.width, *spec.window.kernel}
    is_dense = sizes == {1} and not any(spec.window.padding) and spec.groups == 1
    in_fours = spec.precision == "int8" and spec.data.block % 4 == 0 and not spec.data.halo
    return is_dense and in_fours and not spec.is_batched_dense


@register(NAME, precisions=("int8",), tiles=tiles)
def dense_packed(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Dense layer of one image whose weights need fewer than eight bits."""
    if not applies(spec):
        return None
    dot = dot_for_all(spec, weights, isa)
    tile = tile or choose_tile(spec, isa, dot)
    panels = pack_conv(spec, weights.weight, tile.vectors * isa.lanes)
    bits = bits_of_panels(panels, spec)
    if bits == WHOLE:
        return None
    return Implementation(
        schedule=NAME,
        instructions=dot.name,
        key=("dense_packed", spec, isa.name, dot.name, tile, bits),
        build=lambda: build(spec, isa, dot, tile, bits),
        arguments=conv_arguments(spec, weights, [stored(panels, bits, isa)]),
        tile=tile,
    )


def build(
    spec: ConvSpec, isa: InstructionSet, dot: DotProduct, tile: Tile, bits: int
) -> tvm.tirx.PrimFunc:
    """The layer as a PrimFunc. Arguments: data, weight, bias, multiplier, ..., output."""
    return prim_func(lambda: _DensePacked(spec, isa, dot, tile, bits=bits).emit())


class _DensePacked(DirectConv2d):
    """A direct convolution of a single pixel that decodes weights where it multiplies them."""

    def _emit_tasks(self, batch) -> None:
        with T.parallel(batch * self.out_tiles) as task:
            self.n, self.out_tile, self.oh = task // self.out_tiles, task % self.out_tiles, 0
            self._emit_tile(0, 1, None)

    def _emit_reduction(self, _width: int, _edge: int | None) -> None:
        vectors, chain = self.tile.vectors, self.dot.chain
        # The fewest steps that are whole chains and whose weights are whole groups.
        unit = lcm(group_size(self.bits), vectors * chain) // vectors
        steps = self.group_blocks * self.steps
        with T.serial(steps // unit) as i:
            self._emit_steps_from(i * unit, unit)
        if steps % unit:
            self._emit_steps_from(steps - steps % unit, steps % unit)

    def _emit_steps_from(self, first, count: int) -> None:
        vectors, chain = self.tile.vectors, self.dot.chain
        weights = self._decoded(first * vectors, count * vectors)
        for start in range(0, count, chain):
            links = range(start, start + chain)
            xs = [self._activation(*self._place(first + link), 0) for link in links]
            for j in range(vectors):
                ws = [weights[link * vectors + j] for link in links]
                self._set(0, j, self.dot.accumulate(self._get(0, j), xs, ws))

    def _place(self, step) -> tuple:
        """Block, tap and step in the block."""
        return step // self.steps, 0, 0, step % self.steps

    def _decoded(self, first, count: int) -> list:
        """``count`` vectors of the tile's weights, from ``first``, which starts a group."""
        group, every = group_size(self.bits), lanes_at(0, 4 * self.isa.lanes)
        packed, decoded = self.weights.weight, []
        for start in range(0, count, group):
            at = self.out_tile, (first + start) // group

            def load(k, at=at):
                return packed[(*at, k, every)]

            decoded += map(T.bind, decode(load, self.bits, self.isa.lanes))
        return decoded
