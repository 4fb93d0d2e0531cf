"""Instruction sets: what a schedule needs to know of a CPU, one file each.

A schedule asks for the vector width, the number of registers and a four-way dot product; it never
names an instruction. To teach the library another CPU, add a file here and list it in
`INSTRUCTION_SETS`.
"""

from __future__ import annotations

import tvm

from ... import target as _target
from .arm import NEON, NEON_DOTPROD, NEON_I8MM
from .avx2 import AVX2, AVX2_VNNI
from .avx512 import AVX512, AVX512_VNNI
from .base import DotProduct, InstructionSet, proven_free_of_saturation
from .generic import GENERIC

# Widest first: the first one whose features the target has is taken.
INSTRUCTION_SETS: tuple[InstructionSet, ...] = (
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
    """The best instruction set that ``target`` has all features of."""
    available = _target.features(target)
    return next(isa for isa in INSTRUCTION_SETS if isa.features <= available)


__all__ = [
    "AVX2",
    "AVX2_VNNI",
    "AVX512",
    "AVX512_VNNI",
    "GENERIC",
    "INSTRUCTION_SETS",
    "NEON",
    "NEON_DOTPROD",
    "NEON_I8MM",
    "DotProduct",
    "InstructionSet",
    "instruction_set",
    "proven_free_of_saturation",
]
