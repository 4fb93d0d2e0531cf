"""``schedule="auto"``: the table of rules that says which schedule a layer gets, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .few_bits import bit_serial_work, lookup_work
from .intrinsics import InstructionSet
from .short_sums import run_of
from .spec import ConvSpec, ConvWeights
from .tir import CUDA
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


def _winograd_pays_off(spec: ConvSpec, weights: ConvWeights, _isa: InstructionSet) -> bool:
    """From 4 x 4 outputs on (measured: 2 to 3.4 times as fast, 1.3 times on 512 x 7 x 7).

    Not for weights that are all whole numbers: those simulate integers (`lower.simulate`), whose
    sums direct convolution keeps exact.
    """
    is_fp32 = spec.precision == "fp32" and spec.window.kernel == (3, 3)
    if not is_fp32 or min(spec.out.height, spec.out.width) < 4:
        return False
    return not np.array_equal(weights.weight, np.rint(weights.weight))


def _winograd_int_pays_off(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> bool:
    """Where two int16 products take fewer instructions than four of bytes: not with VNNI.

    Nor where few bits let direct convolution sum in int16: as fast (0.95 to 1.4 times, measured
    with AVX2), and its weights lie packed instead of in 3.6 bytes each.

    Measured with AVX2 and AVX-512: 1.4 to 1.65 times as fast from 48 channels on, as fast for 32
    (where the transforms weigh more) and for images of 7 x 7 (where reading the weights does).
    """
    is_int8 = spec.precision == "int8" and spec.window.kernel == (3, 3)
    if not is_int8 or isa.pair_dot is None or isa.pair_dot.cost >= isa.dots[0].cost:
        return False
    channels = min(spec.data.channels, spec.out.channels)
    if channels < 32 or min(spec.out.height, spec.out.width) < 8:
        return False
    return not run_of(spec, weights, isa)


# Instructions, as `few_bits` counts them, that take as long as the direct schedule does for the
# same products of few bits; measured on Zen 4, which runs all of these sets. Others were not
# measured.
FEW_BITS_WORTH = {"avx512_vbmi": 9.0, "avx512_vnni": 5.5, "avx512": 7.8, "avx2": 7.5}
MARGIN = 0.87
# How many times as fast as direct convolution Winograd in bytes is for them, where its tiles of
# 2 x 2 fit the image well, and on 7 x 7.
WINOGRAD_GAIN, SMALL_WINOGRAD_GAIN = 1.8, 1.2


def _few_bits(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> bool:
    """Whether a layer of 1 or 2 bits meets an instruction set that was measured."""
    known = isa.name in FEW_BITS_WORTH and spec.precision == "int8"
    return known and bits_of(weights.weight) <= 2


def _lookup_pays_off(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> bool:
    """Weights of 1 or 2 bits, as far as fewer instructions are counted than direct convolution's.

    Measured on Zen 4, 3x3 layers of a ResNet-18, against direct convolution of the same bits: w1a4
    2.2 to 2.7 times as fast with AVX-512, w2a4 1.3 to 1.5, w1a8 1.1 to 1.4, and w2a8 slower (0.7);
    with AVX2, whose direct convolution sums few bits in int16, 2.1 to 2.3, 1.0 to 1.2 and 1.15; 1x1
    layers gain where each table serves several vectors of output channels. Weights of 3 bits never
    do: three passes over the tables take as long as to multiply.
    """
    if not _few_bits(spec, weights, isa):
        return False
    return lookup_work(spec, weights, isa) < MARGIN * FEW_BITS_WORTH[isa.name]


def _bit_serial_pays_off(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> bool:
    """Where it takes fewer instructions than both direct convolution and look-ups.

    Measured on Zen 4: w1a1 3.8 to 4.1 times as fast as direct convolution in 3x3 layers and 1.8 to
    2.5 in 1x1, where look-ups gain little; w2a1 and strided or 1x1 layers of w1a2 1.3 to 2.2.
    """
    if isa.bit_count is None or not _few_bits(spec, weights, isa):
        return False
    work = bit_serial_work(spec, weights, isa)
    limit = MARGIN * FEW_BITS_WORTH[isa.name]
    return work < min(limit, lookup_work(spec, weights, isa))


def _winograd_int8_pays_off(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> bool:
    """From 6 x 6 outputs and 32 channels on, where bits are so few that it applies.

    Measured with 4 bits, VNNI and AVX2, against direct convolution that decodes packed weights too:
    1.2 to 1.9 times as fast; 0.9 to 1.3 times on 7 x 7, which is rounded up to 8 x 8, and slower on
    5 x 5 and less; with 16 channels as fast (VNNI) or 1.3 times (AVX2). Of 1 and 2 bits, those are
    left to look-ups and counts that these do still faster: w1a4, but w2a4 on 7 x 7 only.
    """
    is_int8 = spec.precision == "int8" and spec.window.kernel == (3, 3)
    size = min(spec.out.height, spec.out.width)
    if not is_int8 or min(spec.data.channels, spec.out.channels) < 32 or size < 6:
        return False
    if not _few_bits(spec, weights, isa):
        return True
    work = lookup_work(spec, weights, isa)
    if isa.bit_count is not None:
        work = min(work, bit_serial_work(spec, weights, isa))
    gain = WINOGRAD_GAIN if size >= 8 else SMALL_WINOGRAD_GAIN
    return work * gain > FEW_BITS_WORTH[isa.name]


def _on_gpu(_spec: ConvSpec, _weights: ConvWeights, isa: InstructionSet) -> bool:
    """For the lines of GPUs."""
    return isa.machine == CUDA


def _fills_mma_tiles(spec: ConvSpec, _weights: ConvWeights, isa: InstructionSet) -> bool:
    """Tensor cores, and at least half of the 16 pixels that they multiply. Not measured."""
    pixels = (spec.batch or 1) * spec.out.height * spec.out.width
    return isa.machine == CUDA and pixels >= 8


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
        "nchw_winograd_int8",
        _winograd_int8_pays_off,
        "3x3 in 2.25 times fewer multiplications, of bytes as the bits are few",
    ),
    Preference(
        "nchw_bit_serial",
        _bit_serial_pays_off,
        "few bits: counting common bits takes fewer instructions than multiplying",
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
    Preference("cuda_mma", _fills_mma_tiles, "direct convolution on tensor cores"),
    Preference("cuda_dp4a", _on_gpu, "direct convolution"),
    Preference("cuda_direct", _on_gpu, "direct convolution"),
    Preference("nchw_spatial_pack", _always, "direct convolution"),
    Preference("reference", _always, "no vector schedule takes such groups"),
)


def preferences(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Preference]:
    """The lines of the table that hold for a layer, best first."""
    return [preference for preference in PREFERENCES if preference.holds(spec, weights, isa)]
