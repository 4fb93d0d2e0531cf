"""Schedule ``nchw_spatial_pack``: direct convolution on NCHW[x]c, fp32, int8 and int16.

Loop nest::

    parallel over (image, tile of output channels, output row)
      tile of output pixels in the row
        accumulators in registers: [pixels][vectors of output channels], started with the bias
        for block of input channels, kernel row, kernel column, step in the block
          unrolled: every pixel's activation, broadcast, times every vector of weights
        epilogue on the registers, one store

Packing: activations (N, C/16, H, W, 16), weights as `pack_conv` lays them: the inner loop reads one
contiguous stream of weights. For int8 a step is four input channels, summed by one dot product; for
int16 (data, and weights of int8 or int16) it is two.
Zero points of weights are subtracted as `window_sums` says.
Weights of fewer than eight bits are stored packed; tasks are then as many rows as make decoding a
tile's weights cheap, see `weight_store`.

What limits it: the multiply units, as long as the weights of one tile of output channels stay in
the L2 cache and have come there in time, which `prefetch` sees to; broadcasts of activations take
a load each, so that the shape of the register tile matters where loads are as dear as multiply-adds
(`tile`).

Ideal speedup over scalar fp32: the lanes of a vector, in int8 times four MACs in each over the
instructions of the dot product, two in int16; see `ideal`.

Source: the NCHWc template of TVM's Relay, ``topi/x86/conv2d_avx_common.py`` and
``conv2d_int8.py`` (Apache TVM up to 0.17); Liu et al., "Optimizing CNN Model Inference on CPUs",
USENIX ATC 2019. Here the border is cut out of the loops instead of padded in memory.
"""

from __future__ import annotations

import tvm

from ..errors import InputError
from .dot_choice import choose_dots, dot_for_all, straight_steps
from .epilogue import Epilogue, conv_arguments
from .intrinsics import DotProduct, InstructionSet
from .pack import border_correction, pack_conv
from .registry import Implementation, register
from .row_tiles import RowTiles
from .spec import COMMON, ConvSpec, ConvWeights
from .tile import Tile, choose_tile, ranked_tiles
from .tir import T, arg, batch_extent, ceildiv, lanes_at, local, prim_func, store, tensor_arg
from .weight_store import WHOLE, WeightStore, bits_of_panels, rows_of_task, stored
from .window_sums import WindowSums, instructions

NAME = "nchw_spatial_pack"


def applies(spec: ConvSpec) -> bool:
    """Whether integers lie in fours or pairs, as dot products take them, groups in whole blocks."""
    if spec.precision != "fp32" and (spec.data.block % spec.taps or spec.data.halo):
        return False
    return spec.groups_are_whole_blocks


def tiles(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing, the most promising first."""
    return ranked_tiles(spec, isa, dot_for_all(spec, weights, isa)) if applies(spec) else []


@register(NAME, precisions=("fp32", "int8", "int16"), tiles=tiles, weight_zero_points=True)
def spatial_pack(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Direct convolution, register tiles of output channels by pixels."""
    if not applies(spec):
        return None
    dot = dot_for_all(spec, weights, isa)
    tile = tile or choose_tile(spec, isa, dot)
    panels = pack_conv(spec, weights.weight, tile.vectors * isa.lanes)
    bits = bits_of_panels(panels, spec)
    packed = [stored(panels, bits, isa)]
    dots = choose_dots(spec, dot, isa, panels)
    if dots.often:
        packed.append(dots.proven)
    if spec.pads_with_zero_point:
        packed.append(border_correction(spec, weights.weight))
    return Implementation(
        schedule=NAME,
        instructions=instructions(spec, str(dots)),
        key=("direct", spec, isa.name, dots.key, tile, bits),
        build=lambda: build(spec, isa, dot, tile, dots.often, bits),
        arguments=conv_arguments(spec, weights, packed),
        tile=tile,
    )


def build(
    spec: ConvSpec,
    isa: InstructionSet,
    dot: DotProduct | None,
    tile: Tile,
    often: DotProduct | None = None,
    bits: int = WHOLE,
) -> tvm.tirx.PrimFunc:
    """The convolution as a PrimFunc.

    Parameters
    ----------
    spec : ConvSpec
        The layer; blocks of its groups must not be straddled (see `applies`).
    isa : InstructionSet
        Vector width and rounding.
    dot : DotProduct or None
        The dot product of integers; None for fp32.
    tile : Tile
        Register tile; its vectors must divide the output channels of a group, as those of
        `tile.choose_tile` do.
    often : DotProduct, optional
        A faster one, for the weights that the argument ``proven`` marks.
    bits : int
        Of the weights in memory, as `weight_store.stored` has them; 8 where not packed.

    Returns
    -------
    tvm.tirx.PrimFunc
        Arguments: data, weight, [proven], [border], then those of `epilogue.conv_arguments`,
        output.

    Raises
    ------
    InputError
        If the tile would reach into the next group, or past the last channel.
    """
    channels = spec.out.padded_channels // spec.groups
    if channels % (tile.vectors * isa.lanes):
        raise InputError(
            f"{tile.vectors} vectors of {isa.lanes} channels do not divide the {channels} output "
            "channels of a group: take a divisor, or the tile that choose_tile gives"
        )
    return prim_func(lambda: DirectConv2d(spec, isa, dot, tile, often, bits).emit())


class DirectConv2d:
    """Emits one convolution; the methods follow the loop nest from outside in."""

    def __init__(
        self,
        spec: ConvSpec,
        isa: InstructionSet,
        dot: DotProduct | None,
        tile: Tile,
        often: DotProduct | None = None,
        bits: int = WHOLE,
    ):
        self.spec, self.isa, self.dot, self.tile, self.often = spec, isa, dot, tile, often
        self.bits = bits
        self.rows = RowTiles(spec.data, spec.out, spec.window, tile.pixels)
        self.tile_channels = tile.vectors * isa.lanes
        self.out_tiles = spec.out.padded_channels // self.tile_channels
        self.group_blocks = spec.data.blocks // spec.groups
        self.taps = spec.taps
        self.weight_dtype = dot.weight_dtype if dot else "float32"
        self.kernel = spec.window.kernel
        self.steps = spec.data.block // self.taps
        self.sums = WindowSums(spec, isa) if spec.weight_zero_points else None

    def emit(self) -> None:
        """Arguments, then the parallel loop over images, channel tiles and output rows."""
        spec = self.spec
        batch = batch_extent(spec.batch)
        self.data = tensor_arg("data", spec.data, batch)
        kernel = (self.out_tiles, self.group_blocks, *self.kernel, self.steps)
        shape = (*kernel, self.tile_channels * self.taps)
        visits = spec.out.height * self.rows.count * self.group_blocks
        self.weights = WeightStore(shape, self.weight_dtype, self.bits, self.isa, visits)
        if self.often:
            self.proven = arg("proven", kernel[:-1], "uint8")
        if spec.pads_with_zero_point:
            border = (spec.window.kernel[0], spec.window.kernel[1] + 1, spec.out.padded_channels)
            self.border = arg("border", border, "int32")
        self.epilogue = Epilogue(spec, self.isa, batch)
        if spec.weight_zero_points == COMMON:
            self.sums.multiply_by(self.epilogue.weight_zero_point)
        self._emit_tasks(batch)

    def _emit_tasks(self, batch) -> None:
        height, width = self.spec.out.height, self.spec.out.width
        rows = rows_of_task(height, width, self.bits)
        chunks = ceildiv(height, rows)
        with T.parallel(batch * self.out_tiles * chunks) as task:
            self.n = task // (self.out_tiles * chunks)
            self.out_tile = task // chunks % self.out_tiles
            self.weights.select(self.out_tile)
            self._emit_rows(task % chunks * rows, rows)

    def _emit_rows(self, first, rows: int) -> None:
        if rows == 1:
            self.oh = first
            self._emit_row()
            return
        height = self.spec.out.height
        with T.serial(T.min(rows, height - first) if height % rows else rows) as row:
            self.oh = first + row
            self._emit_row()

    def _emit_row(self) -> None:
        if self.sums:
            self.sums.emit_row(self.data, self.n, self.oh, self._group())
        self.rows.emit(self._emit_tile)

    def _emit_tile(self, start, width: int, edge: int | None) -> None:
        self.start = start
        whole = self._pixels_and_vectors(0, width)
        self.acc = {at: local(self.isa.lanes, self.epilogue.bias.dtype) for at in whole}
        sums = [self.sums.of_pixel(start + i) if self.sums else None for i in range(width)]
        for i, j in whole:
            self._set(i, j, self.epilogue.initial(self._channel(j), sums[i]))
        if self.spec.pads_with_zero_point:
            self.rows.missing_taps(self.oh, width, edge, self._emit_missing_tap)
        self._emit_reduction(width, edge)
        for i, j in whole:
            n, oh, ow = self._position(i)
            self.epilogue.finish(self._get(i, j), n, self._channel(j), oh, ow)

    def _emit_reduction(self, width: int, edge: int | None) -> None:
        with T.serial(self.group_blocks) as block:
            self._emit_block(block, width, edge)

    def _emit_block(self, block, width: int, edge: int | None) -> None:
        self.weights.prefetch(self._visit(block))
        self.rows.taps(
            self.oh,
            width,
            edge,
            lambda kh, kw, first, last: self._emit_tap(block, kh, kw, first, last),
        )

    def _position(self, i: int) -> tuple:
        """Image, row and column of output pixel ``i`` of the tile."""
        return self.n, self.oh, self.start + i

    def _visit(self, block):
        """Number of this pass over a block of input channels, among those of the channel tile."""
        tile_in_row = self.start // self.tile.pixels
        return (self.oh * self.rows.count + tile_in_row) * self.group_blocks + block

    def _emit_missing_tap(self, kh, kw, first: int, last: int) -> None:
        for i, j in self._pixels_and_vectors(first, last):
            extra = self.border[kh, kw, lanes_at(self._channel(j), self.isa.lanes)]
            self._set(i, j, self._get(i, j) + extra)

    def _emit_tap(self, block, kh, kw, first: int, last: int) -> None:
        if self.often is None:
            self._emit_steps(self.dot, block, kh, kw, first, last)
            return
        with T.If(self.proven[self.out_tile, block, kh, kw] != T.uint8(0)):
            with T.Then():
                self._emit_steps(self.often, block, kh, kw, first, last)
            with T.Else():
                self._emit_steps(self.dot, block, kh, kw, first, last)

    def _emit_steps(self, dot, block, kh, kw, first: int, last: int) -> None:
        unrolled = straight_steps(self.steps)
        chain = dot.chain if dot else 1
        with T.serial(self.steps // unrolled) as outer:
            for inner in range(0, unrolled, chain):
                links = range(inner, min(inner + chain, unrolled))
                steps = [outer * unrolled + link for link in links]
                for i, j in self._pixels_and_vectors(first, last):
                    self._emit_multiply_add(dot, block, kh, kw, steps, i, j)

    def _emit_multiply_add(self, dot, block, kh, kw, steps: list, i: int, j: int) -> None:
        size = self.isa.lanes * self.taps
        weights = [self.weights.read((block, kh, kw, step), j * size, size) for step in steps]
        xs = [self._activation(block, kh, kw, step, i) for step in steps]
        value = self._get(i, j)
        if dot:
            value = dot.accumulate(value, xs, weights)
        else:
            value = value + T.broadcast(xs[0], self.isa.lanes) * weights[0]
        self._set(i, j, value)

    def _activation(self, block, kh, kw, step, i: int):
        """One float32, or four uint8 or two int16 as an int32."""
        window, data = self.spec.window, self.spec.data
        if self.spec.groups > 1:
            block = block + self._group() * self.group_blocks
        n, oh, ow = self._position(i)
        ih = oh * window.strides[0] - window.padding[0] + kh * window.dilation[0]
        iw = ow * window.strides[1] - window.padding[1] + kw * window.dilation[1]
        if data.block == 1:
            return self.data[n, block, ih, iw]
        if self.dot:
            return T.reinterpret(
                "int32", self.data[n, block, ih, iw, lanes_at(step * self.taps, self.taps)]
            )
        return self.data[n, block, ih, iw, step]

    def _group(self):
        """Which group the tile's output channels belong to."""
        if self.spec.groups == 1:
            return 0
        return self._channel(0) // (self.spec.out.channels // self.spec.groups)

    def _channel(self, j: int):
        return self.out_tile * self.tile_channels + j * self.isa.lanes

    def _pixels_and_vectors(self, first: int, last: int) -> list[tuple[int, int]]:
        return [(i, j) for i in range(first, last) for j in range(self.tile.vectors)]

    # Each accumulator is a buffer of one vector: larger ones may go to the heap, and LLVM then
    # keeps them in registers only where it can prove that nothing else touches them.

    def _get(self, i: int, j: int):
        return self.acc[i, j][lanes_at(0, self.isa.lanes)]

    def _set(self, i: int, j: int, value) -> None:
        store(self.acc[i, j], [lanes_at(0, self.isa.lanes)], value)
