"""Building blocks shared by the x86 instruction sets: the same instruction at 256 and 512 bits."""

from __future__ import annotations

from collections.abc import Callable

from ..tir import T, splat


def saturating_dot(pmaddubsw: str, pmaddwd: str, lanes: int) -> Callable:
    """Four-way dot product by ``vpmaddubsw`` + ``vpmaddwd`` + ``vpaddd``.

    ``vpmaddubsw`` adds two u8 x s8 products into a *saturating* int16; ``vpmaddwd`` with ones
    widens and adds two of those. Three instructions for ``4 * lanes`` MACs.
    """

    def emit(acc, x, w):
        bytes_ = T.reinterpret(f"uint8x{4 * lanes}", T.broadcast(x, lanes))
        sums = T.call_llvm_pure_intrin(f"int16x{2 * lanes}", pmaddubsw, bytes_, w)
        ones = splat(1, "int16", 2 * lanes)
        return acc + T.call_llvm_pure_intrin(f"int32x{lanes}", pmaddwd, sums, ones)

    return emit


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
