"""Requantization in integers, as TFLite's kernels do it: a 31-bit multiplier and two roundings.

``multiplier * 2**(shift - 31)`` stands for a real factor. The doubled product's high half is
rounded to the nearest, halves upward, and then divided by a power of two to the nearest, halves
away from zero. The two roundings are what makes results differ in the last bit from one product in
float32 (`requantize`).

Two products of 32 bits fill a 64-bit lane, so even and odd lanes are multiplied by themselves; on
x86 each is one ``vpmuldq``.

Source: our own code for the arithmetic of gemmlowp's ``fixedpoint/fixedpoint.h``
(SaturatingRoundingDoublingHighMul, RoundingDivideByPOT) and of TensorFlow Lite's
``kernels/internal/common.h`` (MultiplyByQuantizedMultiplier).
"""

from __future__ import annotations

from .tir import T, splat

FLOAT, TFLITE = "float", "tflite"
REQUANTIZE = (FLOAT, TFLITE)


def multiply(x, multiplier, right, lanes: int, left=None):
    """MultiplyByQuantizedMultiplier of a vector of int32, bit for bit.

    Parameters
    ----------
    x : TIR expression
        int32 x lanes.
    multiplier : TIR expression
        int32 x lanes, not negative.
    right : TIR expression
        int32 x lanes: how far the product is shifted to the right, less 1. Where ``left`` is given,
        -1 stands for no shift.
    lanes : int
        An even number.
    left : TIR expression, optional
        int32 x lanes: how far ``x`` is shifted to the left before; where it is, there is no shift
        to the right. None where no lane is.
    """
    if left is None:
        return divide_by_power_of_two(doubling_high(x, multiplier, lanes), right, lanes)
    high = doubling_high(T.shift_left(x, left), multiplier, lanes)
    zero = splat(0, "int32", lanes)
    divided = divide_by_power_of_two(high, T.max(right, zero), lanes)
    return T.Select(right < zero, high, divided)


def doubling_high(a, b, lanes: int):
    """``floor((a * b + 2**30) / 2**31)``, for ``b`` not negative."""
    wide = lanes // 2
    a, b = (T.reinterpret(f"int64x{wide}", vector) for vector in (a, b))
    by_32 = splat(32, "int64", wide)
    nudge = splat(1 << 30, "int64", wide)

    def low(vector):
        return T.shift_right(T.shift_left(vector, by_32), by_32)

    even = low(a) * low(b) + nudge
    odd = T.shift_right(a, by_32) * T.shift_right(b, by_32) + nudge
    mask = splat((1 << 32) - 1, "int64", wide)
    even = T.bitwise_and(T.shift_right(even, splat(31, "int64", wide)), mask)
    odd = T.bitwise_and(T.shift_left(odd, splat(1, "int64", wide)), T.bitwise_not(mask))
    return T.reinterpret(f"int32x{lanes}", T.bitwise_or(even, odd))


def divide_by_power_of_two(x, exponent, lanes: int):
    """``x / 2**(exponent + 1)`` to the nearest, halves away from zero; ``x`` above INT32_MIN.

    Rounding a negative number's halves down is rounding those of the number before it up; adding
    half of the divisor could leave int32, so it is added after all but the last bit are gone.
    """
    one = splat(1, "int32", lanes)
    below = x + T.shift_right(x, splat(31, "int32", lanes))  # less 1 if negative
    return T.shift_right(T.shift_right(below, exponent) + one, one)
