"""Register tiles that are worth a trial: those whose accumulators fit the registers.

Most tiles that MetaSchedule draws at random are hundreds of accumulators, which live in memory, or
one or two, whose multiply-adds wait for each other. Neither was the fastest where both were
measured, so that a search of a few dozen trials is better spent on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.postproc import PyPostproc

from ..kernels.dot_choice import DotChoice
from ..kernels.intrinsics import InstructionSet
from ..kernels.spec import ConvSpec
from ..kernels.tir import BLOCK

SAMPLE = "SamplePerfectTile"  # TVM's instruction that draws the tiles of one axis


@dataclass(frozen=True)
class Limits:
    """Accumulators that a register tile may have.

    Parameters
    ----------
    most : int
        Registers for accumulators and the weights that they share, as `tile.possible_tiles`.
    least : int
        Multiply-adds that are at least under way.
    """

    most: int
    least: int

    def allow(self, vectors: int, pixels: int) -> bool:
        """Whether a tile of ``vectors`` of output channels by ``pixels`` is worth a trial."""
        return vectors * (pixels + 1) <= self.most and vectors * pixels >= self.least


def limits(spec: ConvSpec, dots: DotChoice, isa: InstructionSet) -> Limits:
    """What to look for: at least half of what hides latency, or as many as a small layer has."""
    dot = dots.often or dots.everywhere
    most = dot.tile_registers if dot else isa.tile_registers
    vectors = _products([spec.out.blocks, BLOCK // isa.lanes], most)
    pixels = _products([spec.batch, spec.out.height, spec.out.width], most)
    possible = [v * p for v in vectors for p in pixels if v * (p + 1) <= most]
    return Limits(most, min(isa.in_flight // 2, max(possible, default=1)))


def _products(extents: Sequence[int], most: int) -> set[int]:
    """Products of one divisor of each extent, up to ``most``."""
    found = {1}
    for extent in extents:
        divisors = [count for count in range(1, most + 1) if extent % count == 0]
        found = {a * b for a in found for b in divisors if a * b <= most}
    return found


@derived_object
class FitsRegisters(PyPostproc):
    """Refuses schedules whose register tile the limits do not allow, before they are measured."""

    def __init__(self, allowed: Limits):
        self.allowed = allowed

    def _initialize_with_tune_context(self, context) -> None:
        """Nothing of it matters."""

    def apply(self, schedule: tvm.s_tir.Schedule) -> bool:
        """Whether to go on with a schedule."""
        image, block, row, column, vector = innermost(schedule.trace)
        return self.allowed.allow(block * vector, image * row * column)

    def clone(self) -> FitsRegisters:
        """The same, for TVM's copies of a context."""
        return FitsRegisters(self.allowed)


def innermost(trace: tvm.s_tir.schedule.Trace) -> list[int]:
    """Register tile of a trace: extents of image, channel block, row, column, vectors of a block.

    Source: the order in which ``MultiLevelTiling`` draws tiles, that of the block's axes.
    """
    drawn = [trace.get_decision(step) for step in trace.insts if step.kind.name == SAMPLE]
    return [int(tiles[-1]) for tiles in drawn]
