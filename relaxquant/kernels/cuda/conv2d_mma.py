"""Schedule ``cuda_mma``: int8 convolution and dense layers as implicit GEMM on tensor cores.

A warp computes a tile (`mma_tile`), 32 input channels of a tap at a time. How a warp's registers
hold the operands of ``mma.sync.m16n8k32`` suits NCHW16c: the thread of a row and of four columns of
the left operand needs those four channels of two neighbouring blocks, each one word, and eight rows
by four threads are 128 bytes in a row of memory.

Packing: activations NCHW16c; weights (O / 16, I / 32, KH, KW, 32 threads, 16 bytes), 16 bytes being
what a thread holds of 16 output channels; an odd last block of inputs meets weights of 0.

On sm_75 eight of ``mma.sync.m8n8k16`` take the place of two of m16n8k32; the registers are the
same.

What limits it: not measured. Nothing is staged in shared memory, so each warp reads its operands
from the L1 cache: of 32 pixels by 64 channels, 32 * (32 + 64) bytes for 32 * 32 * 64 multiply-adds,
0.047 a multiply-add. An H100's L1 cache, whose rate is that of its shared memory, gives 0.034 at
the rate of its int8 tensor cores (``data/gpus.csv``): at most 72 % of it, be the operands staged or
not. Tiles of 64 x 64 would ask for 0.031, and 128 registers a thread for their sums.

Ideal speedup over scalar fp32: 4096 multiply-adds of a warp's instruction over 32, 128.

Source: NVIDIA's PTX ISA, "Matrix fragments for mma.m16n8k32" and "mma.m8n8k16"; the kernel is our
own.
"""

from __future__ import annotations

from ..epilogue import conv_arguments
from ..intrinsics import InstructionSet
from ..registry import Implementation, register
from ..spec import ConvSpec, ConvWeights
from ..tile import Tile
from ..tir import CUDA, T, ceildiv, local, prim_func
from .mma_tile import MmaTile, applies, pack_fragments, tile_of
from .thread_tile import FOUR

NAME = "cuda_mma"
FUNCTION = "relaxquant_mma_u8s8"
# Both halves of a product of 16 pixels x 16 channels x 32 inputs. ``top`` and ``bottom`` are the
# four channels of pixels 8 apart; a1 and a3 belong to the bottom, a2 and a3 to inputs 16 to 31.
_SIGNATURE = f"""__forceinline__ __device__ void {FUNCTION}(
    int* top, int* bottom, int a0, int a1, int a2, int a3, int b0, int b1, int b2, int b3)"""
_SM80 = """
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(top[@]), "+r"(top[@ + 1]), "+r"(bottom[@]), "+r"(bottom[@ + 1])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b@), "r"(b#));"""
_SM75 = """
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+r"(ROWS[@]), "+r"(ROWS[@ + 1]) : "r"(aI), "r"(bJ));"""


def source(isa: InstructionSet) -> str:
    """CUDA text of the function that multiplies, for a compute capability."""
    halves = ((0, 1), (2, 3))  # the registers of the right operand, and the sums, of eight channels
    if "m16n8k32" in isa.matrix_multiply:
        lines = [_SM80.replace("@", str(first)).replace("#", str(last)) for first, last in halves]
    else:
        lines = [
            _SM75.replace("ROWS", rows)
            .replace("@", str(half[0]))
            .replace("aI", f"a{left + 2 * k}")
            .replace("bJ", f"b{half[k]}")
            for half in halves
            for left, rows in enumerate(("top", "bottom"))
            for k in (0, 1)
        ]
    return f"{_SIGNATURE} {{{''.join(lines)}\n}}\n"


@register(NAME, precisions=("int8",), machines=(CUDA,))
def by_mma(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """Implicit GEMM on tensor cores."""
    if not isa.matrix_multiply or not applies(spec):
        return None
    tile = tile or tile_of(spec)
    return Implementation(
        schedule=NAME,
        instructions=isa.matrix_multiply,
        key=(NAME, spec, isa.name, tile),
        build=lambda: prim_func(lambda: MmaConv2d(spec, isa, tile).emit()),
        arguments=conv_arguments(spec, weights, [pack_fragments(spec, weights.weight)]),
        tile=tile,
    )


class MmaConv2d(MmaTile):
    """Emits the convolution in int8."""

    weight_dtype, function = "int8", FUNCTION

    def __init__(self, spec: ConvSpec, isa: InstructionSet, tile: Tile):
        super().__init__(spec, isa, tile)
        self.source = source(isa)

    def reduction_blocks(self) -> int:
        """Pairs of blocks."""
        return ceildiv(self.spec.data.blocks, 2)

    def load_words(self, i: int, block, kh, kw) -> list:
        """Four channels of either block of a pair."""
        words, first = [local(1, "int32") for _ in (0, 1)], self.thread % FOUR * FOUR
        for k, word in enumerate(words):
            # What is read twice where blocks are odd meets weights of 0.
            which = T.min(block * 2 + k, self.spec.data.blocks - 1)
            self.load_pixel(word, i, which, kh, kw, first, FOUR)
        return [word[0] for word in words]
