"""The kernels that a layer could get, and one of them as something to time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import tvm

from ..kernels.conv2d_reference import NAME as REFERENCE
from ..kernels.intrinsics import InstructionSet
from ..kernels.registry import AUTO, SCHEDULES, Implementation, implement_conv2d, layout_of
from ..kernels.spec import ConvSpec, ConvWeights, TensorSpec
from ..kernels.tile import Tile


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
    rules_choice = implement_conv2d(spec, weights, isa)
    found = [Candidate(rules_choice.schedule, rules_choice.tile, lambda: rules_choice)]
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
    tiles.sort(key=lambda candidate: candidate.schedule != rules_choice.schedule)
    unique: dict[str, Candidate] = {}
    for candidate in [*found, *tiles]:
        unique.setdefault(str(candidate), candidate)
    return list(unique.values())


def runner(
    implementation: Implementation, spec: ConvSpec, target: tvm.target.Target
) -> Callable[[], None]:
    """Build a kernel and return a function that runs it once, on random activations.

    Parameters
    ----------
    implementation : Implementation
        From a schedule's rule; its constants are the layer's own.
    spec : ConvSpec
        The layer; its batch must be known.
    target : tvm.target.Target
        What to compile for; it must run here.
    """
    function = implementation.build().with_attr("global_symbol", "main")
    kernel = tvm.tirx.build(tvm.IRModule({"main": function}), target=target)["main"]
    rng = np.random.default_rng(0)
    activations = [_activations(rng, spec.data, spec.batch)]
    if spec.epilogue.residual is not None:
        activations.append(_activations(rng, spec.epilogue.residual, spec.batch))
    arguments = [
        activations[argument] if isinstance(argument, int) else tvm.runtime.tensor(argument)
        for argument in implementation.arguments
    ]
    output = tvm.runtime.empty(spec.out.physical_shape(spec.batch), spec.out.dtype)
    return lambda: kernel(*arguments, output)


def _activations(rng, tensor: TensorSpec, batch: int):
    shape = tensor.physical_shape(batch)
    if tensor.integers:
        lowest, highest = tensor.integers
        values = rng.integers(lowest, highest + 1, shape).astype(tensor.dtype)
        return tvm.runtime.tensor(values)
    return tvm.runtime.tensor(rng.standard_normal(shape).astype(np.float32))
