"""AVX2: 256-bit vectors and 16 registers, without and with the VNNI dot product (AVX-VNNI)."""

from __future__ import annotations

from ..tir import T
from .base import DotProduct, InstructionSet
from .x86 import (
    add_bytes,
    pair_dot,
    saturating_dots,
    short_sums,
    shuffle_lookup,
    vnni_add_bytes,
    vnni_dot,
    vnni_pair_dot,
    widening_dot,
)

LANES = 8
PMADDUBSW = "llvm.x86.avx2.pmadd.ub.sw"
PMADDWD = "llvm.x86.avx2.pmadd.wd"
LOOKUP = shuffle_lookup("llvm.x86.avx2.pshuf.b", LANES, registers=14)


def _round_to_int(v):
    return T.call_llvm_pure_intrin(f"int32x{LANES}", "llvm.x86.avx.cvt.ps2dq.256", v)


AVX2 = InstructionSet(
    name="avx2",
    features=frozenset({"avx2", "fma"}),
    lanes=LANES,
    tile_registers=14,
    dots=(
        *saturating_dots(PMADDUBSW, PMADDWD, LANES, registers={4: 10, 2: 10, 1: 10}),
        DotProduct(
            name="vpmaddwd",
            emit=widening_dot(PMADDWD, LANES),
            cost=4,
            tile_registers=10,
        ),
    ),
    round_to_int=_round_to_int,
    in_flight=7,  # measured on Zen 4: 1x7 leaves chained dot products the registers they need
    pair_dot=pair_dot(PMADDWD, LANES, registers=12),
    short_sums=short_sums(PMADDUBSW, PMADDWD, LANES, registers=10),
    add_bytes=add_bytes(PMADDUBSW, PMADDWD, LANES),
    lookup=LOOKUP,
)

# LLVM has one name for the 256-bit instruction and picks its encoding, here the VEX one.
VPDPBUSD = "llvm.x86.avx512.vpdpbusd.256"
_VPDPBUSD = vnni_dot(VPDPBUSD, LANES)

AVX2_VNNI = InstructionSet(
    name="avx2_vnni",
    features=AVX2.features | {"avxvnni"},
    lanes=LANES,
    tile_registers=14,
    dots=(DotProduct(name="vpdpbusd", emit=_VPDPBUSD, cost=1, tile_registers=14),),
    round_to_int=_round_to_int,
    pair_dot=vnni_pair_dot("llvm.x86.avx512.vpdpwssd.256", LANES, registers=14),
    add_bytes=vnni_add_bytes(VPDPBUSD, LANES),
    lookup=LOOKUP,
)
