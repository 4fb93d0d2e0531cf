"""Proof that products of few bits may be summed in int16 for long, and how long that is."""

from __future__ import annotations

import numpy as np

from .intrinsics import InstructionSet
from .intrinsics.base import INT16_MAX, INT16_MIN
from .pack import channel_quads
from .spec import ConvSpec, ConvWeights
from .tir import ceildiv

# Fours of products that a run must have for its one widening not to show.
LEAST = 24


def run_of(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> int:
    """Blocks of input channels in a run, for an int8 convolution of more than a pixel.

    Returns
    -------
    int
        0 where int16 sums are not proven for long enough, or not faster with this instruction set.
    """
    one_pixel = spec.out.height == spec.out.width == 1
    in_fours = spec.precision == "int8" and spec.data.block % 4 == 0
    if isa.short_sums is None or one_pixel or not in_fours:
        return 0
    run = longest_run(spec, weights.weight)
    return run if run * fours_of_block(spec) >= LEAST else 0


def fours_of_block(spec: ConvSpec) -> int:
    """Fours of products for each block of input channels."""
    return spec.data.block // 4 * spec.window.kernel[0] * spec.window.kernel[1]


def longest_run(spec: ConvSpec, weight: np.ndarray) -> int:
    """Most blocks of input channels whose products may be summed in int16.

    An int16 lane holds the products of two of each four input channels. As in
    `intrinsics.proven_free_of_saturation` the worst activations are the largest where a weight is
    positive, and 0 elsewhere, or the other way round: the bound is attained, and holds for the
    taps that the border of the image leaves over.

    Returns
    -------
    int
        Runs start at multiples of it; 0 where not even a block may.
    """
    block = spec.data.block
    quads = channel_quads(weight, block)
    out_channels, kh, kw, fours, _ = quads.shape
    lanes = quads.reshape(out_channels, kh * kw, fours * 4 // block, block // 4, 2, 2)
    largest = spec.data.largest
    highest = np.maximum(lanes, 0).sum(axis=(1, 3, 5), dtype=np.int64) * largest
    lowest = np.minimum(lanes, 0).sum(axis=(1, 3, 5), dtype=np.int64) * largest
    blocks = highest.shape[1]
    for run in dict.fromkeys(ceildiv(blocks, parts) for parts in range(1, blocks + 1)):
        starts = np.arange(0, blocks, run)
        top = np.add.reduceat(highest, starts, axis=1).max()
        bottom = np.add.reduceat(lowest, starts, axis=1).min()
        if bottom >= INT16_MIN and top <= INT16_MAX:
            return run
    return 0
