"""Winograd's loop nest in bytes: four channels a multiply-add, weights stored in a few bits.

`winograd_nest`, with one step more and less in memory::

    parallel over (part of the output channels, group of tiles)
      inputs -> B^T d B, as bytes -> V
      for register tile of output channels
        packed weights -> (2G) g (2G)^T, as bytes -> U
        for point, register tile of tiles: U times V -> M
        for tile of the group: A^T M A -> outputs

U holds the transformed weights of one register tile of output channels, private to the task as V
and M are: memory holds the packed weights alone, and all tiles of the group share the work of
decoding and transforming them. Bytes wrap around, so that sums of them are right where the total
fits a byte, whatever comes between.

A row of a tile, 16 channels of its four pixels, is 64 bytes of NCHW16c. ``B^T d B`` is computed on
such rows: between rows by additions, within them by additions of two shuffles of their quarters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import tvm

from . import weight_bits
from .intrinsics import InstructionSet
from .prefetch import WeightPrefetch
from .spec import ConvSpec
from .tir import BLOCK, T, arg, ceildiv, lanes_at, prim_func, splat, store
from .winograd import KERNEL, apply, f2x2
from .winograd_nest import UNROLL, WinogradNest
from .winograd_plan import Arithmetic, Plan

TRANSFORM = f2x2(scale=2)
EDGE = TRANSFORM.points
ROW = EDGE * BLOCK  # bytes in a row of a tile
TAPS = KERNEL**2
# From its row and column on, two by two points go into all four outputs of a tile.
CENTRE = 1
CENTRE_POINTS = TRANSFORM.outputs**2


@dataclass(frozen=True)
class Bytes:
    """How activations and weights become bytes.

    Parameters
    ----------
    bits : int
        Of the packed weights; see `weight_bits`.
    offsets : tuple of tuple of int
        What is added to the transformed data of each point, so that they are not negative.
    """

    bits: int
    offsets: tuple[tuple[int, ...], ...] = field(repr=False)


def build(
    spec: ConvSpec, isa: InstructionSet, arithmetic: Arithmetic, plan: Plan, form: Bytes
) -> tvm.tirx.PrimFunc:
    """The convolution as a PrimFunc.

    Parameters
    ----------
    spec : ConvSpec
        A layer that `winograd.applies` to.
    isa : InstructionSet
        Vector width and rounding.
    arithmetic : Arithmetic
        Products of uint8 data and int8 weights.
    plan : Plan
        Sizes of the loop nest, as `winograd_plan.plan` gives them.
    form : Bytes
        How activations and weights become bytes.

    Returns
    -------
    tvm.tirx.PrimFunc
        Arguments: data, weight (as `pack_taps` lays it), start (`start_sums`), bias, [late_bias],
        multiplier, [residual], bounds, output.
    """
    return prim_func(lambda: _ByteNest(spec, isa, arithmetic, plan, form).emit())


def pack_taps(spec: ConvSpec, weight: np.ndarray, isa: InstructionSet, vectors: int) -> np.ndarray:
    """Weights in as few bits as hold them, in the order in which the kernel transforms them.

    Parameters
    ----------
    spec : ConvSpec
        The layer.
    weight : numpy.ndarray
        (O, I, 3, 3), int8, of less than 8 bits.
    isa : InstructionSet
        Lanes of a vector.
    vectors : int
        Of output channels in a register tile.

    Returns
    -------
    numpy.ndarray
        uint8 (O tiles, chunks, taps, stored vectors, 4 * lanes), see `weight_bits.pack`: a chunk
        holds all taps of as many vectors as are stored together. Padded channels are zero.
    """
    padded, lanes = _padded(spec, weight), isa.lanes
    outputs, inputs, _ = padded.shape
    split = padded.reshape(outputs // (vectors * lanes), vectors, lanes, inputs // 4, 4, TAPS)
    steps = split.transpose(0, 3, 1, 5, 2, 4)  # O tile, step, vector, tap; lane, channel of four
    places = steps.reshape(len(steps), -1, TAPS, 4 * lanes)
    group = weight_bits.group_size(packed_bits(spec, weight))
    places = np.pad(places, ((0, 0), (0, -places.shape[1] % group), (0, 0), (0, 0)), mode="edge")
    chunks = places.reshape(len(steps), -1, group, TAPS, 4 * lanes).swapaxes(2, 3)
    streams = chunks.reshape(*chunks.shape[:2], TAPS * group, 4 * lanes)
    return weight_bits.pack(streams, packed_bits(spec, weight))


def packed_bits(spec: ConvSpec, weight: np.ndarray) -> int:
    """Bits that hold all weights, and the zeros of padded channels."""
    return weight_bits.bits_of(_padded(spec, weight))


def _padded(spec: ConvSpec, weight: np.ndarray) -> np.ndarray:
    """(O, I, 3, 3) as (padded O, padded I, taps)."""
    outputs, inputs = weight.shape[:2]
    padded = np.zeros((spec.out.padded_channels, spec.data.padded_channels, TAPS), np.int8)
    padded[:outputs, :inputs] = weight.reshape(outputs, inputs, TAPS)
    return padded


def start_sums(spec: ConvSpec, transformed: np.ndarray, form: Bytes) -> np.ndarray:
    """What sums start with, so that the offsets of the data have no effect on the outputs.

    An offset ``o`` adds ``o * sum(u)`` to the sum of a point, so much less each of the 16 could
    start with. Four are enough: the outputs are sums with signs of the 16, and any four amounts in
    them can be had from the four points in the centre, whose signs in them are a Hadamard matrix.
    These are integers, as transformed weights are divisible by two in every row and column but
    those of the centre.

    Parameters
    ----------
    spec : ConvSpec
        The layer.
    transformed : numpy.ndarray
        (O, I, points^2), ``(2G) g (2G)^T``.
    form : Bytes
        The offsets.

    Returns
    -------
    numpy.ndarray
        int32 (padded O, 1 + 4): zero for the other points, then those of the centre.
    """
    (rows,) = TRANSFORM.inverse
    sums = transformed.sum(axis=1).reshape(-1, EDGE, EDGE) * np.array(form.offsets)
    in_outputs = np.einsum("ia,oab,jb->oij", rows, sums, rows)
    signs = rows[:, CENTRE : CENTRE + TRANSFORM.outputs]
    in_centre = np.einsum("ia,oij,jb->oab", signs, in_outputs, signs)
    start = np.zeros((spec.out.padded_channels, 1 + CENTRE_POINTS), np.int32)
    start[: len(sums), 1:] = -in_centre.reshape(-1, CENTRE_POINTS) // CENTRE_POINTS
    return start


def pack_start(start: np.ndarray, tile_channels: int) -> np.ndarray:
    """(O, 5) as (O tiles, 5, tile_channels)."""
    split = start.reshape(-1, tile_channels, start.shape[1])
    return np.ascontiguousarray(split.swapaxes(1, 2))


class _ByteNest(WinogradNest):
    """Emits one convolution; what is not here is as in `WinogradNest`."""

    def __init__(self, spec, isa, arithmetic, plan, form: Bytes):
        super().__init__(spec, isa, TRANSFORM, arithmetic, plan)
        self.form = form
        self.vector = 4 * isa.lanes  # bytes
        self.places = weight_bits.group_size(form.bits)  # of vectors in a chunk
        self.chunks = ceildiv(self.channels // 4 * plan.tile.vectors, self.places)

    def _declare_weights(self) -> None:
        stored = weight_bits.stored_vectors(self.form.bits)
        shape = (self.chunks, TAPS, stored, self.vector)
        self.weight = arg("weight", (self.out_tiles, *shape), "uint8")
        self.start = arg("start", (self.out_tiles, 1 + CENTRE_POINTS, self.tile_channels), "int32")
        self.visits = self.plan.group // self.plan.tile.pixels * self.passes
        self.prefetch = WeightPrefetch(int(np.prod(shape)), self.visits * EDGE**2)

    def _allocate_data(self, tiles: int) -> None:
        # An odd number of cache lines between tiles, as in the nest of larger numbers.
        line = (1 + self.spec.data.blocks % 2) * ROW
        self.v = T.alloc_buffer((EDGE, tiles, self.channels * EDGE + line), "uint8")
        self.taps = T.alloc_buffer((TAPS * self.places * self.vector,), "int8")
        # By chunks first: writing 16 points at once far from each other takes twice the time.
        self.u = T.alloc_buffer((self.chunks, EDGE**2, self.places, self.vector), "int8")

    def _transform_block(self, tile, block, pixel: Callable) -> None:
        """``B^T d B`` of 16 input channels and the points' offsets, a row of points at a time."""
        rows = [T.bind(pixel(i, 0, lanes_at(0, ROW))) for i in range(EDGE)]
        for i, row in enumerate(apply(self.transform.data, rows, "uint8", ROW)):
            offsets = [splat(offset, "uint8", BLOCK) for offset in self.form.offsets[i]]
            points = _within_row(T.bind(row)) + T.Shuffle(offsets, _quarters(range(EDGE)))
            store(self.v, [i, tile, lanes_at(block * ROW, ROW)], points)

    def _prepare_weights(self) -> None:
        """Decode and transform the weights of a register tile of output channels."""
        size, places, every = self.vector, self.places, lanes_at(0, self.vector)
        with T.serial(self.chunks) as chunk:
            weight_bits.emit_decode(
                self.weight,
                [self.out_tile, chunk],
                self.taps,
                TAPS * places,
                self.form.bits,
                self.isa.lanes,
            )
            with T.serial(places) as place:
                starts = [(tap * places + place) * size for tap in range(TAPS)]
                taps = [T.bind(self.taps[lanes_at(start, size)]) for start in starts]
                for point, value in enumerate(_transform_taps(taps)):
                    store(self.u, [chunk, point, place, every], value)

    def _first_sum(self, point, j: int):
        row, column, size = point // EDGE - CENTRE, point % EDGE - CENTRE, TRANSFORM.outputs
        inside = T.And(T.And(row >= 0, row < size), T.And(column >= 0, column < size))
        entry = T.if_then_else(inside, 1 + row * size + column, T.int32(0))
        return self.start[self.out_tile, entry, lanes_at(j * self.isa.lanes, self.isa.lanes)]

    def _prefetch(self, point, visit) -> None:
        """The next register tile's packed weights."""
        self.prefetch.emit(self.weight, self.out_tile, point * self.visits + visit)

    def _weight(self, point, step, j: int):
        at = step * self.plan.tile.vectors + j
        return self.u[at // self.places, point, at % self.places, lanes_at(0, self.vector)]

    def _activation(self, point, tile, step):
        """Four bytes as an int32."""
        at = step // UNROLL * ROW + point % EDGE * BLOCK + step % UNROLL * 4
        return T.reinterpret("int32", self.v[point // EDGE, tile, lanes_at(at, 4)])


def _within_row(row):
    """Each quarter of a row as ``B^T`` says: a pixel and another, added or subtracted."""
    (matrix,) = TRANSFORM.data
    # Two terms a line, a positive one first.
    terms = np.argsort(matrix == 0, axis=1, kind="stable")[:, :2]
    terms = [sorted(pair, key=lambda j, i=i: -matrix[i, j]) for i, pair in enumerate(terms)]
    x, y = (T.bind(T.Shuffle([row], _quarters(order))) for order in zip(*terms, strict=True))
    added = [i + EDGE * (matrix[i, other] > 0) for i, (_, other) in enumerate(terms)]
    return T.Shuffle([x - y, x + y], _quarters(added))


def _quarters(order) -> list[int]:
    """Indices of a shuffle that takes the vectors' quarters in some order."""
    return [int(quarter) * BLOCK + k for quarter in order for k in range(BLOCK)]


def _transform_taps(taps: list) -> list:
    """``(2G) g (2G)^T`` of nine vectors of weights: 16 vectors."""
    columns = [_double_g(*taps[j::KERNEL]) for j in range(KERNEL)]
    return [point for row in zip(*columns, strict=True) for point in _double_g(*row)]


def _double_g(g0, g1, g2) -> list:
    """``2G`` times three vectors, whose rows are (2 0 0), (1 1 1), (1 -1 1) and (0 0 2)."""
    outer = T.bind(g0 + g2)
    return [T.bind(value) for value in (g0 + g0, outer + g1, outer - g1, g2 + g2)]
