"""CUDA: four-way dot products in a thread from sm_61 on, matrix products in a warp from sm_75 on.

Source: NVIDIA's PTX ISA, ``dp4a`` and ``mma.sync`` with .u8 and .s8, or .f16, operands.
"""

from __future__ import annotations

from ..tir import CUDA, T
from .base import DotProduct, InstructionSet

LANES = 4


def dp4a(acc, x, w):
    """``acc`` and four products: all int32 scalars, ``x`` holds four uint8 and ``w`` four int8."""
    # With an unsigned first argument it is the overload that TVM's CUDA header declares.
    return T.call_pure_extern("int32", "__dp4a", T.reinterpret("uint32", x), w, acc)


def _dot(acc, x, w):
    words = T.reinterpret(f"int32x{LANES}", w)
    return T.call_pure_extern(
        f"int32x{LANES}", "__dp4a", T.broadcast(T.reinterpret("uint32", x), LANES), words, acc
    )


def _round_to_int(v):
    return T.call_pure_extern(f"int32x{LANES}", "__float2int_rn", v)


def _of(name: str, matrix_multiply: str = "", half_matrix_multiply: str = "") -> InstructionSet:
    return InstructionSet(
        name=name,
        features=frozenset(),
        lanes=LANES,
        tile_registers=64,
        dots=(DotProduct(name="dp4a", emit=_dot, cost=LANES, tile_registers=64),),
        round_to_int=_round_to_int,
        machine=CUDA,
        matrix_multiply=matrix_multiply,
        half_matrix_multiply=half_matrix_multiply,
    )


CUDA_DP4A = _of("cuda_dp4a")
CUDA_MMA_SM75 = _of("cuda_mma_sm75", "mma.sync.m8n8k16")
CUDA_MMA_SM80 = _of("cuda_mma_sm80", "mma.sync.m16n8k32", "mma.sync.m16n8k16")

# Least compute capability, highest first.
CUDA_SETS: tuple[tuple[int, InstructionSet], ...] = (
    (80, CUDA_MMA_SM80),
    (75, CUDA_MMA_SM75),
    (61, CUDA_DP4A),
)
