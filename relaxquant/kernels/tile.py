"""Register tiles of a direct convolution: all that fit, the most promising first."""

from __future__ import annotations

from dataclasses import dataclass

from .intrinsics import DotProduct, InstructionSet
from .spec import ConvSpec


@dataclass(frozen=True)
class Tile:
    """Register tile: ``vectors`` of output channels by ``pixels`` of an output row."""

    vectors: int
    pixels: int

    def __str__(self) -> str:
        return f"{self.vectors}x{self.pixels}"

    @classmethod
    def parse(cls, text: str) -> Tile:
        """The inverse of ``str``; ValueError for anything else."""
        vectors, pixels = text.split("x")
        return cls(int(vectors), int(pixels))


def choose_tile(spec: ConvSpec, isa: InstructionSet, dot: DotProduct | None) -> Tile:
    """The tile that takes the fewest cycles, the first of `ranked_tiles`."""
    return ranked_tiles(spec, isa, dot)[0]


def ranked_tiles(spec: ConvSpec, isa: InstructionSet, dot: DotProduct | None) -> list[Tile]:
    """All possible tiles, those that take the fewest cycles for a whole output row first.

    The model counts one step of the reduction. A tile of ``v`` vectors by ``p`` pixels takes
    ``v * p`` multiply-adds, at least ``isa.in_flight``, else their latency shows; beside them run
    ``p`` broadcasts and ``v`` loads of weights, and the more of the two counts. A narrower last
    tile of a row is counted as such. Two vectors already load less than they multiply, so tiles of
    more come last unless a row is a single pixel. Among equals the smallest is best: its code is
    shortest.

    Parameters
    ----------
    spec : ConvSpec
        The layer.
    isa : InstructionSet
        Lanes, the fp32 limit on accumulators, latency and cost of a load.
    dot : DotProduct or None
        The int8 dot product with its own cost and limit; None for fp32.
    """

    def merit(tile: Tile) -> tuple[bool, float, int, int]:
        long_code = tile.vectors > 2 and spec.out.width > 1
        cycles = _row_cycles(tile, spec.out.width, isa, dot.cost if dot else 1) / tile.vectors
        return long_code, cycles, tile.vectors * tile.pixels, -tile.vectors

    return sorted(possible_tiles(spec, isa, dot), key=merit)


def possible_tiles(spec: ConvSpec, isa: InstructionSet, dot: DotProduct | None) -> list[Tile]:
    """Every tile that divides the channels of a group and fits the registers."""
    registers = dot.tile_registers if dot else isa.tile_registers
    return [
        Tile(vectors, pixels)
        for vectors in vector_counts(spec, isa)
        for pixels in range(1, min(registers // vectors - 1, spec.out.width) + 1)
    ]


def vector_counts(spec: ConvSpec, isa: InstructionSet) -> list[int]:
    """Vectors of output channels that divide a group's channels evenly."""
    channels = spec.out.padded_channels
    if spec.groups > 1:
        channels = spec.out.channels // spec.groups
    vectors = channels // isa.lanes
    return [count for count in (1, 2, 3, 4) if vectors % count == 0]


def _row_cycles(tile: Tile, width: int, isa: InstructionSet, cost: float) -> float:
    widths = [tile.pixels] * (width // tile.pixels)
    if width % tile.pixels:
        widths.append(width % tile.pixels)
    return sum(
        max(
            max(tile.vectors * pixels, isa.in_flight) * cost,
            (tile.vectors + pixels) * isa.load_cost,
        )
        for pixels in widths
    )
