"""Schedule ``nchw_winograd_int8``: exact Winograd convolution in bytes, for few bits, on NCHW16c.

The arithmetic is that of `conv2d_nchw_winograd_int`, F(2x2, 3x3) with ``2 G``: the sums are four
times the true ones, and a shift by two gives the accumulators of a direct convolution, bit for bit.
With fewer than eight bits the transformed data and weights fit bytes, and one dot product
instruction does four MACs a lane as in the direct schedule, 2.25 times fewer of them.

Why nothing overflows, for activations in [0, a] (`TensorSpec.largest`) and weights in [-w, w]:

- transformed data are sums of four activations with signs. They lie in [0, 4 a] at one point and in
  [-2 a, 2 a] at the others, where 2 a is added: [0, 4 a] throughout, uint8 for a <= 63, 6 bits. The
  offsets are taken away again from the sums (`winograd_bytes.start_sums`);
- transformed weights lie within 4 w, 6 w and 9 w in magnitude: int8 for w <= 14, always for 4 bits.
  Of more, the weights themselves decide (`weights_fit`). Scaled to the largest of their channel
  they fit in all 3x3 layers of a trained ResNet-50 with 5 bits, in none with 6;
- sums over the input channels fit int32 where `sums_fit` proves it, as all real layers do; those of
  instructions that saturate in int16 as for every dot product (`InstructionSet.dot_for`).

Loop nest: `winograd_bytes`. Packing: activations (N, C/16, H, W, 16); weights as they are, n bits
each, by `winograd_bytes.pack_taps`: the kernel decodes and transforms them, for each group of tiles
anew.

What limits it: the dot products, for 64 channels and more on 14 x 14 and larger images (four fifths
of the time); the transforms of data and sums where there are fewer channels; the transform of the
weights where the image is small (a sixth of the time on 7 x 7 with VNNI, a quarter with AVX2).
With activations of 7 and 8 bits transformed data are not bytes but int16: `nchw_winograd_int` takes
them, and fewer bits of weights make it no faster.

Ideal speedup over scalar fp32: four MACs in each lane of a vector over the instructions of their
dot product, times 2.25; see `ideal`.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016; integer
arithmetic with scaled transforms as in Meng and Brothers, "Efficient Winograd Convolution via
Integer Arithmetic", 2019 (arXiv 1901.01965). Bytes with offsets, and the bounds, are our own.
"""

from __future__ import annotations

import numpy as np

from . import winograd
from .epilogue import conv_arguments
from .intrinsics import DotProduct, InstructionSet
from .registry import Implementation, register
from .spec import ConvSpec, ConvWeights
from .tile import Tile
from .tir import BLOCK, T, splat
from .weight_bits import WHOLE
from .winograd_bytes import (
    TRANSFORM,
    Bytes,
    build,
    pack_start,
    pack_taps,
    packed_bits,
    start_sums,
)
from .winograd_nest import UNROLL
from .winograd_plan import Arithmetic, plan, ranked_tiles

NAME = "nchw_winograd_int8"
POINTS = TRANSFORM.points**2
INT8, UINT8_MAX, INT32_MAX = np.iinfo(np.int8), 255, np.iinfo(np.int32).max


def largest_activation(spec: ConvSpec) -> int:
    """The largest value that is read, that of the border included."""
    return max(spec.data.largest, spec.data.zero_point)


def offsets(largest: int) -> np.ndarray:
    """What the transformed data of each point can lack to 0, (4, 4)."""
    (rows,) = TRANSFORM.data
    lowest = np.minimum(np.einsum("ai,bj->abij", rows, rows), 0).sum(axis=(2, 3))
    return -largest * lowest


def largest_data(largest: int) -> int:
    """The largest transformed value, with its offset: equal at all points."""
    (rows,) = TRANSFORM.data
    highest = np.maximum(np.einsum("ai,bj->abij", rows, rows), 0).sum(axis=(2, 3))
    return int((largest * highest + offsets(largest)).max())


def transform_weights(weight: np.ndarray) -> np.ndarray:
    """``(2G) g (2G)^T`` of (O, I, 3, 3): int64 (O, I, points^2)."""
    return TRANSFORM.weights(weight.astype(np.int64))


def weights_fit(transformed: np.ndarray) -> bool:
    """Whether transformed weights fit int8."""
    return INT8.min <= transformed.min(initial=0) and transformed.max(initial=0) <= INT8.max


def largest_sum(transformed: np.ndarray, start: np.ndarray, largest: int) -> int:
    """A bound on every int32 sum of the kernel, partial ones included, whatever the activations.

    Parameters
    ----------
    transformed : numpy.ndarray
        (O, I, points^2).
    start : numpy.ndarray
        (O or more, 5), as `winograd_bytes.start_sums` gives it.
    largest : int
        Largest activation.
    """
    products = np.abs(transformed).sum(axis=1) * largest_data(largest)
    starts = np.abs(start[: len(products)].astype(np.int64)).max(axis=1, keepdims=True)
    return winograd.largest_sum(TRANSFORM, products + starts)


def sums_fit(transformed: np.ndarray, start: np.ndarray, largest: int) -> bool:
    """Whether no int32 sum can overflow with these weights."""
    return largest_sum(transformed, start, largest) <= INT32_MAX


def dot_product(spec: ConvSpec, transformed: np.ndarray, isa: InstructionSet) -> DotProduct:
    """The fastest dot product that is exact for the transformed data and weights."""
    inputs = ((0, 0), (0, 0), (0, -transformed.shape[1] % BLOCK))
    fours = np.pad(transformed.swapaxes(1, 2), inputs).reshape(len(transformed), POINTS, -1, 4)
    return isa.dot_for(fours.astype(np.int8), largest_data(largest_activation(spec)), UNROLL)


def arithmetic(isa: InstructionSet, dot: DotProduct) -> Arithmetic:
    """Fours of u8 x s8 products summed in int32."""
    return Arithmetic(
        name=dot.name,
        data_dtype="uint8",
        weight_dtype="int8",
        acc_dtype="int32",
        depth=4,
        lanes=BLOCK,
        cost=dot.cost,
        registers=dot.tile_registers,
        accumulate=dot.accumulate,
        finish=lambda value: T.shift_right(value, splat(2, "int32", isa.lanes)),
        chain=dot.chain,
        of_bytes=True,
    )


def fitting_weights(spec: ConvSpec, weights: ConvWeights) -> np.ndarray | None:
    """Transformed weights of a layer for which all is bytes; None for other layers."""
    if not winograd.applies(spec) or largest_data(largest_activation(spec)) > UINT8_MAX:
        return None
    if packed_bits(spec, weights.weight) >= WHOLE:
        return None
    transformed = transform_weights(weights.weight)
    return transformed if weights_fit(transformed) else None


def tiles(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing."""
    transformed = fitting_weights(spec, weights)
    if transformed is None:
        return []
    dot = dot_product(spec, transformed, isa)
    return ranked_tiles(spec, isa, TRANSFORM, arithmetic(isa, dot))


@register(NAME, precisions=("int8",), tiles=tiles)
def winograd_int8(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """3 x 3 convolutions of stride 1 with few bits, whose sums provably fit int32."""
    transformed, largest = fitting_weights(spec, weights), largest_activation(spec)
    if transformed is None:
        return None
    signed = tuple(tuple(int(offset) for offset in row) for row in offsets(largest))
    form = Bytes(packed_bits(spec, weights.weight), signed)
    start = start_sums(spec, transformed, form)
    if not sums_fit(transformed, start, largest):
        return None
    products = arithmetic(isa, dot_product(spec, transformed, isa))
    sizes = plan(spec, isa, TRANSFORM, products, tile)
    packed = pack_taps(spec, weights.weight, isa, sizes.tile.vectors)
    start = pack_start(start, sizes.tile.vectors * isa.lanes)
    return Implementation(
        schedule=NAME,
        instructions=f"{products.name}, F(2x2,3x3) of bytes",
        key=("winograd_int8", spec, isa.name, products.name, sizes, form),
        build=lambda: build(spec, isa, products, sizes, form),
        arguments=conv_arguments(spec, weights, [packed, start]),
        tile=sizes.tile,
    )
