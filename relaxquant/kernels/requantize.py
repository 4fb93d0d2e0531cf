"""Between stored activations and float values, one vector at a time; shared by all kernels."""

from __future__ import annotations

from .intrinsics import InstructionSet
from .rounding import round_scalar, round_vector
from .spec import TensorSpec
from .tir import T, float_function, splat


def to_float(stored, spec: TensorSpec, lanes: int):
    """``float(stored - zero_point)`` for integers (in steps of their scale), or ``stored``.

    float32, whatever is stored.
    """
    if spec.is_float:
        return T.cast(stored, f"float32x{lanes}")
    steps = T.cast(stored, f"int32x{lanes}")
    if spec.zero_point:
        steps = steps - splat(spec.zero_point, "int32", lanes)
    return T.cast(steps, f"float32x{lanes}")


def clip_vector(value, low, high, lanes: int):
    """``value`` bounded by the scalars ``low`` and ``high``."""
    return T.min(T.max(value, T.broadcast(low, lanes)), T.broadcast(high, lanes))


def from_float(value, low, high, spec: TensorSpec, isa: InstructionSet, clip: bool = True):
    """The stored form of a vector of floats in output units.

    Integers are clipped, rounded as the tensor says and shifted by the zero point, in this order:
    the clip bounds the value, so that no conversion can overflow. Floats are only clipped, if
    ``clip``, and float16 rounded.
    """
    if spec.is_float:
        value = clip_vector(value, low, high, isa.lanes) if clip else value
        return T.cast(value, f"{spec.dtype}x{isa.lanes}")
    rounded = round_vector(clip_vector(value, low, high, isa.lanes), spec.rounding, isa)
    if spec.zero_point:
        rounded = rounded + splat(spec.zero_point, "int32", isa.lanes)
    return T.cast(rounded, f"{spec.dtype}x{isa.lanes}")


def fused_multiply_add(a, b, c, lanes: int):
    """``a * b + c`` rounded once, on every target (LLVM would otherwise choose for itself)."""
    dtype = f"float32x{lanes}" if lanes > 1 else "float32"
    return float_function("llvm.fma", dtype, a, b, c)


def to_float_scalar(stored, spec: TensorSpec):
    """`to_float` for one element."""
    if spec.is_float:
        return T.cast(stored, "float32")
    return T.cast(T.cast(stored, "int32") - spec.zero_point, "float32")


def from_float_scalar(value, low, high, spec: TensorSpec):
    """`from_float` for one element."""
    value = T.min(T.max(value, low), high)
    if spec.is_float:
        return T.cast(value, spec.dtype)
    return T.cast(round_scalar(value, spec.rounding) + spec.zero_point, spec.dtype)
