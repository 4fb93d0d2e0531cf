"""Schedule ``nchw_winograd``: fp32 Winograd convolution, F(2x2, 3x3) or F(4x4, 3x3), on NCHW16c.

Loop nest: `winograd_nest`. A task transforms the inputs of a group of tiles, multiplies them with
the transformed weights as 16 or 36 matrix products held in register tiles, and transforms the sums
back into the epilogue. No padded copy of the image is made.

Packing: activations (N, C/16, H, W, 16); weights transformed at compile time, in float64, as
`winograd.pack_points` lays them: 16/9 or 4 times the bytes of the direct schedule's.

What limits it: the multiply-add units where there are many channels, the transforms (loads, adds
and stores that do not shrink with the channels) where there are few; and where the image is small,
reading the weights, which is why the smaller transform is taken there (`choose_transform`).

Rounding: the largest error is within 1e-4 of the largest output in magnitude before the clip
(about 1e-5 for F(4x4, 3x3) with 512 channels; ten times less for F(2x2, 3x3), which needs no
multiplications by 4, 5 and 8).

Ideal speedup over scalar fp32: the lanes of a vector times the multiplications left out,
``9 m^2 / (m + 2)^2``: 2.25 for m = 2 and 4 for m = 4; see `ideal`, which takes the larger. The part
of the last tiles that lies outside the image is lost.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. Loops for
one thread's cache as in Heinecke et al. and oneDNN's ``jit_avx512_core_4fma_convolution_winograd``:
data transformed by the thread that uses it, weights streamed.
"""

from __future__ import annotations

from .epilogue import conv_arguments
from .intrinsics import InstructionSet
from .registry import Implementation, register
from .spec import ConvSpec, ConvWeights
from .tile import Tile
from .tir import T
from .winograd import Transform, applies, f2x2, f4x4, pack_points
from .winograd_nest import build
from .winograd_plan import Arithmetic, plan, ranked_tiles, tile_count

NAME = "nchw_winograd"
# Tiles, times lanes, below which reading the weights, four times the bytes of a direct
# convolution's, uses up what fewer multiplications save. Measured on 256 x 14 x 14, 16 tiles, with
# weights from memory, against F(2x2, 3x3): 143 and 112 GMAC/s with AVX-512, 118 and 111 with AVX2.
REUSE = 256


def arithmetic(isa: InstructionSet) -> Arithmetic:
    """float32 multiply-adds."""
    return Arithmetic(
        name="fp32 multiply-add",
        data_dtype="float32",
        weight_dtype="float32",
        acc_dtype="float32",
        depth=1,
        lanes=isa.lanes,
        cost=1,
        registers=isa.tile_registers,
        accumulate=lambda acc, xs, ws: acc + T.broadcast(*xs, isa.lanes) * ws[0],
        finish=lambda value: value,
    )


def choose_transform(spec: ConvSpec, isa: InstructionSet) -> Transform:
    """F(4x4, 3x3) where it needs fewer multiplications and uses each weight often (`REUSE`)."""
    small, large = f2x2(), f4x4()
    tiles_small, tiles_large = tile_count(spec, small), tile_count(spec, large)
    fewer = tiles_large * large.points**2 < tiles_small * small.points**2
    return large if fewer and tiles_large * isa.lanes >= REUSE else small


def tiles(spec: ConvSpec, _weights: ConvWeights, isa: InstructionSet) -> list[Tile]:
    """Register tiles worth timing."""
    return ranked_tiles(spec, isa, choose_transform(spec, isa), arithmetic(isa))


@register(NAME, precisions=("fp32",), tiles=tiles)
def winograd(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
) -> Implementation | None:
    """3 x 3 convolutions of stride 1, with the transform of `choose_transform`."""
    if not applies(spec):
        return None
    return implement(spec, weights, isa, choose_transform(spec, isa), tile)


def implement(
    spec: ConvSpec,
    weights: ConvWeights,
    isa: InstructionSet,
    transform: Transform,
    tile: Tile | None = None,
) -> Implementation:
    """The kernel with the transform of the caller's choice."""
    products = arithmetic(isa)
    sizes = plan(spec, isa, transform, products, tile)
    transformed = transform.weights(weights.weight.astype("float64")).astype("float32")
    packed = pack_points(spec, transformed, sizes.tile.vectors * isa.lanes, products.depth)
    size = transform.outputs
    return Implementation(
        schedule=NAME,
        instructions=f"{products.name}, F({size}x{size},3x3)",
        key=("winograd", spec, isa.name, size, sizes),
        build=lambda: build(spec, isa, transform, products, sizes),
        arguments=conv_arguments(spec, weights, [packed]),
        tile=sizes.tile,
    )
