"""The schedule table: which kernels there are, and which one a layer gets.

A schedule is a function that looks at a layer and either returns an `Implementation` or, where it
does not apply, None (as dlight's rules do). To add one, write a file, decorate its function with
``@register(...)`` and import it in `schedules`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np
import tvm

from ..errors import InputError, did_you_mean
from .intrinsics import InstructionSet
from .spec import ConvSpec, ConvWeights


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
    """

    schedule: str
    instructions: str
    key: Hashable
    build: Callable[[], tvm.tirx.PrimFunc] = field(repr=False)
    arguments: list[np.ndarray | int] = field(repr=False)


Rule = Callable[[ConvSpec, ConvWeights, InstructionSet], Implementation | None]


@dataclass(frozen=True)
class Schedule:
    """One row of the schedule table."""

    name: str
    precisions: tuple[str, ...]
    rule: Rule = field(repr=False)


SCHEDULES: list[Schedule] = []


def register(name: str, precisions: tuple[str, ...] = ("fp32", "int8")) -> Callable[[Rule], Rule]:
    """Add the decorated rule to the schedule table, after those already in it."""

    def add(rule: Rule) -> Rule:
        SCHEDULES.append(Schedule(name, precisions, rule))
        return rule

    return add


def schedule_names() -> list[str]:
    """Names that ``rq.compile(schedule=...)`` takes."""
    return list(dict.fromkeys(schedule.name for schedule in SCHEDULES))


def implement_conv2d(
    spec: ConvSpec, weights: ConvWeights, isa: InstructionSet, schedule: str
) -> Implementation:
    """The first schedule that takes the layer: those named ``schedule``, then all in table order.

    Raises
    ------
    InputError
        If no schedule has that name.
    """
    check_schedule(schedule)
    wanted = [entry for entry in SCHEDULES if entry.name == schedule]
    for entry in wanted + SCHEDULES:
        if spec.precision in entry.precisions:
            implementation = entry.rule(spec, weights, isa)
            if implementation is not None:
                return implementation
    raise AssertionError("the reference schedule takes every layer")


def check_schedule(name: str) -> None:
    """Raise InputError, with the nearest name, unless a schedule is called ``name``."""
    names = schedule_names()
    if name not in names:
        hint = did_you_mean(name, names)
        raise InputError(f"no schedule is called {name!r}{hint} (there are: {', '.join(names)})")
