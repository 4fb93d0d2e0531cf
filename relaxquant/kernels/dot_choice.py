"""Which dot products a layer's weights allow: one for all of them, and a faster one where proven.

A single large weight in a million denies a whole layer the longer int16 chain. So the proof is also
made for each piece of packed weights that a kernel reads at a time, one tap of one block of input
channels for one tile of output channels, and the kernel asks a table which of two dot products to
take there. All of it is known at compile time; the branch follows the same pattern in every tile of
pixels, so that it is predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .intrinsics import GENERIC, DotProduct, InstructionSet, fits_int16
from .pack import channel_quads
from .spec import ConvSpec, ConvWeights

# Most steps of a block of input channels in one piece of straight code: this many keep the loop's
# own cost away and the code small.
STEPS = 6
# The table and the branch must save this share of the instructions, or are left out.
WORTH = 0.04


def straight_steps(steps: int) -> int:
    """Steps that become straight code, a divisor of all of them."""
    return next(count for count in range(STEPS, 0, -1) if steps % count == 0)


def dot_for_all(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> DotProduct | None:
    """The fastest dot product that is exact for all of a layer's weights; None for fp32.

    int16 products are exact whatever the weights. An instruction set without any takes the plain
    arithmetic of `generic`, for vectors of as many lanes.
    """
    if spec.precision == "fp32":
        return None
    if spec.precision == "int16":
        pair = isa.pair_dot or GENERIC.pair_dot
        return pair.on_weights(str(weights.weight.dtype), isa.lanes)
    block = spec.data.block
    quads = channel_quads(weights.weight, block)
    return isa.dot_for(quads, spec.data.largest, straight_steps(block // 4))


@dataclass(frozen=True)
class DotChoice:
    """Dot products of a layer.

    Parameters
    ----------
    everywhere : DotProduct or None
        Exact for all weights; None for fp32.
    often : DotProduct or None
        A faster one, exact where ``proven``; None where there is none worth a branch.
    proven : numpy.ndarray, optional
        uint8 (O tiles, I blocks, KH, KW): 1 where ``often`` is exact.
    """

    everywhere: DotProduct | None
    often: DotProduct | None = None
    proven: np.ndarray | None = field(repr=False, compare=False, default=None)

    @property
    def key(self) -> tuple:
        """Equal for layers with the same code."""
        return tuple(dot and dot.name for dot in (self.everywhere, self.often))

    def __str__(self) -> str:
        if self.everywhere is None:
            return "fp32 multiply-add"
        if self.often is None:
            return self.everywhere.name
        return f"{self.often.name} in {100 * self.proven.mean():.0f} %, {self.everywhere.name}"


def choose_dots(
    spec: ConvSpec, everywhere: DotProduct | None, isa: InstructionSet, packed: np.ndarray
) -> DotChoice:
    """The dot product with the fewest instructions where it is proven, beside the one for all.

    Parameters
    ----------
    spec : ConvSpec
        The layer.
    everywhere : DotProduct or None
        What `dot_for_all` gives.
    isa : InstructionSet
        Its dot products.
    packed : numpy.ndarray
        Weights as `pack_conv` lays them, for the register tile in question.
    """
    best, least = DotChoice(everywhere), everywhere.cost * (1 - WORTH) if everywhere else 0
    if spec.precision != "int8":
        return best
    for dot in isa.dots[: isa.dots.index(everywhere)]:
        if straight_steps(spec.data.block // 4) % dot.chain:
            continue
        proven = _proven(packed, dot, spec.data.largest)
        share = proven.mean()
        cost = share * dot.cost + (1 - share) * everywhere.cost
        if cost < least:
            best, least = DotChoice(everywhere, dot, proven), cost
    return best


def _proven(packed: np.ndarray, dot: DotProduct, activation_max: int) -> np.ndarray:
    """uint8 (O tiles, I blocks, KH, KW): whether ``dot`` is exact for that piece of weights."""
    tiles, blocks, kh, kw, steps, _ = packed.shape
    quads = packed.reshape(tiles, blocks, kh, kw, steps, -1, 4).swapaxes(-2, -3)
    return fits_int16(quads, activation_max, dot.chain).all((-1, -2)).astype(np.uint8)
