"""The schedule table: which kernels there are, and which one a layer gets.

A schedule is a function ``rule(spec, weights, isa, tile=None)`` that looks at a layer and either
returns an `Implementation` or, where it does not apply, None (as dlight's rules do). To add one,
write a file, decorate its rule with ``@register(...)`` and import the file in `schedules`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

import numpy as np
import tvm

from ..errors import InputError, did_you_mean
from .choose import preferences
from .intrinsics import InstructionSet
from .spec import NCHW16C, ConvSpec, ConvWeights
from .tile import Tile
from .tir import CPU
from .tuned import METASCHEDULE, Tuned


@dataclass(frozen=True)
class Implementation:
    """A kernel chosen for a layer.

    Parameters
    ----------
    schedule : str
        Name in the schedule table.
    instructions : str
        What multiplies and adds, as shown in ``lib.kernels``.
    key : Hashable
        Equal for layers that can share one PrimFunc.
    build : callable
        Returns the ``tvm.tirx.PrimFunc``.
    arguments : list
        In the PrimFunc's order, without the output: arrays are constants, integers say which
        activation (0 the data, 1 the residual or second input, and so on).
    tile : Tile, optional
        Register tile, where the schedule has one.
    reason : str
        Why this schedule, or this tile, and no other.
    """

    schedule: str
    instructions: str
    key: Hashable
    build: Callable[[], tvm.tirx.PrimFunc] = field(repr=False)
    arguments: list[np.ndarray | int] = field(repr=False)
    tile: Tile | None = None
    reason: str = ""


Rule = Callable[..., Implementation | None]
Tiles = Callable[[ConvSpec, ConvWeights, InstructionSet], list[Tile]]
FromTrace = Callable[[ConvSpec, ConvWeights, InstructionSet, str], Implementation | None]


def no_tiles(_spec: ConvSpec, _weights: ConvWeights, _isa: InstructionSet) -> list[Tile]:
    """For schedules with nothing to choose."""
    return []


@dataclass(frozen=True)
class Schedule:
    """One row of the schedule table.

    Parameters
    ----------
    name : str
        What ``rq.compile(schedule=...)`` and ``lib.kernels`` call it; rows may share one.
    precisions : tuple of str
        Of ``"fp32"``, ``"fp16"``, ``"int8"`` and ``"int16"``: see `ConvSpec.precision`.
    rule : callable
        ``rule(spec, weights, isa, tile=None)``; without a tile it chooses one by its own model.
    tiles : callable
        ``tiles(spec, weights, isa)``: the register tiles worth timing for a layer it applies to.
    layout : str
        ``"NCHW16c"`` or ``"NHWC"``: that of a whole network for which the schedule is asked.
    weight_zero_points : bool
        Whether the rule takes layers whose weights have zero points.
    machines : tuple of str
        Of `InstructionSet.machine`: those that it has kernels for.
    """

    name: str
    precisions: tuple[str, ...]
    rule: Rule = field(repr=False)
    tiles: Tiles = field(repr=False, default=no_tiles)
    layout: str = NCHW16C
    weight_zero_points: bool = False
    machines: tuple[str, ...] = (CPU,)

    def implement(
        self, spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, tile: Tile | None = None
    ) -> Implementation | None:
        """What the rule makes of a layer; None where the schedule does not apply."""
        if spec.weight_zero_points and not self.weight_zero_points:
            return None
        if isa.machine not in self.machines:
            return None
        return self.rule(spec, weights, isa, tile)


AUTO = "auto"
SCHEDULES: list[Schedule] = []
REPLAYED: dict[str, FromTrace] = {}  # schedules that only a tuning result can give a layer


def register(
    name: str,
    precisions: tuple[str, ...] = ("fp32", "int8"),
    tiles: Tiles = no_tiles,
    layout: str = NCHW16C,
    weight_zero_points: bool = False,
    machines: tuple[str, ...] = (CPU,),
) -> Callable[[Rule], Rule]:
    """Add the decorated rule to the schedule table, after those already in it.

    Of rows with one name the last is asked first: a file that builds on another is imported after
    it, and takes the layers for which it was written.
    """

    def add(rule: Rule) -> Rule:
        row = Schedule(name, precisions, rule, tiles, layout, weight_zero_points, machines)
        SCHEDULES.append(row)
        return rule

    return add


def register_replayed(name: str) -> Callable[[FromTrace], FromTrace]:
    """Make the decorated function what replays the traces that a search wrote down.

    It is called as ``from_trace(spec, weights, isa, trace)`` and returns an `Implementation`, or
    None where the trace does not fit.
    """

    def add(from_trace: FromTrace) -> FromTrace:
        REPLAYED[name] = from_trace
        return from_trace

    return add


def schedule_names() -> list[str]:
    """Names that ``rq.compile(schedule=...)`` takes; those of `REPLAYED` with ``tuned=`` only."""
    return [AUTO, *dict.fromkeys(schedule.name for schedule in SCHEDULES)]


def cpu_rows() -> list[Schedule]:
    """The rows that have kernels for CPUs."""
    return [row for row in SCHEDULES if CPU in row.machines]


def rows_of(name: str, precision: str) -> list[Schedule]:
    """Rows with a name that compute a precision, in the order in which they are asked."""
    return [r for r in reversed(SCHEDULES) if r.name == name and precision in r.precisions]


def layout_of(name: str) -> str:
    """Layout of the feature maps of a network for which schedule ``name`` is asked."""
    return next((row.layout for row in SCHEDULES if row.name == name), NCHW16C)


def implement_conv2d(
    spec: ConvSpec,
    weights: ConvWeights,
    isa: InstructionSet,
    schedule: str = AUTO,
    tuned: Tuned | None = None,
) -> Implementation:
    """The kernel of a layer: by the schedule asked for if it applies, else by `choose`.

    Where ``schedule`` is ``"auto"`` and ``tuned`` knows the layer, what was timed goes before the
    rules. Where it is ``"metaschedule"``, the best that was found is taken, faster or not.

    Raises
    ------
    InputError
        If no schedule has that name.
    """
    check_schedule(schedule)
    if schedule not in (AUTO, METASCHEDULE):
        implementation = _implement(schedule, spec, weights, isa)
        if implementation is not None:
            return replace(implementation, reason="asked for")
    elif tuned is not None:
        implementation = _tuned(tuned, spec, weights, isa, schedule)
        if implementation is not None:
            return implementation
    for preference in preferences(spec, weights, isa):
        implementation = _implement(preference.schedule, spec, weights, isa)
        if implementation is not None:
            return replace(implementation, reason=preference.reason)
    raise AssertionError("the reference schedule takes every layer")


def _tuned(
    tuned: Tuned, spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, schedule: str
) -> Implementation | None:
    """The kernel that was timed as the fastest; None where it is not one of those there are."""
    choice = tuned.choice(spec, weights, isa)
    if choice is None:
        return None
    if METASCHEDULE in (schedule, choice.schedule):
        found = choice.trace and REPLAYED[METASCHEDULE](spec, weights, isa, choice.trace)
        reason = choice.reason if choice.schedule == METASCHEDULE else choice.trace_reason
        return replace(found, reason=reason) if found else None
    tile = choice.register_tile
    for row in rows_of(choice.schedule, spec.precision):
        found = row.implement(spec, weights, isa)
        if found is None:
            continue
        if found.tile != tile and tile in row.tiles(spec, weights, isa):
            found = row.implement(spec, weights, isa, tile)
        if found is not None and found.tile == tile:
            return replace(found, reason=choice.reason)
    return None


def _implement(
    name: str, spec: ConvSpec, weights: ConvWeights, isa: InstructionSet
) -> Implementation | None:
    found = (row.implement(spec, weights, isa) for row in rows_of(name, spec.precision))
    return next((implementation for implementation in found if implementation is not None), None)


def check_schedule(name: str) -> None:
    """Raise InputError, with the nearest name, unless a schedule is called ``name``."""
    names = [*schedule_names(), *REPLAYED]
    if name not in names:
        hint = did_you_mean(name, names)
        raise InputError(f"no schedule is called {name!r}{hint} (there are: {', '.join(names)})")
