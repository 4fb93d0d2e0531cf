"""How a value between two integers becomes one of them: the four ways, for vectors and scalars.

``"TOEVEN"`` is what the conversion instructions do by themselves: to the nearest, halves to the
even one. The others take one or two instructions more: ``"UPWARD"`` is ``floor(v + 0.5)`` in
float32, ``"TONEAREST"`` rounds halves away from zero, ``"DOWN"`` is the floor.
"""

from __future__ import annotations

from .intrinsics import InstructionSet
from .tir import T, float_function, splat, unfused_add

TO_EVEN = "TOEVEN"
ROUNDINGS = (TO_EVEN, "UPWARD", "TONEAREST", "DOWN")


def round_vector(value, rounding: str, isa: InstructionSet):
    """A vector of float32 as int32."""
    kind = f"float32x{isa.lanes}"
    if rounding == "UPWARD":
        value = unfused_add(value, splat(0.5, "float32", isa.lanes), kind)
    if rounding != TO_EVEN:
        name = "llvm.round" if rounding == "TONEAREST" else "llvm.floor"
        value = float_function(name, kind, value)
    return isa.round_to_int(value)


def round_scalar(value, rounding: str):
    """One float32 as int32."""
    if rounding == "UPWARD":
        value = T.floor(unfused_add(value, T.float32(0.5), "float32"))
    elif rounding == "TONEAREST":
        # T.round would not do: TVM 0.27 makes it llvm.nearbyint, halves to the even one.
        value = float_function("llvm.round", "float32", value)
    elif rounding == "DOWN":
        value = T.floor(value)
    else:
        value = T.nearbyint(value)
    return T.cast(value, "int32")
