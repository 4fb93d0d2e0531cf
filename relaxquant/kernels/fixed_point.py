"""Requantization in integers, as TFLite's kernels do it: a 31-bit multiplier and two roundings.

``multiplier * 2**(shift - 31)`` stands for a real factor. The doubled product's high half is
rounded to the nearest, halves upward, and then divided by a power of two to the nearest, halves
away from zero. The two roundings are what makes results differ in the last bit from one product in
float32 (`requantize`). Products of dense layers are rounded once, halves away from zero: LiteRT's
reference kernels multiply them by the factor in float64, which 31 bits of it equal unless a product
comes within 2**-24 of a half.

A product of 32 bits fills a 64-bit lane, so even and odd lanes are multiplied by themselves; on
x86 each is one ``vpmuldq``. A GPU has an instruction for either half of it. `multiply` rounds step
by step. `multiply_at_once`, for shifts of ``e >= 1`` to the right, adds both roundings to the
product, which with ``x < 0`` counted as 1 is::

    floor((floor((x * m + 2**30) / 2**31) + 2**(e - 1) - (y < 0)) / 2**e)
        = floor((x * m + 2**30 + 2**(30 + e) - 2**31 * (x < 0)) / 2**(31 + e))

where ``y``, the inner quotient, is negative if ``x`` is, or is 0 and makes no difference. The high
32 bits of that sum, shifted by ``e - 1``, are the result: 11 instructions instead of 16, or 7 where
rounding of negative numbers does not matter. Rounded once it is::

    floor((x * m + 2**(30 + e) - (x < 0)) / 2**(31 + e))

Source: our own code for the arithmetic of gemmlowp's ``fixedpoint/fixedpoint.h``
(SaturatingRoundingDoublingHighMul, RoundingDivideByPOT), of TensorFlow Lite's
``kernels/internal/common.h`` (MultiplyByQuantizedMultiplier), and of LiteRT's
``kernels/internal/reference/integer_ops/fully_connected.h``.
"""

from __future__ import annotations

import numpy as np
import tvm

from .tir import T, is_for_gpu, splat

FLOAT, TFLITE = "float", "tflite"
REQUANTIZE = (FLOAT, TFLITE)
MOST = 22  # bits to the right, below which an offset of eight bits leaves no sum of 64 bits


def multiply(x, multiplier, right, lanes: int, left=None, once: bool = False):
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
    once : bool
        Round as dense layers do.
    """
    if once:
        left = splat(0, "int32", lanes) if left is None else left
        return _multiply_once(x, multiplier, right + splat(32, "int32", lanes) - left, lanes)
    if left is None:
        return divide_by_power_of_two(doubling_high(x, multiplier, lanes), right, lanes)
    high = doubling_high(T.shift_left(x, left), multiplier, lanes)
    zero = splat(0, "int32", lanes)
    divided = divide_by_power_of_two(high, T.max(right, zero), lanes)
    if not is_for_gpu():
        return T.Select(right < zero, high, divided)
    # TVM's CUDA of a vector's condition does not compile: by bits, all of them set where negative.
    negative = T.shift_right(right, splat(31, "int32", lanes))
    return T.bitwise_xor(divided, T.bitwise_and(T.bitwise_xor(divided, high), negative))


def doubling_high(a, b, lanes: int):
    """``floor((a * b + 2**30) / 2**31)``, for ``b`` not negative."""
    if is_for_gpu():
        return _doubling_high_by_halves(a, b, lanes)
    wide = lanes // 2
    a, b = (T.reinterpret(f"int64x{wide}", vector) for vector in (a, b))
    by_32 = splat(32, "int64", wide)
    nudge = splat(1 << 30, "int64", wide)

    even = _low(a, wide) * _low(b, wide) + nudge
    odd = T.shift_right(a, by_32) * T.shift_right(b, by_32) + nudge
    mask = splat((1 << 32) - 1, "int64", wide)
    even = T.bitwise_and(T.shift_right(even, splat(31, "int64", wide)), mask)
    odd = T.bitwise_and(T.shift_left(odd, splat(1, "int64", wide)), T.bitwise_not(mask))
    return T.reinterpret(f"int32x{lanes}", T.bitwise_or(even, odd))


def _multiply_once(x, multiplier, right, lanes: int):
    """``x * multiplier / 2**right`` to the nearest, halves away from zero."""
    if is_for_gpu():  # where a lane of 64 bits is as good as any
        wide = (T.cast(vector, f"int64x{lanes}") for vector in (x, multiplier, right))
        return T.cast(_rounded_quotient(*wide, lanes), f"int32x{lanes}")
    wide = lanes // 2
    by_32 = splat(32, "int64", wide)
    even, odd = [], []
    for vector in (x, multiplier, right):
        pair = T.reinterpret(f"int64x{wide}", vector)
        even.append(_low(pair, wide))
        odd.append(T.shift_right(pair, by_32))
    quotients = (_rounded_quotient(*factors, wide) for factors in (even, odd))
    halves = [T.reinterpret(f"int32x{lanes}", quotient) for quotient in quotients]
    lows = [T.int32(which * lanes + 2 * pair) for pair in range(wide) for which in (0, 1)]
    return tvm.tirx.Shuffle(halves, lows)


def _rounded_quotient(x, multiplier, bits, lanes: int):
    """The same of int64 x lanes."""
    one = splat(1, "int64", lanes)
    below = T.shift_right(x, splat(63, "int64", lanes))  # -1 if negative
    return T.shift_right(x * multiplier + T.shift_left(one, bits - one) + below, bits)


def _doubling_high_by_halves(a, b, lanes: int):
    """The same where an instruction gives the high half of a product, and another the low one.

    The last bit that is cut off rounds: below ``2**31`` it is worth ``2**30``.
    """
    high = T.call_pure_extern(f"int32x{lanes}", "__mulhi", a, b)
    left, right = (T.reinterpret(f"uint32x{lanes}", vector) for vector in (a, b))
    low = left * right
    last, cut = (T.shift_right(low, splat(bits, "uint32", lanes)) for bits in (31, 30))
    cut = T.bitwise_and(cut, splat(1, "uint32", lanes))
    doubled = T.shift_left(high, splat(1, "int32", lanes))
    return doubled + T.reinterpret(f"int32x{lanes}", last + cut)


def divide_by_power_of_two(x, exponent, lanes: int):
    """``x / 2**(exponent + 1)`` to the nearest, halves away from zero; ``x`` above INT32_MIN.

    Rounding a negative number's halves down is rounding those of the number before it up; adding
    half of the divisor could leave int32, so it is added after all but the last bit are gone.
    """
    one = splat(1, "int32", lanes)
    below = x + T.shift_right(x, splat(31, "int32", lanes))  # less 1 if negative
    return T.shift_right(T.shift_right(below, exponent) + one, one)


def takes_at_once(shift: np.ndarray) -> bool:
    """Whether `multiply_at_once` can shift so: to the right, and so that no sum leaves int64."""
    return bool(((shift <= -1) & (shift >= -MOST)).all())


def constants(
    multiplier: np.ndarray, shift: np.ndarray, offset: int = 0, once: bool = False
) -> list[np.ndarray]:
    """What `multiply_at_once` is given for channels whose shifts it takes.

    Parameters
    ----------
    multiplier, shift : numpy.ndarray
        (O,) int32, an even number of them: factors are ``multiplier * 2.0**(shift - 31)``.
    offset : int
        What is added to the results, in [-128, 255].
    once : bool
        Round as dense layers do.

    Returns
    -------
    list of numpy.ndarray
        Multipliers and roundings, int64 (2, O / 2), those of even channels first, and shifts, int32
        (O,).
    """
    exponent = -shift.astype(np.int64)
    roundings = (np.int64(1) << (30 + exponent)) + (np.int64(offset) << 31 + exponent)
    roundings += 0 if once else 1 << 30
    pairs = [array.astype(np.int64).reshape(-1, 2).T for array in (multiplier, roundings)]
    return [*map(np.ascontiguousarray, pairs), (exponent - 1).astype(np.int32)]


def multiply_at_once(
    x, multipliers: list, roundings: list, right, lanes: int, signed: bool = True,
    once: bool = False,
):  # fmt: skip
    """`multiply`, and the offset added, by what `constants` prepares.

    Parameters
    ----------
    x : TIR expression
        int32 x lanes.
    multipliers, roundings : list of TIR expression
        int64 x lanes / 2 each, for even and for odd lanes.
    right : TIR expression
        int32 x lanes.
    lanes : int
        An even number.
    signed : bool
        False where negative halves may as well be rounded upward.
    once : bool
        As for `constants`.
    """
    wide = lanes // 2
    even = T.reinterpret(f"int64x{wide}", x)
    odd = T.shift_right(even, splat(32, "int64", wide))
    sums = []
    for value, multiplier, rounding in zip((even, odd), multipliers, roundings, strict=True):
        total = _low(value, wide) * _low(multiplier, wide) + rounding
        if signed:
            sign = T.bitwise_and(value, splat(1 << 31, "int64", wide))
            total = total - (T.shift_right(sign, splat(31, "int64", wide)) if once else sign)
        sums.append(total)
    halves = [T.reinterpret(f"int32x{lanes}", each) for each in sums]
    highs = [T.int32(which * lanes + 2 * pair + 1) for pair in range(wide) for which in (0, 1)]
    return T.shift_right(tvm.tirx.Shuffle(halves, highs), right)


def _low(vector, wide: int):
    """The low halves of 64-bit lanes with their signs; costs nothing before ``vpmuldq``."""
    by_32 = splat(32, "int64", wide)
    return T.shift_right(T.shift_left(vector, by_32), by_32)
