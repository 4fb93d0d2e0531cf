"""``rq.tune``: every distinct layer of a module timed once, and what was found kept on disk."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tvm

from .. import target as targets
from ..cachefolder import cache_dir
from ..errors import InputError, did_you_mean
from ..executors import threads as pool
from ..executors.build import bind_batch
from ..kernels import loop_conv2d
from ..kernels.intrinsics import InstructionSet, instruction_set
from ..kernels.tensor_intrin import register_all
from ..kernels.tuned import (
    METASCHEDULE,
    TUNED,
    Choice,
    Setting,
    Tuned,
    layer_key,
    read,
    versions,
)
from ..lower import ConvLayer, conv_layers
from ..measure.progress import progress_bar
from . import rpc
from .candidates import Candidate, candidates, replayed, rules_choice
from .database import TuningDatabase, folder_of
from .device import device_here
from .devices import Devices
from .metaschedule import Search
from .race import Result, race

BUDGET_S = 2.0
TRIALS = 64
CANDIDATES = "candidates"
METHODS = (CANDIDATES, METASCHEDULE)
LOCAL, RPC = RUNNERS = ("local", "rpc")


def tune(
    module: tvm.IRModule,
    target: str | dict | tvm.target.Target = "native",
    threads: int | None = None,
    batch: int | None = None,
    budget_s: float = BUDGET_S,
    path: str | Path | None = None,
    progress: bool = False,
    method: str = CANDIDATES,
    trials: int = TRIALS,
    runner: str = LOCAL,
    tracker: str | None = None,
    key: str | None = None,
) -> Tuned:
    """Find the fastest kernel of each distinct layer, for ``compile(tuned=...)``.

    Nothing else should run on the machine meanwhile. What is known from an earlier call is not
    timed again; each layer, and with MetaSchedule each trial, is written as soon as it is known, so
    that a tuning that was interrupted goes on where it stopped.

    Parameters
    ----------
    module : tvm.IRModule
        As for `relaxquant.compile`.
    target : str, dict or tvm.target.Target
        As for `relaxquant.compile`; with runner ``"local"`` it must run on this machine, or on its
        GPU.
    threads : int, optional
        Threads that the network will run with; default: the physical cores. Must be given for
        runner ``"rpc"``. On a GPU only those of the host.
    batch : int, optional
        Bind a symbolic batch to this size.
    budget_s : float
        Seconds of a layer's race, building its candidates included. At least the rules' choice and
        one other are built and ten rounds timed, whatever they take.
    path : str or pathlib.Path, optional
        File for what is found; by default one for this target and thread count in the cache
        folder. Its other layers are kept. A corrupt file, or one timed on another machine or with
        other versions, is warned about and begun anew. MetaSchedule's database is in a folder
        beside it.
    progress : bool
        Draw a progress bar, between layers and trials only, with the best time so far.
    method : str
        ``"candidates"``: a race between the schedules and register tiles written by hand.
        ``"metaschedule"``: TVM's MetaSchedule searches over each layer's loops, with the dot
        products of the instruction set as tensor intrinsics (``dp4a`` on a GPU), and the best it
        finds races the rules' choice. Layers that `kernels.loop_conv2d` does not take race
        candidates.
    trials : int
        Schedules that MetaSchedule tries for each layer, earlier calls included.
    runner : str
        ``"local"``: this process. ``"rpc"``: all free servers of a TVM RPC tracker.
    tracker, key : str, optional
        ``"host:port"`` of the tracker and the servers' key, for runner ``"rpc"``; default:
        ``$TVM_TRACKER_HOST``, ``$TVM_TRACKER_PORT`` and ``$TVM_TRACKER_KEY``.

    Returns
    -------
    Tuned
        Choices for all layers that were ever tuned in this setting.

    Raises
    ------
    InputError
        For an unknown method or runner, a symbolic batch that is not bound, a budget or trials that
        are not positive, more threads than TVM's pool may have, a tracker that does not answer or
        has no server, the loss of the last server, a file that cannot be written, or a database
        that is corrupt.
    ModelError, TargetError
        If the module or the target is not supported, or the target does not run here, such as
        ``"cuda"`` where there is no GPU.
    """
    _check(budget_s, method, trials, runner)
    threads = pool.check(threads) if runner == LOCAL else _board_threads(threads)
    resolved = targets.resolve(target)
    isa = instruction_set(resolved)
    layers = conv_layers(bind_batch(module, "graph", batch), isa.machine)
    if runner == LOCAL:
        found = [device_here(resolved, isa, threads)]
        machine = found[0].machine
    else:
        tracker, key = rpc.address_and_key(tracker, key)
        found = rpc.boards(tracker, key, threads, targets.is_cuda(resolved))
        machine = f"RPC {key}"
    devices = Devices(found, resolved)
    with contextlib.closing(devices):
        tuned = _begin(_setting(resolved, isa, threads, machine), path)
        work = _Work(tuned, isa, devices, budget_s, trials if method == METASCHEDULE else 0)
        work.run(layers, progress)
    return tuned


class _Work:
    """Tunes layers one after the other; ``trials`` is 0 where nothing is searched."""

    def __init__(
        self, tuned: Tuned, isa: InstructionSet, devices: Devices, budget_s: float, trials: int
    ):
        self.tuned, self.isa, self.devices = tuned, isa, devices
        self.budget_s, self.trials = budget_s, trials
        self.database = None
        if trials:
            register_all(isa)
            self.database = TuningDatabase(folder_of(tuned.path, tuned.setting))

    def run(self, layers: list[ConvLayer], progress: bool) -> None:
        """Tune what is not known, and save each layer as soon as it is."""
        keys = [layer_key(layer.spec, layer.weights, self.isa) for layer in layers]
        pending = dict(reversed(list(zip(keys, layers, strict=True))))
        pending = {key: pending[key] for key in dict.fromkeys(keys) if self._is_new(key)}
        a_layer = max(self.trials, 1)
        with progress_bar("tuning", a_layer * len(pending), progress) as step:
            for key, layer in pending.items():
                self.tuned.choices[key] = self._tuned(key, layer, step)
                self.tuned.save()

    def _is_new(self, key: str) -> bool:
        known = self.tuned.choices.get(key)
        return known is None or known.trials < self.trials

    def _tuned(self, key: str, layer: ConvLayer, step: Callable) -> Choice:
        if not self.trials or not loop_conv2d.applies(layer.spec):
            made = self._raced(layer, candidates(layer.spec, layer.weights, self.isa))
            step(f"tuning {layer.shape}: {made.schedule}", max(self.trials, 1))
            return replace(made, trials=self.trials)
        target, threads = self.devices.target, self.tuned.setting.threads
        search = Search(layer, key, self.isa, target, threads, self.database)
        step(f"tuning {layer.shape}", min(search.tried, self.trials))
        found = search.run(self.devices, self.trials, step)
        step(f"tuning {layer.shape}", max(self.trials - search.tried, 0))
        rules = rules_choice(layer.spec, layer.weights, self.isa)
        if not found.trace:
            return replace(self._raced(layer, [rules]), trials=self.trials)
        made = self._raced(
            layer, [rules, replayed(layer.spec, layer.weights, self.isa, found.trace)]
        )
        reason = f"{TUNED}the rule's choice, faster than MetaSchedule's best of {found.tried}"
        return replace(
            made,
            reason=made.reason if made.schedule == METASCHEDULE else reason,
            candidates=found.tried + 1,
            trials=self.trials,
            trace=found.trace,
            trace_ms=1e3 * found.seconds,
        )

    def _raced(self, layer: ConvLayer, found: list[Candidate]) -> Choice:
        def on(device) -> Choice:
            bench = self.devices.bench(device, layer, self.isa)

            def maker(candidate: Candidate) -> Callable[[], Callable[[], object] | None]:
                def make():
                    implementation = candidate.implement()
                    return implementation and bench.runner(implementation)

                return make

            makers = [(str(candidate), maker(candidate)) for candidate in found]
            return choice(layer.shape, found, race(makers, self.budget_s))

        return self.devices.on_one(on)


def _check(budget_s: float, method: str, trials: int, runner: str) -> None:
    if not budget_s > 0:
        raise InputError(f"budget_s must be a time in seconds above 0, got {budget_s!r}")
    for word, given, known in (("method", method, METHODS), ("runner", runner, RUNNERS)):
        if given not in known:
            names = " or ".join(map(repr, known))
            raise InputError(f"{word} must be {names}, not {given!r}{did_you_mean(given, known)}")
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise InputError(f"trials must be a whole number of at least 1, got {trials!r}")


def _board_threads(threads: int | None) -> int:
    if not isinstance(threads, int) or threads < 1:
        raise InputError(
            f"threads must say how many the boards run the network with, got {threads!r}: "
            "runner='rpc' knows no default"
        )
    return threads


def _setting(target: tvm.target.Target, isa: InstructionSet, threads: int, machine: str) -> Setting:
    return Setting(targets.name(target), isa.name, threads, machine, versions())


def default_path(setting: Setting) -> Path:
    """The file in the cache folder for a target and thread count."""
    name = re.sub(r"\W+", "_", f"{setting.target} {setting.isa} {setting.threads}")
    return cache_dir() / "tuned" / f"{name}.json"


def _begin(setting: Setting, path: str | Path | None) -> Tuned:
    """What the file holds for this setting; empty where it holds nothing, or something else."""
    path = Path(path) if path is not None else default_path(setting)
    known = read(path) if path.exists() else None
    if known is None or known.setting != setting:
        return Tuned(setting, {}, path)
    return known


def choice(layer: str, found: list[Candidate], result: Result) -> Choice:
    """What is kept of a race, in words and figures."""
    rules, winner = found[0], next(c for c in found if str(c) == result.winner)
    count = len(result.looked_at)
    ratio = result.ratio
    if winner is rules:
        reason = f"{TUNED}the rule's choice, fastest of {count}"
        speedup = low = high = 1.0
    else:
        speedup, low, high = 1 / ratio.value, 1 / ratio.high, 1 / ratio.low
        reason = f"{TUNED}{speedup:.2f}x of the rule's choice ({rules})"
    return Choice(
        layer=layer,
        schedule=winner.schedule,
        tile=str(winner.tile or ""),
        reason=reason,
        replaces_rule=winner is not rules,
        speedup=speedup,
        low=low,
        high=high,
        candidates=count,
    )
