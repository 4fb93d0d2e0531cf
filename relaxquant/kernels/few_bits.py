"""What layers of few bits cost, by look-ups and by counting bits: for `choose`.

Both are counted in instructions for as many multiply-accumulates as one look-up stands for: the
channels of a table times the output channels of a vector. What the direct schedule takes for those
depends on the instruction set alone.
"""

from __future__ import annotations

from .intrinsics import InstructionSet
from .lookup_plan import cut
from .lookup_tables import ChannelTables
from .spec import ConvSpec, ConvWeights
from .tir import ceildiv
from .weight_bits import bits_of

# Instructions that making a table takes; adding the 16-bit sums of a vector of outputs to their
# accumulators; a product of bits; packing one bit of 32 channels. From measured times, in the time
# of those of a look-up.
FILL, FLUSH, COUNT, PACK = 10, 20, 3, 6
WORD = 32


def lookup_work(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> float:
    """Instructions of ``nchw_lookup``."""
    lookup = isa.lookup
    parts, planes = cut(spec.data.largest, lookup.index_bits), bits_of(weights.weight)
    taps = spec.window.kernel[0] * spec.window.kernel[1]
    tables = taps * ChannelTables(spec.data.channels, lookup.index_bits).count
    look_ups = planes * sum(part.cost for part in parts)
    fill = FILL * len(parts) / uses_of_a_pixel(spec, lookup.bytes)
    return look_ups + fill + FLUSH * planes * len(parts) / tables


def bit_serial_work(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> float:
    """Instructions of ``nchw_bit_serial``."""
    bits = spec.data.largest.bit_length()
    count = COUNT * bits_of(weights.weight) * bits
    pack = PACK * bits / uses_of_a_pixel(spec, isa.lanes)
    return (count + pack) * isa.lookup.index_bits * isa.lookup.bytes / (WORD * isa.lanes)


def uses_of_a_pixel(spec: ConvSpec, vector: int) -> float:
    """How often what is made of a pixel is read, for vectors of so many output channels."""
    window = spec.window
    taps = window.kernel[0] * window.kernel[1]
    if taps > 1:  # else only the pixels that are read are made something of
        taps /= window.strides[0] * window.strides[1]
    return taps * ceildiv(spec.out.padded_channels, vector)
