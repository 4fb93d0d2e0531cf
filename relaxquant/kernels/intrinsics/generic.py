"""Any CPU: four-way dot products in plain vector arithmetic, left to LLVM."""

from __future__ import annotations

from ..tir import T, splat
from .base import DotProduct, InstructionSet, PairDot

LANES = 4


def _dot(acc, x, w):
    """Byte k of every lane is sign-extended by two shifts and multiplied by activation k."""
    words = T.reinterpret(f"int32x{LANES}", w)
    for k in range(4):
        weight = T.shift_right(
            T.shift_left(words, splat(24 - 8 * k, "int32", LANES)), splat(24, "int32", LANES)
        )
        activation = T.bitwise_and(T.shift_right(x, T.int32(8 * k)), T.int32(255))
        acc = acc + T.broadcast(activation, LANES) * weight
    return acc


def _pair_dot(acc, x, w):
    """The two halves of every lane are sign-extended by shifts, as are those of ``x``."""
    words, sixteen = T.reinterpret(f"int32x{LANES}", w), splat(16, "int32", LANES)
    low = T.broadcast(T.shift_right(T.shift_left(x, T.int32(16)), T.int32(16)), LANES)
    high = T.broadcast(T.shift_right(x, T.int32(16)), LANES)
    acc = acc + low * T.shift_right(T.shift_left(words, sixteen), sixteen)
    return acc + high * T.shift_right(words, sixteen)


def _round_to_int(v):
    return T.cast(T.nearbyint(v), f"int32x{LANES}")


GENERIC = InstructionSet(
    name="generic",
    features=frozenset(),
    lanes=LANES,
    tile_registers=14,
    dots=(DotProduct(name="int32 multiply-add", emit=_dot, cost=12, tile_registers=10),),
    round_to_int=_round_to_int,
    pair_dot=PairDot(name="int32 multiply-add", emit=_pair_dot, cost=6, tile_registers=10),
)
