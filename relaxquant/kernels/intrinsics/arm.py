"""64-bit ARM: NEON, and its dot products ``usdot`` (i8mm) and ``sdot`` (dotprod).

NEON has 128-bit vectors and 32 registers. ``usdot`` is what x86 calls ``vpdpbusd``: u8 x s8, four
products summed in each int32 lane. ``sdot`` takes two signed operands: activations are shifted by
128 to fit, and what that takes away, ``128 * sum(w)``, is added back from the weights alone. It
does not depend on the pixel, so LLVM computes it once for all pixels of a register tile.

Source: LLVM's names of the instructions from TVM's ``s_tir/tensor_intrin/arm_cpu.py``; the shift
is the usual one, e.g. in XNNPACK's ``qu8`` kernels.
"""

from __future__ import annotations

from dataclasses import replace

from ..tir import T, splat
from .base import DotProduct, InstructionSet, TableLookup
from .generic import GENERIC

LANES = 4
BYTES = 4 * LANES
SIGN_BITS = -0x7F7F7F80  # 0x80808080 as an int32


def _sdot_call(acc, x, w):
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", acc, x, w)


def _sdot_chain(acc, xs, ws):
    """``sum((x - 128) * w) - sum(-128 * w)``: exact for all values, as no term leaves int32."""
    lowest = splat(-128, "int8", BYTES)
    shift = splat(0, "int32", LANES)
    for x, w in zip(xs, ws, strict=True):
        flipped = T.bitwise_xor(T.broadcast(x, LANES), splat(SIGN_BITS, "int32", LANES))
        acc = _sdot_call(acc, T.reinterpret(f"int8x{BYTES}", flipped), w)
        shift = _sdot_call(shift, lowest, w)
    return acc - shift


def _sdot(acc, x, w):
    return _sdot_chain(acc, [x], [w])


def _usdot(acc, x, w):
    bytes_ = T.reinterpret(f"uint8x{BYTES}", T.broadcast(x, LANES))
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.usdot.v4i32.v16i8", acc, bytes_, w)


def _round_to_int(v):
    return T.call_llvm_pure_intrin("int32x4", "llvm.aarch64.neon.fcvtns.v4i32.v4f32", v)


def _tbl(table, index):
    signed = (T.reinterpret(f"int8x{BYTES}", operand) for operand in (table, index))
    found = T.call_llvm_pure_intrin(f"int8x{BYTES}", "llvm.aarch64.neon.tbl1.v16i8", *signed)
    return T.reinterpret(f"uint8x{BYTES}", found)


# Any index from 16 on gives 0.
_LOOKUP = TableLookup("tbl", BYTES, 4, _tbl, _tbl, tile_registers=28)

# ``mla`` multiplies a vector by one lane of another: the plain arithmetic needs nothing else, and
# widening to int16 (``smull``, ``sadalp``) would take as many instructions.
_PLAIN = replace(GENERIC.dots[0], cost=4, tile_registers=18)

NEON = InstructionSet(
    name="neon",
    features=frozenset({"neon", "v8a"}),
    lanes=LANES,
    tile_registers=26,
    dots=(_PLAIN,),
    round_to_int=_round_to_int,
    lookup=_LOOKUP,
)

NEON_DOTPROD = InstructionSet(
    name="neon_dotprod",
    features=NEON.features | {"dotprod"},
    lanes=LANES,
    tile_registers=26,
    dots=(DotProduct("sdot", _sdot, cost=1.5, tile_registers=20, chain=4, emit_chain=_sdot_chain),),
    round_to_int=_round_to_int,
    lookup=_LOOKUP,
)

NEON_I8MM = InstructionSet(
    name="neon_i8mm",
    features=NEON.features | {"i8mm"},
    lanes=LANES,
    tile_registers=26,
    dots=(DotProduct("usdot", _usdot, cost=1, tile_registers=24),),
    round_to_int=_round_to_int,
    lookup=_LOOKUP,
)
