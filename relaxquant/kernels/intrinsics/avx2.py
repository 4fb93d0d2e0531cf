"""AVX2: 256-bit vectors, 16 registers, no integer dot product of its own."""

from __future__ import annotations

from ..tir import T
from .base import DotProduct, InstructionSet
from .x86 import saturating_dots, widening_dot

LANES = 8
PMADDWD = "llvm.x86.avx2.pmadd.wd"


def _round_to_int(v):
    return T.call_llvm_pure_intrin(f"int32x{LANES}", "llvm.x86.avx.cvt.ps2dq.256", v)


AVX2 = InstructionSet(
    name="avx2",
    features=frozenset({"avx2", "fma"}),
    lanes=LANES,
    tile_registers=14,
    dots=(
        *saturating_dots(
            "llvm.x86.avx2.pmadd.ub.sw", PMADDWD, LANES, registers={4: 10, 2: 10, 1: 10}
        ),
        DotProduct(
            name="vpmaddwd",
            emit=widening_dot(PMADDWD, LANES),
            cost=4,
            tile_registers=10,
        ),
    ),
    round_to_int=_round_to_int,
)
