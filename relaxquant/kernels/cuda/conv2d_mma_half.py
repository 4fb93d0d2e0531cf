"""Schedule ``cuda_mma`` for float16: convolution and dense layers on tensor cores, from sm_80 on.

The kernel of int8 (`conv2d_mma`) with inputs of 16 bits: a warp computes a tile (`mma_tile`), 16
input channels of a tap at a time, in as many instructions and registers as int8 takes for 32.
Products of ``mma.sync.m16n8k16`` are exact and summed in float32; bias, residual and clip are added
to these sums, and what is stored is rounded to float16 once.

The instruction counts 16 inputs, of which a thread has two pairs that lie 8 apart. Which input is
which does not matter as long as both operands agree: here the two pairs are neighbours in memory,
so that a thread loads its four channels of a pixel at once, and eight rows by four threads are 256
bytes in a row.

Packing: activations NCHW16c; weights (O / 16, I / 16, KH, KW, 32 threads, 8 halves), 16 bytes being
what a thread holds of 16 output channels.

What limits it: not measured; for a multiply-add twice the bytes and the instructions of int8.

Ideal speedup over scalar fp32: 2048 multiply-adds of a warp's instruction over 32, 64.

Source: NVIDIA's PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type"; the kernel
is our own.
"""

from __future__ import annotations

from ..epilogue import conv_arguments
from ..intrinsics import InstructionSet
from ..registry import Implementation, register
from ..spec import ConvSpec, ConvWeights
from ..tile import Tile
from ..tir import CUDA, local, prim_func
from .mma_tile import MmaTile, applies, pack_fragments, tile_of
from .thread_tile import FOUR

NAME = "cuda_mma"
FUNCTION = "relaxquant_mma_f16"
PAIR = 2  # halves in a register
# As `conv2d_mma` names them.
_LINE = """
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(top[@]), "+f"(top[@ + 1]), "+f"(bottom[@]), "+f"(bottom[@ + 1])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b@), "r"(b#));"""
_LINES = "".join(_LINE.replace("@", str(k)).replace("#", str(k + 1)) for k in (0, 2))
SOURCE = f"""__forceinline__ __device__ void {FUNCTION}(
    float* top, float* bottom, int a0, int a1, int a2, int a3, int b0, int b1, int b2, int b3) {{
{_LINES}
}}
"""


@register(NAME, precisions=("fp16",), machines=(CUDA,))
def by_half_mma(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Implicit GEMM on tensor cores."""
    if not isa.half_matrix_multiply or not applies(spec):
        return None
    tile = tile or tile_of(spec)
    packed = pack_fragments(spec, weights.weight, PAIR, side_by_side=True)
    return Implementation(
        schedule=NAME,
        instructions=isa.half_matrix_multiply,
        key=(NAME, spec, isa.name, tile),
        build=lambda: prim_func(lambda: HalfMmaConv2d(spec, isa, tile).emit()),
        arguments=conv_arguments(spec, weights, [packed]),
        tile=tile,
    )


class HalfMmaConv2d(MmaTile):
    """Emits the convolution in float16."""

    weight_dtype, function, source = "float16", FUNCTION, SOURCE

    def load_words(self, i: int, block, kh, kw) -> list:
        """Four channels of the block."""
        words = local(2, "int32")
        self.load_pixel(words, i, block, kh, kw, self.thread % FOUR * FOUR, FOUR)
        return [words[k] for k in (0, 1)]
