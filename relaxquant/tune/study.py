"""One layer tuned in several ways, to compare them: best time against seconds of tuning."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tvm

from .. import target as targets
from ..errors import InputError
from ..executors import threads as pool
from ..executors.program import quiet_stderr
from ..kernels import loop_conv2d
from ..kernels.conv2d_metaschedule import replayed
from ..kernels.conv2d_nchw_spatial_pack import spatial_pack
from ..kernels.cuda.bind import for_machine
from ..kernels.dot_choice import DotChoice
from ..kernels.intrinsics import InstructionSet, instruction_set
from ..kernels.registry import Implementation, implement_conv2d
from ..kernels.spec import ConvSpec, ConvWeights
from ..kernels.tensor_intrin import register_all
from ..kernels.tir import CUDA
from ..kernels.tvm_intrinsics import import_intrinsics
from ..lower import ConvLayer
from ..measure import Timings, interleaved
from .bench import Bench
from .database import FAILED_S, TuningDatabase
from .device import device_here
from .devices import Devices
from .metaschedule import Search

DIRECT, RULES = "our direct schedule", "our rules' choice"
OURS, STOCK = "MetaSchedule, our intrinsics", "MetaSchedule, stock"


@dataclass(frozen=True)
class Curve:
    """What a search found, in the order in which it was tried.

    Attributes
    ----------
    elapsed_s : list of float
        Seconds of tuning after each trial.
    ms : list of float or None
        Each trial's time; None where it failed.
    """

    elapsed_s: list[float]
    ms: list[float | None]

    def best_after(self, trials: int) -> float | None:
        """Milliseconds of the best of the first trials; None if all of them failed."""
        return min((ms for ms in self.ms[:trials] if ms is not None), default=None)

    def steps(self) -> list[tuple[float, float]]:
        """Seconds of tuning and the best time then, at each improvement."""
        found: list[tuple[float, float]] = []
        for seconds, ms in zip(self.elapsed_s, self.ms, strict=True):
            if ms is not None and (not found or ms < found[-1][1]):
                found.append((seconds, ms))
        return found


class LayerStudy:
    """A layer on this machine, or on its GPU.

    Parameters
    ----------
    layer : ConvLayer
        From `relaxquant.lower.conv_layers`.
    target : str, dict or tvm.target.Target
        As for `relaxquant.compile`; it must run here.
    threads : int
        Threads of the pool.
    folder : pathlib.Path
        For the databases; a search goes on where one there ended.

    Raises
    ------
    InputError
        If the layer is none that MetaSchedule is given.
    TargetError
        If the target does not run here.
    """

    def __init__(
        self,
        layer: ConvLayer,
        target: str | dict | tvm.target.Target,
        threads: int,
        folder: Path,
    ):
        if not loop_conv2d.applies(layer.spec):
            raise InputError(f"{layer.shape} is no layer that MetaSchedule is given: take another")
        self.layer, self.threads, self.folder = layer, pool.check(threads), folder
        self.target = targets.resolve(target)
        self.isa = instruction_set(self.target)
        device = device_here(self.target, self.isa, self.threads)
        self.devices = Devices([device], self.target)
        self.found: dict[str, tuple[DotChoice, str]] = {}

    def search(self, name: str, trials: int) -> Curve:
        """Search by `OURS` or `STOCK` up to a number of trials."""
        register_all(self.isa)
        import_intrinsics()
        database = TuningDatabase(self.folder / ("stock" if name == STOCK else "ours"))
        setting = self.layer, "layer", self.isa, self.target, self.threads, database
        searched = Search(*setting, stock=name == STOCK)
        # TVM warns of each of its own schedules that an intrinsic does not fit.
        with quiet_stderr() if name == STOCK else contextlib.nullcontext():
            trace = searched.run(self.devices, trials, lambda _: None).trace
        self.found[name] = searched.dots, trace
        lines = database.history("layer")[:trials]
        return Curve([line["elapsed_s"] for line in lines], [line["ms"] for line in lines])

    def ours_ms(self) -> dict[str, float]:
        """Milliseconds of our schedules, timed as a search times what it tries."""
        bench, found = self._bench(), {}
        with self.devices.alive[0].timing():
            for name, kernel in self._kernels().items():
                function = for_machine(kernel.build, self.isa.machine)
                seconds = bench.checked_seconds(function, kernel.arguments, FAILED_S)
                found[name] = 1e3 * min(seconds)
        return found

    def in_turns(self, rounds: int, seed: int = 0) -> Timings:
        """All `runners` against one another, as `relaxquant.measure.interleaved` times them."""
        runners = self.runners()
        with self.devices.alive[0].timing():
            return interleaved(runners, rounds=rounds, seed=seed)

    def runners(self) -> dict[str, Callable[[], object]]:
        """What runs the layer once: by our schedules, and by the best of every search so far."""
        spec, bench = self.layer.spec, self._bench()
        found = {name: bench.runner(kernel) for name, kernel in self._kernels().items()}
        for name, (dots, trace) in self.found.items():
            if trace:
                arguments = loop_conv2d.arguments(spec, self.layer.weights, dots)
                build = partial(replayed, spec, dots, trace)
                found[name] = bench.runner_of(build, arguments)
        return found

    def _bench(self) -> Bench:
        return self.devices.bench(self.devices.alive[0], self.layer, self.isa)

    def _kernels(self) -> dict[str, Implementation]:
        spec, weights = self.layer.spec, self.layer.weights
        return {
            DIRECT: direct(spec, weights, self.isa),
            RULES: implement_conv2d(spec, weights, self.isa),
        }


def direct(spec: ConvSpec, weights: ConvWeights, isa: InstructionSet) -> Implementation:
    """Our direct schedule for a layer: on a GPU that by ``dp4a``, or the one of fp32."""
    if isa.machine == CUDA:
        return implement_conv2d(spec, weights, isa, "cuda_dp4a")
    return spatial_pack(spec, weights, isa)
