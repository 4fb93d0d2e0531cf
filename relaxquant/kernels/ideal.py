"""The ideal speedup of a schedule: what its instructions could do if nothing else took time.

Defined as the multiply-accumulates (MACs) that an instruction of the schedule's inner loop does,
over the one of a scalar fp32 multiply-add. It follows from the lanes of a vector and from the
number of instructions that a vector of accumulators takes for one step; both are properties of the
`InstructionSet`. Loads, broadcasts, the epilogue and the memory are left out, and every
instruction is taken to cost the same: the part of it that is reached says what those cost.

The study's Table 2 (arXiv 2308.10905) has such a column, 16x or 4x, and does not say how it is
computed. These are the 8-bit and the 32-bit elements of a 128-bit register; its 16x for fp32 in
NCHW is not explained by that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import InputError
from .few_bits import COUNT, WORD
from .intrinsics import GENERIC, InstructionSet
from .lookup_plan import cut
from .registry import SCHEDULES, check_schedule
from .winograd_nest import UNROLL

Rate = Callable[[InstructionSet, str, int], float]


def ideal_speedup(
    schedule: str, isa: InstructionSet, precision: str, weight_max: int = 64
) -> float:
    """MACs for each instruction of a schedule's inner loop.

    Parameters
    ----------
    schedule : str
        Name in the schedule table.
    isa : InstructionSet
        Lanes, and the cost of the dot product.
    precision : str
        ``"fp32"``, ``"int8"`` or ``"int16"``.
    weight_max : int
        Largest magnitude of int8 weights, which decides on the dot product that is exact for all
        weights up to it. 64 is what `relaxquant.quantize` keeps to where ranges are reduced.

    Raises
    ------
    InputError
        If no schedule has that name, or not in that precision, or none is defined for it, or the
        instruction set lacks what the schedule needs.
    """
    check_schedule(schedule)
    if schedule not in RATES:
        raise InputError(
            f"schedule {schedule!r} has no ideal speedup (those that have: {', '.join(RATES)})"
        )
    if not any(row.name == schedule and precision in row.precisions for row in SCHEDULES):
        raise InputError(f"schedule {schedule!r} is not for precision {precision!r}")
    return RATES[schedule](isa, precision, weight_max)


def lookup_speedup(isa: InstructionSet, weight_bits: int, activation_bits: int) -> float:
    """The same for schedule ``nchw_lookup``, which depends on the bits of both.

    Raises
    ------
    InputError
        If the instruction set looks up no bytes.
    """
    if isa.lookup is None:
        raise InputError(f"schedule 'nchw_lookup' has no look-ups on {isa.name}")
    parts = cut((1 << activation_bits) - 1, isa.lookup.index_bits)
    instructions = weight_bits * sum(part.cost for part in parts)
    return isa.lookup.bytes * isa.lookup.index_bits / instructions


def bit_serial_speedup(isa: InstructionSet, weight_bits: int, activation_bits: int) -> float:
    """The same for schedule ``nchw_bit_serial``.

    Raises
    ------
    InputError
        If the instruction set counts no bits.
    """
    if isa.bit_count is None:
        raise InputError(f"schedule 'nchw_bit_serial' cannot count bits on {isa.name}")
    return WORD * isa.lanes / (COUNT * weight_bits * activation_bits)


def _vectors(isa: InstructionSet, precision: str, weight_max: int) -> float:
    """fp32: a multiply-add in every lane. Integers: the MACs of a lane over their dot's cost."""
    if precision == "fp32":
        return float(isa.lanes)
    if precision == "int16":
        return 2 * isa.lanes / (isa.pair_dot or GENERIC.pair_dot).cost
    weights = np.full((1, 4), weight_max, np.int8)
    return 4 * isa.lanes / isa.dot_for(weights).cost


def _widened(isa: InstructionSet, _precision: str, _weight_max: int) -> float:
    """One MAC a lane, in a multiplication and an addition, or both in one instruction."""
    fused = isa.features & {"avx512vnni", "avxvnni", "neon"}  # vpdpwssd, mla
    return isa.lanes / (1 if fused else 2)


def _scalar(_isa: InstructionSet, _precision: str, _weight_max: int) -> float:
    return 1.0


def _winograd(isa: InstructionSet, _precision: str, _weight_max: int) -> float:
    """A multiply-add in every lane, by F(4x4, 3x3) in the place of four."""
    return 4.0 * isa.lanes


def _winograd_int(isa: InstructionSet, _precision: str, _weight_max: int) -> float:
    """Two MACs a lane over the cost of their dot product, by F(2x2, 3x3) in the place of 2.25."""
    if isa.pair_dot is None:
        raise InputError(f"schedule 'nchw_winograd_int' has no dot product on {isa.name}")
    return 2.25 * 2 * isa.lanes / isa.pair_dot.cost


def _winograd_int8(isa: InstructionSet, _precision: str, _weight_max: int) -> float:
    """As the direct schedule with 4 bits by 4 bits, by F(2x2, 3x3) in the place of 2.25."""
    # At most 9 times weights of 7, by sums of four activations of 15: see the schedule.
    fours = np.full((UNROLL, 4), 9 * 7, np.int8)
    return 2.25 * 4 * isa.lanes / isa.dot_for(fours, 4 * 15, UNROLL).cost


# An algorithm that needs fewer multiplications has a rate multiplied by how many fewer.
RATES: dict[str, Rate] = {
    "nchw_spatial_pack": _vectors,
    "nchw_simd": _widened,
    "nhwc_spatial_pack": _vectors,
    "nhwc_quantized_interleaved": _vectors,
    "nchw_winograd": _winograd,
    "nchw_winograd_int": _winograd_int,
    "nchw_winograd_int8": _winograd_int8,
    "reference": _scalar,
}
