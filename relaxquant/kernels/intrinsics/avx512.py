"""AVX-512: 512-bit vectors and 32 registers; with the VNNI dot product; with look-ups of VBMI."""

from __future__ import annotations

from dataclasses import replace

from ..tir import T
from .base import BitCount, DotProduct, InstructionSet, TableLookup
from .x86 import (
    add_bytes,
    byte_shuffle,
    pair_dot,
    saturating_dots,
    shuffle_lookup,
    vnni_add_bytes,
    vnni_dot,
    vnni_pair_dot,
    widening_dot,
)

LANES = 16
# On Zen 4, which multiplies one 512-bit vector a cycle, with a latency of four, and loads more.
MEASURED = {"in_flight": 7, "load_cost": 0.5}
PMADDUBSW = "llvm.x86.avx512.pmaddubs.w.512"
PMADDWD = "llvm.x86.avx512.pmaddw.d.512"
PSHUFB = "llvm.x86.avx512.pshuf.b.512"
ROUND_CURRENT = 4  # _MM_FROUND_CUR_DIRECTION


def _round_to_int(v):
    return T.call_llvm_pure_intrin(
        f"int32x{LANES}",
        "llvm.x86.avx512.mask.cvtps2dq.512",
        v,
        T.broadcast(T.int32(0), LANES),
        T.int16(-1),
        T.int32(ROUND_CURRENT),
    )


AVX512 = InstructionSet(
    name="avx512",
    features=frozenset({"avx512f", "avx512bw", "avx512vl"}),
    lanes=LANES,
    tile_registers=25,
    dots=(
        *saturating_dots(PMADDUBSW, PMADDWD, LANES, registers={4: 20, 2: 20, 1: 20}),
        DotProduct(name="vpmaddwd", emit=widening_dot(PMADDWD, LANES), cost=4, tile_registers=20),
    ),
    round_to_int=_round_to_int,
    pair_dot=pair_dot(PMADDWD, LANES, registers=24),
    lookup=shuffle_lookup(PSHUFB, LANES, registers=28),
    add_bytes=add_bytes(PMADDUBSW, PMADDWD, LANES),
    **MEASURED,
)

VPDPBUSD = "llvm.x86.avx512.vpdpbusd.512"
_VPDPBUSD = vnni_dot(VPDPBUSD, LANES)

AVX512_VNNI = InstructionSet(
    name="avx512_vnni",
    features=AVX512.features | {"avx512vnni"},
    lanes=LANES,
    tile_registers=25,
    dots=(DotProduct(name="vpdpbusd", emit=_VPDPBUSD, cost=1, tile_registers=25),),
    round_to_int=_round_to_int,
    pair_dot=vnni_pair_dot("llvm.x86.avx512.vpdpwssd.512", LANES, registers=25),
    lookup=AVX512.lookup,
    add_bytes=vnni_add_bytes(VPDPBUSD, LANES),
    **MEASURED,
)


def _vpermb(table, index):
    size = f"uint8x{4 * LANES}"
    return T.call_llvm_pure_intrin(size, "llvm.x86.avx512.permvar.qi.512", table, index)


def _count_bits(x, w):
    both = T.bitwise_and(T.broadcast(x, LANES), w)
    return T.call_llvm_pure_intrin(f"int32x{LANES}", "llvm.ctpop.v16i32", both)


def _top_bits(x):
    signed = T.reinterpret("int8x16", x)
    return T.call_llvm_pure_intrin("int32", "llvm.x86.sse2.pmovmskb.128", signed)


# Ice Lake, Sapphire Rapids, Zen 4: VBMI looks up in a whole register of 64 bytes, and VPOPCNTDQ,
# which they have too, counts the bits of every lane.
AVX512_VBMI = replace(
    AVX512_VNNI,
    name="avx512_vbmi",
    features=AVX512_VNNI.features | {"avx512vbmi", "avx512vpopcntdq"},
    lookup=TableLookup(
        "vpermb", 4 * LANES, 6, _vpermb, byte_shuffle(PSHUFB, LANES), tile_registers=28
    ),
    bit_count=BitCount("vpopcntd", _count_bits, _top_bits, cost=1.5, tile_registers=26),
)
