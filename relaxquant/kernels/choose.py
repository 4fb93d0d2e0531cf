"""``schedule="auto"``: the table of rules that says which schedule a layer gets, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .intrinsics import InstructionSet
from .lookup_plan import work
from .spec import ConvSpec, ConvWeights
from .weight_bits import bits_of


@dataclass(frozen=True)
class Preference:
    """A line of the table: layers for which ``holds(spec, weights, isa)`` get ``schedule``."""

    schedule: str
    holds: Callable[[ConvSpec, ConvWeights, InstructionSet], bool]
    reason: str


def in_nhwc(spec: ConvSpec, _weights: ConvWeights, _isa: InstructionSet) -> bool:
    """Whether the network is in NHWC, because a schedule was asked for that is."""
    return spec.out.nhwc


def _winograd_pays_off(spec: ConvSpec, _weights: ConvWeights, _isa: InstructionSet) -> bool:
    """From 4 x 4 outputs on (measured: 2 to 3.4 times as fast, 1.3 times on 512 x 7 x 7)."""
    is_fp32 = spec.precision == "fp32" and spec.window.kernel == (3, 3)
    return is_fp32 and min(spec.out.height, spec.out.width) >= 4


def _winograd_int_pays_off(spec: ConvSpec, _weights: ConvWeights, isa: InstructionSet) -> bool:
    """Where two int16 products take fewer instructions than four of bytes: not with VNNI.

    Measured with AVX2 and AVX-512: 1.4 to 1.65 times as fast from 48 channels on, as fast for 32
    (where the transforms weigh more) and for images of 7 x 7 (where reading the weights does).
    """
    is_int8 = spec.precision == "int8" and spec.window.kernel == (3, 3)
    if not is_int8 or isa.pair_dot is None or isa.pair_dot.cost >= isa.dots[0].cost:
        return False
    channels = min(spec.data.channels, spec.out.channels)
    return channels >= 32 and min(spec.out.height, spec.out.width) >= 8


# Instructions of look-ups that take as long as the direct schedule does for the same products of
# few bits, by instruction set; measured on Zen 4, which runs them all. Where none is given, none
# was measured.
LOOKUP_WORTH = {"avx512_vbmi": 9.0, "avx512_vnni": 5.5, "avx512": 7.8, "avx2": 9.0}
MARGIN = 0.87


def _lookup_pays_off(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> bool:
    """Weights of 1 or 2 bits, as far as `lookup_plan.work` counts less than direct convolution.

    Measured, 3x3 layers of a ResNet-18 on Zen 4: w1a4 2.2 to 2.7 times as fast as direct on
    AVX-512 and 2.6 on AVX2, w2a4 1.4, w1a8 1.1 to 1.4, and w2a8 slower (0.7); 1x1 layers gain
    where each table serves several vectors of output channels. Weights of 3 bits never do.
    """
    if isa.name not in LOOKUP_WORTH or spec.precision != "int8" or bits_of(weights.weight) > 2:
        return False
    return work(spec, weights, isa) < MARGIN * LOOKUP_WORTH[isa.name]


def _always(_spec: ConvSpec, _weights: ConvWeights, _isa: InstructionSet) -> bool:
    """For the lines at the end of the table."""
    return True


# Asked from the top; a schedule that does not apply to the layer after all is passed over.
PREFERENCES: tuple[Preference, ...] = (
    Preference("nhwc_quantized_interleaved", in_nhwc, "the network is in NHWC"),
    Preference("nhwc_spatial_pack", in_nhwc, "the network is in NHWC"),
    Preference(
        "nchw_winograd",
        _winograd_pays_off,
        "3x3 in 2.25 to 4 times fewer multiplications",
    ),
    Preference(
        "nchw_lookup",
        _lookup_pays_off,
        "few bits: looking up partial sums takes fewer instructions than multiplying",
    ),
    Preference(
        "nchw_winograd_int",
        _winograd_int_pays_off,
        "3x3 in 2.25 times fewer multiplications, where no one instruction multiplies bytes",
    ),
    Preference("nchw_spatial_pack", _always, "direct convolution"),
    Preference("reference", _always, "no vector schedule takes such groups"),
)


def preferences(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Preference]:
    """The lines of the table that hold for a layer, best first."""
    return [preference for preference in PREFERENCES if preference.holds(spec, weights, isa)]
