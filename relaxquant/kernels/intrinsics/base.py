"""What an instruction set offers to a schedule, and the proof that a dot product is exact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..tir import CPU, T

INT16_MIN, INT16_MAX = -(1 << 15), (1 << 15) - 1


@dataclass(frozen=True)
class DotProduct:
    """A way to add four u8 x s8 products to each int32 lane.

    Parameters
    ----------
    name : str
        The instructions, as shown in ``lib.kernels``.
    emit : callable
        ``emit(acc, x, w)`` with ``acc`` int32 x lanes, ``x`` one int32 holding four uint8
        activations, ``w`` int8 x 4 lanes; returns the new int32 x lanes.
    cost : float
        Instructions for each vector of accumulators, for choosing register tiles.
    tile_registers : int
        Registers for accumulators and weights of a tile; the rest hold intermediates.
    pairs_saturate : bool
        True if the sum of two neighbouring products is kept in a saturating int16, so that the
        result is exact only for weights that `proven_free_of_saturation` accepts.
    chain : int
        How many successive fours cost less together than one by one. If ``pairs_saturate``, they
        are summed in int16 before they are widened, which is exact only for weights that
        `proven_free_of_saturation` accepts for that ``chain``.
    emit_chain : callable, optional
        ``emit_chain(acc, xs, ws)``: as ``emit``, for up to ``chain`` fours at once.
    weight_dtype : str
        Of the weights in memory. (What `PairDot.on_weights` makes takes two int16 activations
        instead of four uint8.)
    """

    name: str
    emit: Callable
    cost: float
    tile_registers: int
    pairs_saturate: bool = False
    chain: int = 1
    emit_chain: Callable | None = field(repr=False, default=None)
    weight_dtype: str = "int8"

    def accumulate(self, acc, xs: Sequence, ws: Sequence):
        """``acc`` and the products of all fours, ``chain`` of them at a time.

        Parameters
        ----------
        acc
            int32 x lanes.
        xs, ws : sequence
            Activations and weights as ``emit`` takes them. Chains start at the first: what the
            weights were proven for must be cut the same way.
        """
        for first in range(0, len(xs), self.chain):
            part = slice(first, first + self.chain)
            if self.emit_chain is None:
                acc = self.emit(acc, *xs[part], *ws[part])
            else:
                acc = self.emit_chain(acc, xs[part], ws[part])
        return acc


@dataclass(frozen=True)
class PairDot:
    """A way to add two int16 x int16 products to each int32 lane, exact for all values.

    Parameters
    ----------
    name : str
        The instructions, as shown in ``lib.kernels``.
    emit : callable
        ``emit(acc, x, w)`` with ``acc`` int32 x lanes, ``x`` one int32 holding two int16, ``w``
        int16 x 2 lanes; returns the new int32 x lanes.
    cost : float
        Instructions for each vector of accumulators, for choosing register tiles.
    tile_registers : int
        Registers for accumulators and weights of a tile; the rest hold intermediates.
    """

    name: str
    emit: Callable = field(repr=False)
    cost: float
    tile_registers: int

    def on_weights(self, dtype: str, lanes: int) -> DotProduct:
        """What a schedule takes in the place of a dot product of bytes: two channels at a time.

        Parameters
        ----------
        dtype : str
            Of the weights in memory; ``"int8"`` ones are widened in a register, which all pixels of
            a register tile share, and take half the memory.
        lanes : int
            32-bit lanes of a vector.
        """

        def widened(acc, x, w):
            return self.emit(acc, x, T.cast(w, f"int16x{2 * lanes}"))

        is_wide = dtype == "int16"
        name = self.name if is_wide else f"{self.name} of widened weights"
        emit = self.emit if is_wide else widened
        return DotProduct(name, emit, self.cost, self.tile_registers, weight_dtype=dtype)


@dataclass(frozen=True)
class TableLookup:
    """A way to look up many bytes at once in a table held by a register.

    Parameters
    ----------
    name : str
        The instruction, as shown in ``lib.kernels``.
    bytes : int
        Of a vector: how many bytes are looked up.
    index_bits : int
        4 for a table of 16 bytes, which every 16 bytes of the register repeat; 6 for one of 64.
    emit : callable
        ``emit(table, index)``, all uint8 x bytes; indices below ``2**index_bits``.
    shuffle : callable
        ``shuffle(x, control)``: bytes of ``x`` picked within each 16; 0 where a control is 128.
    tile_registers : int
        Registers for accumulators, tables and indices of a tile.
    """

    name: str
    bytes: int
    index_bits: int
    emit: Callable = field(repr=False)
    shuffle: Callable = field(repr=False)
    tile_registers: int


@dataclass(frozen=True)
class BitCount:
    """A way to add up 32 products of bits in each int32 lane.

    Parameters
    ----------
    name : str
        The instructions, as shown in ``lib.kernels``.
    emit : callable
        ``emit(x, w)`` with ``x`` one int32 that holds 32 bits, ``w`` int32 x lanes; returns how
        many bits both have, int32 x lanes.
    top_bits : callable
        ``top_bits(x)``: the highest bit of each of 16 bytes, as an int32.
    cost : float
        Instructions for each vector of accumulators, for choosing register tiles.
    tile_registers : int
        Registers for accumulators and weights of a tile; the rest hold intermediates.
    """

    name: str
    emit: Callable = field(repr=False)
    top_bits: Callable = field(repr=False)
    cost: float
    tile_registers: int


@dataclass(frozen=True)
class ShortSums:
    """A way to keep sums of u8 x s8 products in int16 until they are widened, many fours later.

    Parameters
    ----------
    name : str
        The instruction that multiplies, as shown in ``lib.kernels``.
    add : callable
        ``add(short, x, w)`` with ``short`` int16 x 2 lanes, ``x`` and ``w`` as for a `DotProduct`;
        returns the new ``short``. Exact where no sum of an int16 lane leaves its range.
    widen : callable
        ``widen(acc, short)``: adds both int16 of each lane to ``acc``, int32 x lanes.
    tile_registers : int
        Registers for accumulators and weights of a tile.
    """

    name: str
    add: Callable = field(repr=False)
    widen: Callable = field(repr=False)
    tile_registers: int


@dataclass(frozen=True)
class InstructionSet:
    """What schedules need to know of a CPU.

    Parameters
    ----------
    name : str
        Name shown in ``lib.kernels``.
    features : frozenset of str
        LLVM features a target must have.
    lanes : int
        32-bit lanes in a vector.
    tile_registers : int
        Registers for accumulators and weights of an fp32 tile, measured as the size beyond which
        the compiler spills.
    dots : tuple of DotProduct
        Fastest first; the last one is exact for all weights.
    round_to_int : callable
        ``round_to_int(v)``: float32 x lanes to int32 x lanes, nearest, ties to even.
    in_flight : int
        Multiply-adds under way that hide their latency.
    load_cost : float
        Time of a load in that of a multiply-add; the two run side by side.
    pair_dot : PairDot, optional
        What sums int16 products; without one, schedules that need it do not apply.
    short_sums : ShortSums, optional
        Where long sums in int16 are faster than any of ``dots``.
    lookup : TableLookup, optional
        What looks up bytes in tables, as ``pair_dot``.
    bit_count : BitCount, optional
        What counts bits, as ``pair_dot``.
    add_bytes : callable, optional
        ``add_bytes(acc, x)`` adds the four bytes of each lane of ``x``, uint8 x 4 lanes, to
        ``acc``, int32 x lanes; without one there is `add_bytes_plainly`.
    machine : str
        ``"cpu"``, or ``"cuda"``, whose kernels are functions of a thread: a vector is then four
        neighbouring channels in one thread's registers.
    matrix_multiply, half_matrix_multiply : str
        What multiplies whole tiles, of int8 and of float16, for schedules of their own; empty where
        nothing does.
    """

    name: str
    features: frozenset[str]
    lanes: int
    tile_registers: int
    dots: tuple[DotProduct, ...] = field(repr=False)
    round_to_int: Callable = field(repr=False)
    in_flight: int = 8
    load_cost: float = 1.0
    pair_dot: PairDot | None = field(repr=False, default=None)
    short_sums: ShortSums | None = field(repr=False, default=None)
    lookup: TableLookup | None = field(repr=False, default=None)
    bit_count: BitCount | None = field(repr=False, default=None)
    add_bytes: Callable | None = field(repr=False, default=None)
    machine: str = CPU
    matrix_multiply: str = ""
    half_matrix_multiply: str = ""

    def dot_for(self, quads: np.ndarray, activation_max: int = 255, steps: int = 1) -> DotProduct:
        """The fastest dot product that is exact for these weights.

        Parameters
        ----------
        quads : numpy.ndarray
            int8 weights, last axis 4: the four input channels of one dot product.
        activation_max : int
            Largest value that the unsigned activations can take.
        steps : int
            How many successive entries of the last axis but one the schedule hands to
            `DotProduct.accumulate` at a time: the longest int16 chain there can be. With 1, the
            default, there is none.
        """

        def exact(dot: DotProduct) -> bool:
            if not dot.pairs_saturate:
                return True
            whole = steps % dot.chain == 0 and quads.shape[-2] % dot.chain == 0
            return whole and proven_free_of_saturation(quads, activation_max, dot.chain)

        return next(dot for dot in self.dots if exact(dot))


def add_bytes_plainly(acc, x, lanes: int):
    """`InstructionSet.add_bytes` in plain vector arithmetic: even and odd bytes, then halves."""
    words = T.reinterpret(f"uint32x{lanes}", x)
    bytes_ = T.broadcast(T.uint32(0x00FF00FF), lanes)
    eight, sixteen = (T.broadcast(T.uint32(bits), lanes) for bits in (8, 16))
    halves = (words & bytes_) + (T.shift_right(words, eight) & bytes_)
    total = (halves & T.broadcast(T.uint32(0xFFFF), lanes)) + T.shift_right(halves, sixteen)
    return acc + T.reinterpret(f"int32x{lanes}", total)


def proven_free_of_saturation(quads: np.ndarray, activation_max: int = 255, chain: int = 1) -> bool:
    """Whether no int16 sum of a chain of dot products can overflow, whatever the activations.

    An int16 lane sums two neighbouring products of each four in the chain. Its worst activations
    are the largest where a weight is positive and 0 where it is not (and the other way round for
    the lower end), so the bound is attained: this is an equivalence, not an estimate. It covers
    every shorter chain, whose sums are among those that the worst case bounds. Weights in
    ``[-m, m]`` always pass for 8-bit activations where ``255 * m * 2 * chain`` fits: m is 64 for
    no chain (32640), 32 for a chain of 2 and 16 for one of 4.

    Parameters
    ----------
    quads : numpy.ndarray
        int8 weights, last axis 4; a chain is formed of successive entries of the axis before that,
        whose size must be a multiple of it.
    activation_max : int
        Largest unsigned activation.
    chain : int
        Fours that are summed in int16.
    """
    return bool(fits_int16(quads, activation_max, chain).all())


def fits_int16(quads: np.ndarray, activation_max: int = 255, chain: int = 1) -> np.ndarray:
    """`proven_free_of_saturation` for each chain by itself.

    Returns
    -------
    numpy.ndarray
        bool, as ``quads`` without its last axis; the axis before it counts chains.
    """
    *outer, count, _ = quads.shape
    # (..., chains, fours of a chain, int16 lane, neighbours): a lane sums the fours' neighbours.
    lanes = quads.reshape(*outer, count // chain, chain, 2, 2)
    highest = np.maximum(lanes, 0).sum((-3, -1), dtype=np.int32).max(-1) * activation_max
    lowest = np.minimum(lanes, 0).sum((-3, -1), dtype=np.int32).min(-1) * activation_max
    return (lowest >= INT16_MIN) & (highest <= INT16_MAX)
