"""The kernels that a layer could get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..kernels.conv2d_metaschedule import from_trace
from ..kernels.conv2d_reference import NAME as REFERENCE
from ..kernels.intrinsics import InstructionSet
from ..kernels.registry import AUTO, SCHEDULES, Implementation, implement_conv2d, layout_of
from ..kernels.spec import ConvSpec, ConvWeights
from ..kernels.tile import Tile
from ..kernels.tuned import METASCHEDULE


@dataclass(frozen=True)
class Candidate:
    """A schedule and a register tile; None where the schedule chooses its own, or has none."""

    schedule: str
    tile: Tile | None
    implement: Callable[[], Implementation | None]

    def __str__(self) -> str:
        return f"{self.schedule} {self.tile}" if self.tile else self.schedule


def candidates(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> list[Candidate]:
    """What could run a layer: the rules' choice first, then other schedules, then other tiles.

    Schedules of another layout are left out, since the layout is the whole network's; so is the
    scalar reference, which nothing is slower than, unless the rules choose it.
    """
    first = rules_choice(spec, weights, isa)
    found = [first]
    tiles: list[Candidate] = []
    for row in SCHEDULES:
        fits = spec.precision in row.precisions and row.layout == layout_of(AUTO)
        if not fits or row.name == REFERENCE:
            continue
        own = row.implement(spec, weights, isa)
        if own is None:
            continue
        found.append(Candidate(row.name, own.tile, lambda own=own: own))
        tiles += [
            Candidate(row.name, tile, partial(row.implement, spec, weights, isa, tile))
            for tile in row.tiles(spec, weights, isa)
        ]
    # Tiles of the schedule that the rules prefer come before those of the others.
    tiles.sort(key=lambda candidate: candidate.schedule != first.schedule)
    unique: dict[str, Candidate] = {}
    for candidate in [*found, *tiles]:
        unique.setdefault(str(candidate), candidate)
    return list(unique.values())


def rules_choice(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> Candidate:
    """What a layer gets where nothing was timed."""
    chosen = implement_conv2d(spec, weights, isa)
    return Candidate(chosen.schedule, chosen.tile, lambda: chosen)


def replayed(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, trace: str) -> Candidate:
    """What MetaSchedule found for a layer."""
    return Candidate(METASCHEDULE, None, lambda: from_trace(spec, weights, isa, trace))
