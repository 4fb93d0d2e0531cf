"""The loop nest of the Winograd schedules, fp32 and int16; that of bytes builds on it.

::

    parallel over (part of the output channels, group of tiles)
      for tile of the group, block of input channels
        inputs -> B^T d B -> V[point][tile][input channel]
      for register tile of output channels
        for point
          for register tile of tiles
            accumulators in registers: [tiles][vectors of output channels]
            for input channel: every tile's V, broadcast, times every vector of weights
            -> M[point][tile][output channel]
        for tile of the group
          A^T M A -> bias, epilogue, stores of the outputs that lie in the image

V and M are private to a thread and small enough for its L2 cache. Tiles are numbered through all
images of the batch, so that a group of several small images shares one pass over the weights.
Tiles at the border of the image are copied first, with the zero point where the image ends.
"""

from __future__ import annotations

from collections.abc import Callable

import tvm

from .epilogue import Epilogue
from .intrinsics import InstructionSet
from .prefetch import WeightPrefetch
from .spec import ConvSpec
from .tir import (
    BLOCK,
    T,
    arg,
    batch_extent,
    ceildiv,
    lanes_at,
    local,
    prim_func,
    splat,
    store,
    tensor_arg,
)
from .winograd import Transform, apply
from .winograd_plan import Arithmetic, Plan

UNROLL = 4  # steps of the reduction, so that the loop's own cost does not show


def build(
    spec: ConvSpec, isa: InstructionSet, transform: Transform, arithmetic: Arithmetic, plan: Plan
) -> tvm.tirx.PrimFunc:
    """The convolution as a PrimFunc.

    Parameters
    ----------
    spec : ConvSpec
        A layer that `winograd.applies` to.
    isa : InstructionSet
        Vector width and rounding.
    transform : Transform
        Size of the tiles.
    arithmetic : Arithmetic
        What is multiplied and summed.
    plan : Plan
        Sizes of the loop nest, as `winograd_plan.plan` gives them.

    Returns
    -------
    tvm.tirx.PrimFunc
        Arguments: data, weight (as `winograd.pack_points` lays it), bias, [multiplier],
        [residual], bounds, output.
    """
    return prim_func(lambda: WinogradNest(spec, isa, transform, arithmetic, plan).emit())


class WinogradNest:
    """Emits one convolution; the methods follow the loop nest from outside in."""

    def __init__(self, spec, isa, transform, arithmetic, plan):
        self.spec, self.isa, self.transform = spec, isa, transform
        self.arithmetic, self.plan = arithmetic, plan
        self.edge = transform.points
        self.rows = ceildiv(spec.out.height, transform.outputs)
        self.columns = ceildiv(spec.out.width, transform.outputs)
        self.channels = spec.data.padded_channels
        self.tile_channels = plan.tile.vectors * isa.lanes
        self.out_tiles = spec.out.padded_channels // self.tile_channels
        self.passes = self.channels // arithmetic.depth // UNROLL

    def emit(self) -> None:
        """Arguments, then the parallel loop."""
        spec, plan = self.spec, self.plan
        batch = batch_extent(spec.batch)
        self.data = tensor_arg("data", spec.data, batch)
        self._declare_weights()
        self.epilogue = Epilogue(spec, self.isa, batch)
        total = batch * self.rows * self.columns
        groups = (total + (plan.group - 1)) // plan.group
        with T.parallel(groups * plan.parts) as task:
            self.first = task % groups * plan.group
            self.count = T.min(total - self.first, plan.group)
            self._allocate()
            with T.serial(T.max(self.count, plan.tile.pixels)) as tile:
                # A group smaller than a register tile is filled up with its last tile.
                self._emit_transform(tile, self._position(T.min(tile, self.count - 1)))
            in_part = self.out_tiles // plan.parts
            with T.serial(in_part) as i:
                self.out_tile = task // groups * in_part + i
                self._prepare_weights()
                self._emit_products()
                with T.serial(self.count) as tile, T.serial(plan.tile.vectors) as j:
                    self._emit_inverse(tile, j, *self._position(tile))

    def _declare_weights(self) -> None:
        depth = self.arithmetic.depth
        shape = (self.out_tiles * self.edge**2, self.channels // depth, self.tile_channels * depth)
        self.weight = arg("weight", shape, self.arithmetic.weight_dtype)
        panel_bytes = self.channels * self.tile_channels * 4 // depth
        visits = self.plan.group // self.plan.tile.pixels * self.passes
        self.prefetch = WeightPrefetch(panel_bytes, visits)

    def _prepare_weights(self) -> None:
        """For a nest that does not read its weights as they are stored."""

    def _allocate(self) -> None:
        # Odd numbers of cache lines between the points, and between the tiles: distances that are
        # multiples of 4 KiB would put all of a tile's points in the same few lines of the cache.
        tiles, points = self.plan.group | 1, self.edge**2
        self._allocate_data(tiles)
        self.m = T.alloc_buffer((points, tiles, self.tile_channels), self.arithmetic.acc_dtype)
        self.patch = T.alloc_buffer((self.edge, self.edge, BLOCK), self.spec.data.dtype)
        # What is between the two halves of the inverse transform.
        half = self.transform.outputs * self.edge * self.isa.lanes
        self.half_sums = T.alloc_buffer((half,), self.arithmetic.acc_dtype)

    def _allocate_data(self, tiles: int) -> None:
        products, points, line = self.arithmetic, self.edge**2, 64 // (4 // self.arithmetic.depth)
        self.v = T.alloc_buffer((points, tiles, self.channels + line), products.data_dtype)
        # What is between the two halves of a transform.
        self.half_data = T.alloc_buffer((points * products.lanes,), products.data_dtype)

    def _position(self, tile) -> tuple:
        """Image, first output row and first output column of a tile of the group."""
        tile = self.first + tile
        in_image = self.rows * self.columns
        size = self.transform.outputs
        row, column = tile // self.columns % self.rows, tile % self.columns
        return tile // in_image, row * size, column * size

    def _emit_transform(self, tile, position: tuple) -> None:
        n, oh, ow = position
        top, left, _, _ = self.spec.window.padding
        ih, iw = oh - top, ow - left
        data = self.spec.data
        inside = T.And(
            T.And(ih >= 0, ih <= data.height - self.edge),
            T.And(iw >= 0, iw <= data.width - self.edge),
        )
        with T.serial(data.blocks) as block, T.If(inside):
            with T.Then():
                self._transform_block(
                    tile, block, lambda i, j, at: self.data[n, block, ih + i, iw + j, at]
                )
            with T.Else():
                self._copy_patch(n, block, ih, iw)
                self._transform_block(tile, block, lambda i, j, at: self.patch[i, j, at])

    def _copy_patch(self, n, block, ih, iw) -> None:
        data = self.spec.data
        every = lanes_at(0, BLOCK)
        with T.serial(self.edge) as i, T.serial(self.edge) as j:
            h, w = ih + i, iw + j
            inside = T.And(T.And(h >= 0, h < data.height), T.And(w >= 0, w < data.width))
            with T.If(inside):
                with T.Then():
                    store(self.patch, [i, j, every], self.data[n, block, h, w, every])
                with T.Else():
                    store(self.patch, [i, j, every], splat(data.zero_point, data.dtype, BLOCK))

    def _transform_block(self, tile, block, pixel: Callable) -> None:
        """``B^T d B`` of 16 input channels, a vector of them at a time."""
        lanes, dtype, edge = self.arithmetic.lanes, self.arithmetic.data_dtype, self.edge
        for first in range(0, BLOCK, lanes):
            at = lanes_at(first, lanes)
            half = self.half_data
            with T.serial(edge) as j:
                column = [T.cast(pixel(i, j, at), f"{dtype}x{lanes}") for i in range(edge)]
                for i, value in enumerate(apply(self.transform.data, column, dtype, lanes)):
                    store(half, [lanes_at((i * edge + j) * lanes, lanes)], value)
            with T.serial(edge) as i:
                row = [half[lanes_at((i * edge + j) * lanes, lanes)] for j in range(edge)]
                for j, value in enumerate(apply(self.transform.data, row, dtype, lanes)):
                    at = lanes_at(block * BLOCK + first, lanes)
                    store(self.v, [i * edge + j, tile, at], value)

    def _emit_products(self) -> None:
        tiles = self.plan.tile.pixels
        blocks = (self.count + (tiles - 1)) // tiles
        with T.serial(self.edge**2) as point, T.serial(blocks) as block:
            # The last register tile is moved back to end with the group.
            start = T.max(T.min(block * tiles, self.count - tiles), 0)
            self._emit_register_tile(point, block, start)

    def _emit_register_tile(self, point, block, start) -> None:
        lanes = self.isa.lanes
        every = lanes_at(0, lanes)
        # One buffer a vector, as in the direct schedule: LLVM keeps those in registers.
        acc = {
            (i, j): local(lanes, self.arithmetic.acc_dtype)
            for i in range(self.plan.tile.pixels)
            for j in range(self.plan.tile.vectors)
        }
        for (_, j), buffer in acc.items():
            store(buffer, [every], self._first_sum(point, j))
        with T.serial(self.passes) as outer:
            self._prefetch(point, block * self.passes + outer)
            for inner in range(0, UNROLL, self.arithmetic.chain):
                steps = [outer * UNROLL + inner + k for k in range(self.arithmetic.chain)]
                for (i, j), buffer in acc.items():
                    data = [self._activation(point, start + i, step) for step in steps]
                    weights = [self._weight(point, step, j) for step in steps]
                    value = self.arithmetic.accumulate(buffer[every], data, weights)
                    store(buffer, [every], value)
        for (i, j), buffer in acc.items():
            store(self.m, [point, start + i, lanes_at(j * lanes, lanes)], buffer[every])

    def _first_sum(self, _point, _j: int):
        return splat(0, self.arithmetic.acc_dtype, self.isa.lanes)

    def _prefetch(self, point, visit) -> None:
        """The next panel's weights, while this one's are used for the ``visit``-th time."""
        self.prefetch.emit(self.weight, self._panel(point), visit)

    def _panel(self, point):
        return self.out_tile * self.edge**2 + point

    def _weight(self, point, step, j: int):
        size = self.isa.lanes * self.arithmetic.depth
        return self.weight[self._panel(point), step, lanes_at(j * size, size)]

    def _activation(self, point, tile, step):
        """One float32, or two int16 as an int32."""
        depth = self.arithmetic.depth
        if depth == 1:
            return self.v[point, tile, step]
        return T.reinterpret("int32", self.v[point, tile, lanes_at(step * depth, depth)])

    def _emit_inverse(self, tile, j, n, oh, ow) -> None:
        """``A^T M A`` of one vector of output channels, and its epilogue."""
        lanes, edge, size = self.isa.lanes, self.edge, self.transform.outputs
        dtype = self.arithmetic.acc_dtype
        channel = self.out_tile * self.tile_channels + j * lanes
        half = self.half_sums
        with T.serial(edge) as b:
            column = [self.m[a * edge + b, tile, lanes_at(j * lanes, lanes)] for a in range(edge)]
            for i, value in enumerate(apply(self.transform.inverse, column, dtype, lanes)):
                store(half, [lanes_at((i * edge + b) * lanes, lanes)], value)
        with T.serial(size) as i:
            row = [half[lanes_at((i * edge + b) * lanes, lanes)] for b in range(edge)]
            outputs = apply(self.transform.inverse, row, dtype, lanes)
            for k, value in enumerate(outputs):
                acc = self.arithmetic.finish(value) + self.epilogue.initial(channel)
                self._store_inside(acc, n, channel, oh + i, ow + k, k)

    def _store_inside(self, acc, n, channel, oh, ow, k: int) -> None:
        """The epilogue, unless the output is one that lies below or right of the image."""
        size, out = self.transform.outputs, self.spec.out
        conditions = []
        if out.height % size:
            conditions.append(oh < out.height)
        if k >= out.width % size > 0:
            conditions.append(ow < out.width)
        if not conditions:
            self.epilogue.finish(acc, n, channel, oh, ow)
            return
        inside = conditions[0] if len(conditions) == 1 else T.And(*conditions)
        with T.If(inside), T.Then():
            self.epilogue.finish(acc, n, channel, oh, ow)
