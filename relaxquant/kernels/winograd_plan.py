"""Sizes of a Winograd loop nest; see `winograd_nest` for the loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from .intrinsics import InstructionSet
from .spec import ConvSpec
from .tile import Tile
from .tir import ceildiv
from .winograd import Transform

# Transformed data of a task, for its share of an L2 cache of 512 KiB (Zen 2 and 3) to 2 MiB: larger
# groups read the weights less often, and the data are read in order, so that a little too much
# hurts less than too little.
GROUP_BYTES = 512 * 1024
# Parallel tasks an image should give, and the output channels a task must have left, so that
# transforming the data once more for it costs little.
TASKS, PART_CHANNELS = 4, 64
# Broadcasts that a load of weights costs: they come from the L2 cache or from further away.
WEIGHT_COST = 3
# What another vector of output channels costs products of bytes, as it multiplies the sums that a
# group keeps in the cache. Measured on Zen 4: 3 to 10 % from one vector to two.
SUMS_COST = 0.05
# Instructions that make transformed weights of a vector of nine taps, and transformed data of 16
# channels of a tile, both with their stores (Zen 4: about 17 and 7 ns).
WEIGHTS_COST, DATA_COST = 90, 40
POINTS = 16  # of F(2x2, 3x3), the transform for bytes


@dataclass(frozen=True)
class Arithmetic:
    """What is multiplied and summed, and how.

    Parameters
    ----------
    name : str
        The instructions, as shown in ``lib.kernels``.
    data_dtype, weight_dtype, acc_dtype : str
        Of the transformed data, of the transformed weights, and of the sums of their products.
    depth : int
        Input channels in one multiply-add.
    lanes : int
        Input channels transformed at a time, a divisor of 16.
    cost : float
        Instructions in a multiply-add.
    registers : int
        Registers for accumulators and weights of a register tile.
    accumulate : callable
        ``accumulate(acc, xs, ws)``: up to ``chain`` multiply-adds, each ``x`` the ``depth``
        channels of one tile as a scalar of 32 bits and each ``w`` a vector of weights.
    finish : callable
        From the inverse transform to the accumulator that the bias is added to.
    chain : int
        Steps of the reduction that cost less together, a divisor of `winograd_nest.UNROLL`.
    of_bytes : bool
        Whether bytes are multiplied. Four channels lie in a lane then: the loads of a step weigh
        less, and what lies in the cache is sums as much as data.
    """

    name: str
    data_dtype: str
    weight_dtype: str
    acc_dtype: str
    depth: int
    lanes: int
    cost: float
    registers: int
    accumulate: Callable = field(repr=False, compare=False)
    finish: Callable = field(repr=False, compare=False)
    chain: int = 1
    of_bytes: bool = False


@dataclass(frozen=True)
class Plan:
    """Sizes of the loop nest.

    Parameters
    ----------
    tile : Tile
        Register tile: vectors of output channels by Winograd tiles (as its pixels).
    group : int
        Winograd tiles of a parallel task, a multiple of those of the register tile.
    parts : int
        Parts of the output channels, a divisor of the number of register tiles in them. Every part
        transforms the data anew: for images with too few tiles to keep the threads busy.
    """

    tile: Tile
    group: int
    parts: int


def plan(
    spec: ConvSpec,
    isa: InstructionSet,
    transform: Transform,
    arithmetic: Arithmetic,
    tile: Tile | None = None,
) -> Plan:
    """Sizes for a layer, with the register tile given or the best of `ranked_plans`."""
    if tile is None:
        return ranked_plans(spec, isa, transform, arithmetic)[0]
    return _plan_around(tile, spec, isa, transform, arithmetic)


def ranked_tiles(
    spec: ConvSpec, isa: InstructionSet, transform: Transform, arithmetic: Arithmetic
) -> list[Tile]:
    """Register tiles worth timing, the most promising first."""
    return [sizes.tile for sizes in ranked_plans(spec, isa, transform, arithmetic)]


def ranked_plans(
    spec: ConvSpec, isa: InstructionSet, transform: Transform, arithmetic: Arithmetic
) -> list[Plan]:
    """Sizes around each register tile; first, those with the fewest instructions.

    Counted are a step of the reduction and the largest of `TASKS` threads' shares; compare
    `tile.ranked_tiles`.
    """

    def cost(sizes: Plan) -> float:
        vectors, pixels = sizes.tile.vectors, sizes.tile.pixels
        instructions = max(vectors * pixels, isa.in_flight) * arithmetic.cost
        if arithmetic.of_bytes:  # loads run beside them, and another vector needs more sums
            instructions = max(instructions, (pixels + vectors) * isa.load_cost)
            instructions *= 1 + SUMS_COST * (vectors - 1)
        else:
            instructions += pixels + WEIGHT_COST * vectors
        tasks = ceildiv(tile_count(spec, transform), sizes.group) * sizes.parts
        share = ceildiv(tasks, TASKS) * sizes.group / pixels
        return share * instructions / (vectors * sizes.parts)

    tiles = possible_tiles(spec, isa, transform, arithmetic)
    plans = (_plan_around(tile, spec, isa, transform, arithmetic) for tile in tiles)
    return sorted(plans, key=cost)


def _plan_around(
    tile: Tile, spec: ConvSpec, isa: InstructionSet, transform: Transform, arithmetic: Arithmetic
) -> Plan:
    """The largest groups whose transformed data fit `GROUP_BYTES`, in equal shares.

    Where that leaves few tasks, the output channels are divided too, or the groups made smaller.
    """
    tiles = tile_count(spec, transform)
    bytes_ = spec.data.padded_channels * 4 // arithmetic.depth
    if arithmetic.of_bytes:
        bytes_ += tile.vectors * isa.lanes * 4
    groups = ceildiv(tiles, max(1, GROUP_BYTES // (transform.points**2 * bytes_)))
    if arithmetic.of_bytes:
        groups, parts = _cheapest_shares(tile, groups, tiles, spec, isa)
    else:
        groups, parts = _shares(tile, groups, spec, isa)
    group = ceildiv(ceildiv(tiles, groups), tile.pixels) * tile.pixels
    return Plan(tile, group, parts)


def _shares(tile: Tile, groups: int, spec: ConvSpec, isa: InstructionSet) -> tuple[int, int]:
    """Groups and parts where weights are transformed at compile time: parts as far as they go."""
    parts = 1
    while groups * parts < TASKS and _divides(2 * parts, spec, tile.vectors * isa.lanes):
        parts *= 2
    if groups * parts < TASKS:
        groups = 1 << (groups - 1).bit_length()  # shared evenly by 2 and by 4 threads
    return groups, parts


def _cheapest_shares(
    tile: Tile, groups: int, tiles: int, spec: ConvSpec, isa: InstructionSet
) -> tuple[int, int]:
    """Groups and parts where a group costs transforming the weights, a part the data.

    The best for one thread and for `TASKS` threads together: the sum of all instructions and of
    those of a thread's share is least.
    """
    vectors = spec.data.padded_channels // 4 * spec.out.padded_channels // isa.lanes
    products = POINTS * tiles * vectors
    decoding, transforming = WEIGHTS_COST * vectors, DATA_COST * tiles * spec.data.blocks

    def cost(share: tuple[int, int]) -> float:
        every = products + share[0] * decoding + share[1] * transforming
        return every + every / min(share[0] * share[1], TASKS)

    even = [p for p in (1, 2, 4) if p == 1 or _divides(p, spec, tile.vectors * isa.lanes)]
    shares = [(g, p) for g in (groups, 2, 4) if groups <= g <= tiles for p in even]
    return min(shares, key=cost)


def _divides(parts: int, spec: ConvSpec, tile_channels: int) -> bool:
    channels = spec.out.padded_channels
    even = channels // tile_channels % parts == 0
    return even and channels // parts >= PART_CHANNELS


def tile_count(spec: ConvSpec, transform: Transform) -> int:
    """Winograd tiles of the batch; of one image where the batch is symbolic."""
    size = transform.outputs
    in_image = ceildiv(spec.out.height, size) * ceildiv(spec.out.width, size)
    return (spec.batch or 1) * in_image


def possible_tiles(
    spec: ConvSpec, isa: InstructionSet, transform: Transform, arithmetic: Arithmetic
) -> list[Tile]:
    """Every register tile that divides the output channels and fits the registers."""
    vectors = spec.out.padded_channels // isa.lanes
    tiles = tile_count(spec, transform)
    return [
        Tile(count, pixels)
        for count in (1, 2, 3, 4)
        if vectors % count == 0
        for pixels in range(1, min(arithmetic.registers // count - 1, tiles) + 1)
    ]
