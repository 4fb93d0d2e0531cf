"""Instruction sets: what a schedule needs to know of a CPU.

A schedule asks for the vector width, the number of registers and a dot product, of four bytes or
of two int16; it never names an instruction. Another CPU is one more file here (or one more entry in
the file of its family) and a line in `INSTRUCTION_SETS`; nothing else names a CPU:

- `InstructionSet.features`, LLVM's names, say which targets get it;
- each `DotProduct` adds u8 x s8 products to int32 lanes, exactly: for all values, or for the
  weights that a proof accepts (`proven_free_of_saturation`); one that is exact for all comes last;
- a `PairDot`, which may be missing, adds int16 products;
- a `TableLookup`, which may be missing, looks up bytes in tables, and a `BitCount` counts bits;
- a CPU without a dot product takes the plain arithmetic of `generic`;
- a GPU of NVIDIA's gets one by its compute capability (`cuda`).

``tests/kernels`` compiles for CPUs that are not at hand and counts instructions; how to run such
code is the affair of whoever has the CPU, or an emulator.
"""

from __future__ import annotations

import tvm

from ... import target as _target
from .arm import NEON, NEON_DOTPROD, NEON_I8MM
from .avx2 import AVX2, AVX2_VNNI
from .avx512 import AVX512, AVX512_VBMI, AVX512_VNNI
from .base import (
    BitCount,
    DotProduct,
    InstructionSet,
    PairDot,
    ShortSums,
    TableLookup,
    fits_int16,
    proven_free_of_saturation,
)
from .cuda import CUDA_DP4A, CUDA_MMA_SM75, CUDA_MMA_SM80, CUDA_SETS
from .generic import GENERIC

# Widest first: the first one whose features the target has is taken.
INSTRUCTION_SETS: tuple[InstructionSet, ...] = (
    AVX512_VBMI,
    AVX512_VNNI,
    AVX512,
    AVX2_VNNI,
    AVX2,
    NEON_I8MM,
    NEON_DOTPROD,
    NEON,
    GENERIC,
)


def instruction_set(target: tvm.target.Target) -> InstructionSet:
    """The best instruction set that ``target`` has all features of, or the compute capability."""
    if _target.is_cuda(target):
        capability = _target.compute_capability(target)
        return next(isa for least, isa in CUDA_SETS if least <= capability)
    available = _target.features(target)
    return next(isa for isa in INSTRUCTION_SETS if isa.features <= available)


__all__ = [
    "AVX2",
    "AVX2_VNNI",
    "AVX512",
    "AVX512_VBMI",
    "AVX512_VNNI",
    "CUDA_DP4A",
    "CUDA_MMA_SM75",
    "CUDA_MMA_SM80",
    "GENERIC",
    "INSTRUCTION_SETS",
    "NEON",
    "NEON_DOTPROD",
    "NEON_I8MM",
    "BitCount",
    "DotProduct",
    "InstructionSet",
    "PairDot",
    "ShortSums",
    "TableLookup",
    "fits_int16",
    "instruction_set",
    "proven_free_of_saturation",
]
