"""Building blocks shared by the x86 instruction sets: the same instruction at 256 and 512 bits."""

from __future__ import annotations

from collections.abc import Callable

from ..tir import T, splat
from .base import DotProduct, PairDot, ShortSums, TableLookup


def saturating_dots(
    pmaddubsw: str, pmaddwd: str, lanes: int, registers: dict[int, int]
) -> tuple[DotProduct, ...]:
    """Four-way dot products by ``vpmaddubsw`` + ``vpmaddwd`` + ``vpaddd``, fastest first.

    ``vpmaddubsw`` adds two u8 x s8 products into a *saturating* int16; ``vpmaddwd`` with ones
    widens and adds two of those. Three instructions for ``4 * lanes`` MACs. Where the weights are
    small enough for it, a chain of n fours is summed in int16 (``vpaddw``) before it is widened
    once: ``2 + 1 / n`` instructions, ideally 1.2 times as fast for a chain of 2, 1.33 for one of 4.

    Parameters
    ----------
    pmaddubsw, pmaddwd : str
        LLVM's names of the two instructions at this width.
    lanes : int
        32-bit lanes.
    registers : dict of int to int
        `DotProduct.tile_registers` for each length of a chain, 1 for none.
    """

    pairs, widen = _pairs(pmaddubsw, lanes), _widen(pmaddwd, lanes)

    def emit_chain(acc, xs, ws):
        sums = None
        for x, w in zip(xs, ws, strict=True):
            products = pairs(x, w)
            sums = products if sums is None else sums + products
        return widen(acc, sums)

    return tuple(
        DotProduct(
            name=f"{f'{chain} x ' if chain > 1 else ''}vpmaddubsw+vpmaddwd",
            emit=lambda acc, x, w: emit_chain(acc, [x], [w]),
            cost=2 + 1 / chain,
            tile_registers=registers[chain],
            pairs_saturate=True,
            chain=chain,
            emit_chain=emit_chain,
        )
        for chain in sorted(registers, reverse=True)
    )


def _pairs(pmaddubsw: str, lanes: int) -> Callable:
    """``pairs(x, w)``: neighbouring products added in int16."""

    def emit(x, w):
        bytes_ = T.reinterpret(f"uint8x{4 * lanes}", T.broadcast(x, lanes))
        return T.call_llvm_pure_intrin(f"int16x{2 * lanes}", pmaddubsw, bytes_, w)

    return emit


def _widen(pmaddwd: str, lanes: int) -> Callable:
    """``widen(acc, sums)``: both int16 of each lane added to the int32."""

    def emit(acc, sums):
        ones = splat(1, "int16", 2 * lanes)
        return acc + T.call_llvm_pure_intrin(f"int32x{lanes}", pmaddwd, sums, ones)

    return emit


def short_sums(pmaddubsw: str, pmaddwd: str, lanes: int, registers: int) -> ShortSums:
    """``vpmaddubsw`` + ``vpaddw``: two instructions for ``4 * lanes`` MACs, and a widening seldom.

    A saturating ``vpaddsw`` would give the same sums, but shares the multiplier's two ports on
    Zen 4: 117 GMAC/s instead of 188.
    """
    pairs = _pairs(pmaddubsw, lanes)
    return ShortSums(
        name="vpmaddubsw",
        add=lambda short, x, w: short + pairs(x, w),
        widen=_widen(pmaddwd, lanes),
        tile_registers=registers,
    )


def widening_dot(pmaddwd: str, lanes: int) -> Callable:
    """Four-way dot product by two ``vpmaddwd`` on int16, exact for all u8 x s8.

    Activations and weights stay packed as bytes: even and odd bytes are widened in registers by a
    mask and shifts. LLVM hoists the widening of ``x`` over the output channels and that of ``w``
    over the pixels of a register tile.
    """
    half = 2 * lanes

    def madd(a, b):
        return T.call_llvm_pure_intrin(f"int32x{lanes}", pmaddwd, a, b)

    def emit(acc, x, w):
        unsigned = T.reinterpret(f"uint16x{half}", T.broadcast(x, lanes))
        signed = T.reinterpret(f"int16x{half}", w)
        x_even = T.reinterpret(f"int16x{half}", unsigned & splat(255, "uint16", half))
        x_odd = T.reinterpret(f"int16x{half}", T.shift_right(unsigned, splat(8, "uint16", half)))
        eight = splat(8, "int16", half)
        w_even = T.shift_right(T.shift_left(signed, eight), eight)
        w_odd = T.shift_right(signed, eight)
        return acc + madd(x_even, w_even) + madd(x_odd, w_odd)

    return emit


def vnni_dot(vpdpbusd: str, lanes: int) -> Callable:
    """Four-way dot product by ``vpdpbusd``: u8 x s8 summed in int32, exact for all values."""

    def emit(acc, x, w):
        bytes_ = T.reinterpret(f"uint8x{4 * lanes}", T.broadcast(x, lanes))
        return T.call_llvm_pure_intrin(f"int32x{lanes}", vpdpbusd, acc, bytes_, w)

    return emit


def vnni_add_bytes(vpdpbusd: str, lanes: int) -> Callable:
    """``vpdpbusd`` with weights of 1."""

    def emit(acc, x):
        ones = splat(1, "int8", 4 * lanes)
        return T.call_llvm_pure_intrin(f"int32x{lanes}", vpdpbusd, acc, x, ones)

    return emit


def add_bytes(pmaddubsw: str, pmaddwd: str, lanes: int) -> Callable:
    """``vpmaddubsw`` with ones, whose sums fit int16, ``vpmaddwd`` with ones, ``vpaddd``."""
    widen = _widen(pmaddwd, lanes)

    def emit(acc, x):
        ones = splat(1, "int8", 4 * lanes)
        return widen(acc, T.call_llvm_pure_intrin(f"int16x{2 * lanes}", pmaddubsw, x, ones))

    return emit


def pair_dot(pmaddwd: str, lanes: int, registers: int) -> PairDot:
    """Two-way int16 dot product by ``vpmaddwd`` + ``vpaddd``: two instructions, 2 MACs a lane.

    Two products of -32768 by -32768 would be one too many for int32; nobody multiplies those here.
    """

    def emit(acc, x, w):
        pairs = T.reinterpret(f"int16x{2 * lanes}", T.broadcast(x, lanes))
        return acc + T.call_llvm_pure_intrin(f"int32x{lanes}", pmaddwd, pairs, w)

    return PairDot(name="vpmaddwd", emit=emit, cost=2, tile_registers=registers)


def vnni_pair_dot(vpdpwssd: str, lanes: int, registers: int) -> PairDot:
    """Two-way int16 dot product by ``vpdpwssd``: 2 MACs a lane and instruction."""

    def emit(acc, x, w):
        pairs = T.reinterpret(f"int16x{2 * lanes}", T.broadcast(x, lanes))
        return T.call_llvm_pure_intrin(f"int32x{lanes}", vpdpwssd, acc, pairs, w)

    return PairDot(name="vpdpwssd", emit=emit, cost=1, tile_registers=registers)


def byte_shuffle(pshufb: str, lanes: int) -> Callable:
    """``vpshufb``: each 16 bytes are a table for themselves, and index 128 gives 0."""
    size = 4 * lanes

    def emit(table, index):
        signed = (T.reinterpret(f"int8x{size}", operand) for operand in (table, index))
        return T.reinterpret(
            f"uint8x{size}", T.call_llvm_pure_intrin(f"int8x{size}", pshufb, *signed)
        )

    return emit


def shuffle_lookup(pshufb: str, lanes: int, registers: int) -> TableLookup:
    """Look-ups in tables of 16 bytes, one instruction for ``4 * lanes`` of them."""
    emit = byte_shuffle(pshufb, lanes)
    return TableLookup("vpshufb", 4 * lanes, 4, emit, emit, registers)
