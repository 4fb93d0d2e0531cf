"""The search of one layer: MetaSchedule proposes, devices measure, the database remembers.

TVM's own loop writes its records when a task ends and measures in worker processes that import TVM
anew; here it is a dozen lines around the same context and strategy, so that each measurement is
kept as soon as it is known, and nothing is timed that was not checked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import tvm
from tvm.s_tir import meta_schedule as ms

from ..kernels import loop_conv2d
from ..kernels.conv2d_metaschedule import workload
from ..kernels.dot_choice import DotChoice
from ..kernels.intrinsics import InstructionSet
from ..kernels.tensor_intrin import dot_products, intrinsic, uses
from ..kernels.tir import CUDA, emitting_for
from ..kernels.tvm_intrinsics import import_intrinsics
from ..lower import ConvLayer
from ..target import is_cuda
from .database import FAILED_S, TuningDatabase, seconds_of
from .devices import Devices, Outcome
from .registers import limits
from .space import space
from .space_cuda import cuda_space, with_limits

BATCH = 16  # schedules proposed at a time, before what they gave is known
POPULATION, GENERATIONS = 64, 2
STOCK_GPU_POPULATION = 512  # TVM's own; a GPU's limits refuse most of what its rules draw


@dataclass(frozen=True)
class Found:
    """The best of a search.

    Attributes
    ----------
    trace : str
        As JSON; empty where nothing could be run.
    seconds : float
        Its best time when it was found.
    tried : int
        Schedules that were tried, failed ones included.
    """

    trace: str
    seconds: float
    tried: int


class Search:
    """A search that begins where the database ends.

    Parameters
    ----------
    layer : ConvLayer
        What `loop_conv2d.applies` to.
    key : str
        Its `tuned.layer_key`.
    isa : InstructionSet
        Whose dot products are used.
    target : tvm.target.Target
        What to compile for.
    threads : int
        Threads that the kernel will run on.
    database : TuningDatabase
        Records of earlier searches, and of this one.
    stock : bool
        Search what TVM searches for this target by itself, with its own intrinsics, instead of
        `space`; for comparison, in a database of its own.
    """

    def __init__(
        self,
        layer: ConvLayer,
        key: str,
        isa: InstructionSet,
        target: tvm.target.Target,
        threads: int,
        database: TuningDatabase,
        stock: bool = False,
    ):
        self.layer, self.key, self.isa, self.database = layer, key, isa, database
        self.target = searched_for(target, threads)
        self.dots = DotChoice(None) if stock else dot_products(layer.spec, layer.weights, isa)
        with emitting_for(isa.machine):
            self.module = workload(layer.spec, self.dots)
        self.arguments = loop_conv2d.arguments(layer.spec, layer.weights, self.dots)
        self.entry = database.workload(self.module)
        self.intrinsic = "" if stock else intrinsic(isa, self.dots)
        self.best, self.trace, self.tried = FAILED_S, "", 0
        for record in database.records(self.entry):
            self._take(record)
        history = database.history(key)
        self._before_s = history[-1]["elapsed_s"] if history else 0.0

    def run(self, devices: Devices, trials: int, tell: Callable[[str], None]) -> Found:
        """Try as many schedules as are missing to ``trials``; tell of each in words."""
        if self.tried < trials:
            self._search(devices, trials, tell)
        return Found(self.trace, self.best, self.tried)

    def _search(self, devices: Devices, trials: int, tell: Callable[[str], None]) -> None:
        start = time.perf_counter() - self._before_s
        # A small layer may have fewer schedules than a batch: TVM then proposes none of them.
        for at_least in (BATCH, 1):
            if self.tried < trials:
                context = self._context(trials - self.tried, at_least)
                self._measure(context, devices, start, tell)

    def _measure(
        self, context: ms.TuneContext, devices: Devices, start: float, tell: Callable[[str], None]
    ) -> None:
        while (proposed := context.generate_measure_candidates()) is not None:
            outcomes: list[Outcome | None] = [None] * len(proposed)
            kernels = [candidate.sch.mod["main"] for candidate in proposed]
            measured = devices.measure(self.layer, self.isa, kernels, self.arguments, self.best)
            for index, outcome in measured:
                outcomes[index] = outcome
                self._keep(proposed[index], outcome, time.perf_counter() - start)
                tell(f"{self.layer.shape}: trial {self.tried}, best {1e3 * self.best:.3f} ms")
            context.notify_runner_results(proposed, [result_of(outcome) for outcome in outcomes])
        context.post_tuning()

    def _context(self, trials: int, at_least: int = 1) -> ms.TuneContext:
        import_intrinsics()
        strategy = ms.search_strategy.EvolutionarySearch(
            population_size=self._population(),
            init_measured_ratio=0.5,
            init_min_unmeasured=at_least,
            max_fail_count=5,
            genetic_num_iters=GENERATIONS,
        )
        context = ms.TuneContext(
            self.module,
            target=self.target,
            space_generator=self._space(),
            search_strategy=strategy,
            num_threads=1,
            rand_state=1 + self.tried,  # after a resume not the same proposals again
        )
        model = ms.cost_model.RandomModel(seed=self.tried)
        context.pre_tuning(trials, BATCH, database=self.database.tvm, cost_model=model)
        return context

    def _population(self) -> int:
        is_stock_gpu = self.isa.machine == CUDA and not self.intrinsic
        return STOCK_GPU_POPULATION if is_stock_gpu else POPULATION

    def _space(self) -> ms.SpaceGenerator | str:
        if not self.intrinsic:
            return "post-order-apply"
        if self.isa.machine == CUDA:
            return cuda_space()
        return space(self.intrinsic, limits(self.layer.spec, self.dots, self.isa))

    def _keep(self, candidate, outcome: Outcome, elapsed_s: float) -> None:
        trace = candidate.sch.trace
        seconds = outcome.seconds or [FAILED_S]
        record = ms.database.TuningRecord(
            trace, self.entry, seconds, self.target, candidate.args_info
        )
        line = {
            "layer": self.key,
            "trial": self.tried + 1,
            "elapsed_s": round(elapsed_s, 3),
            "ms": 1e3 * min(outcome.seconds) if outcome.seconds else None,
            "device": outcome.device,
            "error": outcome.error,
        }
        self.database.add(record, line)
        self._take(record)

    def _take(self, record) -> None:
        self.tried += 1
        seconds = seconds_of(record)
        trace = json.dumps(plain(record.trace.as_json()))
        if seconds < self.best and uses(trace, self.intrinsic):
            self.best, self.trace = seconds, trace


def searched_for(target: tvm.target.Target, threads: int) -> tvm.target.Target:
    """The target with what MetaSchedule asks of it: threads as its cores, or a GPU's limits."""
    if is_cuda(target):
        return with_limits(target)
    options = dict(target.export())
    return tvm.target.Target(options | {"num-cores": threads})


def result_of(outcome: Outcome) -> ms.runner.RunnerResult:
    """As MetaSchedule is told of it."""
    return ms.runner.RunnerResult(outcome.seconds or None, outcome.error or None)


def plain(value):
    """TVM's arrays, strings and numbers as Python's."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, tvm.ir.Expr):  # a constant
        return value.value
    return [plain(item) for item in value]
