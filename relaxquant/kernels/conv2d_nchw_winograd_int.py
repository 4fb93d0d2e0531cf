"""Schedule ``nchw_winograd_int``: exact integer Winograd convolution, F(2x2, 3x3), on NCHW16c.

The transform of the data adds and subtracts only; that of the weights halves, so its matrix G is
doubled: ``2 G`` is integer. Everything then is integer arithmetic, the sums are four times the
true ones, and a shift by two gives the same accumulators, bit for bit, as a direct convolution.

Why nothing overflows, for all u8 x s8:

- transformed data are sums of four activations with signs: within [-510, 510], or [0, 1020] at the
  four points where all signs are plus; int16;
- transformed weights are within 3 * 3 * 128 = 1152 in magnitude; int16;
- the int32 sums over the input channels and the inverse transform depend on the weights:
  `sums_fit` bounds every partial sum, and the schedule does not apply where one could overflow
  (never below 400 input channels, and with real weights far beyond).

Loop nest: `winograd_nest`. Packing: activations (N, C/16, H, W, 16); weights as int16 by
`winograd.pack_points`, two input channels side by side: 32/9 of the bytes of int8 weights.

What limits it: int16 products. Where bytes are multiplied by one instruction (VNNI), the direct
schedule does four MACs a lane with it and this one two, so that little is left of the factor 2.25
once the transforms are paid for: `choose` prefers the direct one there.

Ideal speedup over scalar fp32: two MACs in each lane of a vector over the instructions of their
dot product (two for ``vpmaddwd`` + ``vpaddd``, one for ``vpdpwssd``), times 2.25; see `ideal`.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016; integer
arithmetic with scaled transforms as in Meng and Brothers, "Efficient Winograd Convolution via
Integer Arithmetic", 2019 (arXiv 1901.01965). The bounds are derived here.
"""

from __future__ import annotations

import numpy as np

from . import winograd
from .epilogue import conv_arguments
from .intrinsics import InstructionSet
from .registry import Implementation, register
from .spec import ConvSpec, ConvWeights
from .tile import Tile
from .tir import T, splat
from .winograd import applies, f2x2, pack_points
from .winograd_nest import build
from .winograd_plan import Arithmetic, plan, ranked_tiles

NAME = "nchw_winograd_int"
TRANSFORM = f2x2(scale=2)
LANES = 16  # int16 channels transformed at a time: one block, 256 bits
ACTIVATION_MAX = 255
INT32_MAX = np.iinfo(np.int32).max


def arithmetic(isa: InstructionSet) -> Arithmetic:
    """Pairs of int16 products summed in int32."""
    dot = isa.pair_dot
    return Arithmetic(
        name=dot.name,
        data_dtype="int16",
        weight_dtype="int16",
        acc_dtype="int32",
        depth=2,
        lanes=LANES,
        cost=dot.cost,
        registers=dot.tile_registers,
        accumulate=lambda acc, xs, ws: dot.emit(acc, *xs, *ws),
        finish=lambda value: T.shift_right(value, splat(2, "int32", isa.lanes)),
    )


def data_bounds() -> np.ndarray:
    """Largest magnitude of the transformed data at each of the 16 points, (points^2,)."""
    (rows,) = TRANSFORM.data
    coefficients = np.einsum("ai,bj->abij", rows, rows).reshape(TRANSFORM.points**2, -1)
    highest = np.maximum(coefficients, 0).sum(axis=1)
    lowest = np.minimum(coefficients, 0).sum(axis=1)
    return ACTIVATION_MAX * np.maximum(highest, -lowest)


def largest_sum(weight: np.ndarray) -> int:
    """A bound on every int32 sum of the kernel, partial ones included, whatever the activations.

    Parameters
    ----------
    weight : numpy.ndarray
        (O, I, 3, 3), int8.
    """
    transformed = np.abs(TRANSFORM.weights(weight.astype(np.int64)))
    return winograd.largest_sum(TRANSFORM, transformed.sum(axis=1) * data_bounds())


def sums_fit(weight: np.ndarray) -> bool:
    """Whether no int32 sum can overflow with these weights."""
    return largest_sum(weight) <= INT32_MAX


def tiles(spec: ConvSpec, _weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing."""
    return ranked_tiles(spec, isa, TRANSFORM, arithmetic(isa))


@register(NAME, precisions=("int8",), tiles=tiles)
def winograd_int(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """3 x 3 convolutions of stride 1 whose sums provably fit int32."""
    if not applies(spec) or isa.pair_dot is None or not sums_fit(weights.weight):
        return None
    products = arithmetic(isa)
    sizes = plan(spec, isa, TRANSFORM, products, tile)
    transformed = TRANSFORM.weights(weights.weight.astype(np.int64)).astype(np.int16)
    packed = pack_points(spec, transformed, sizes.tile.vectors * isa.lanes, products.depth)
    return Implementation(
        schedule=NAME,
        instructions=f"{products.name}, F(2x2,3x3)",
        key=("winograd_int", spec, isa.name, sizes),
        build=lambda: build(spec, isa, TRANSFORM, products, sizes),
        arguments=conv_arguments(spec, weights, [packed]),
        tile=sizes.tile,
    )
