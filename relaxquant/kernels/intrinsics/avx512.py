"""AVX-512: 512-bit vectors and 32 registers, without and with the VNNI dot product."""

from __future__ import annotations

from ..tir import T
from .base import DotProduct, InstructionSet
from .x86 import pair_dot, saturating_dots, vnni_dot, vnni_pair_dot, widening_dot

LANES = 16
# On Zen 4, which multiplies one 512-bit vector a cycle, with a latency of four, and loads more.
MEASURED = {"in_flight": 7, "load_cost": 0.5}
PMADDWD = "llvm.x86.avx512.pmaddw.d.512"
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
        *saturating_dots(
            "llvm.x86.avx512.pmaddubs.w.512", PMADDWD, LANES, registers={4: 20, 2: 20, 1: 20}
        ),
        DotProduct(name="vpmaddwd", emit=widening_dot(PMADDWD, LANES), cost=4, tile_registers=20),
    ),
    round_to_int=_round_to_int,
    pair_dot=pair_dot(PMADDWD, LANES, registers=24),
    **MEASURED,
)

_VPDPBUSD = vnni_dot("llvm.x86.avx512.vpdpbusd.512", LANES)

AVX512_VNNI = InstructionSet(
    name="avx512_vnni",
    features=AVX512.features | {"avx512vnni"},
    lanes=LANES,
    tile_registers=25,
    dots=(DotProduct(name="vpdpbusd", emit=_VPDPBUSD, cost=1, tile_registers=25),),
    round_to_int=_round_to_int,
    pair_dot=vnni_pair_dot("llvm.x86.avx512.vpdpwssd.512", LANES, registers=25),
    **MEASURED,
)
