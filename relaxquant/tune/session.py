"""``rq.tune``: every distinct layer of a module timed once, and what was found kept on disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import tvm

from .. import target as targets
from ..cachefolder import cache_dir
from ..errors import InputError, TargetError
from ..executors import threads as pool
from ..executors.build import bind_batch
from ..kernels.intrinsics import InstructionSet, instruction_set
from ..kernels.tuned import Choice, Setting, Tuned, layer_key, read, versions
from ..lower import ConvLayer, conv_layers
from ..measure.machine import short_name
from ..measure.progress import progress_bar
from .candidates import Candidate, candidates, runner
from .race import Result, race

BUDGET_S = 2.0


def tune(
    module: tvm.IRModule,
    target: str | dict | tvm.target.Target = "native",
    threads: int | None = None,
    batch: int | None = None,
    budget_s: float = BUDGET_S,
    path: str | Path | None = None,
    progress: bool = False,
) -> Tuned:
    """Time the schedules and register tiles of each distinct layer, for ``compile(tuned=...)``.

    Nothing else should run on the machine meanwhile. What is known from an earlier call is not
    timed again; each layer is written as soon as it is known, so that a tuning that was
    interrupted goes on where it stopped.

    Parameters
    ----------
    module : tvm.IRModule
        As for `relaxquant.compile`.
    target : str, dict or tvm.target.Target
        As for `relaxquant.compile`; it must run on this machine.
    threads : int, optional
        Threads that the network will run with; default: the physical cores.
    batch : int, optional
        Bind a symbolic batch to this size.
    budget_s : float
        Seconds a layer, building its candidates included. At least the rules' choice and one other
        are built and ten rounds timed, whatever they take.
    path : str or pathlib.Path, optional
        File for what is found; by default one for this target and thread count in the cache
        folder. Its other layers are kept. A corrupt file, or one timed on another machine or with
        other versions, is warned about and begun anew.
    progress : bool
        Draw a progress bar, between layers only.

    Returns
    -------
    Tuned
        Choices for all layers that were ever tuned in this setting.

    Raises
    ------
    InputError
        For a symbolic batch that is not bound, a budget that is not positive, more threads than
        TVM's pool may have, or a file that cannot be written.
    ModelError, TargetError
        If the module or the target is not supported, or the target does not run here.
    """
    if not budget_s > 0:
        raise InputError(f"budget_s must be a time in seconds above 0, got {budget_s!r}")
    threads = pool.check(threads)
    resolved = targets.resolve_cpu(target, "rq.tune")
    layers = conv_layers(bind_batch(module, "graph", batch))
    isa = instruction_set(resolved)
    _check_runs_here(isa)
    tuned = _begin(_setting(resolved, isa, threads), path)
    pending = {layer_key(layer.spec, layer.weights, isa): layer for layer in reversed(layers)}
    pending = {key: pending[key] for key in reversed(pending) if key not in tuned.choices}
    pool.use(threads)
    with progress_bar("tuning", len(pending), progress) as step:
        for key, layer in pending.items():
            tuned.choices[key] = _tune_layer(layer, isa, resolved, budget_s)
            tuned.save()
            step()
    return tuned


def _setting(target: tvm.target.Target, isa: InstructionSet, threads: int) -> Setting:
    return Setting(targets.name(target), isa.name, threads, short_name(), versions())


def _check_runs_here(isa: InstructionSet) -> None:
    missing = isa.features - targets.features(targets.resolve("native"))
    if missing:
        raise TargetError(f"{isa.name} cannot be timed here: this CPU has no {sorted(missing)}")


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


def _tune_layer(layer: ConvLayer, isa: InstructionSet, target, budget_s: float) -> Choice:
    found = candidates(layer.spec, layer.weights, isa)

    def maker(candidate: Candidate) -> Callable[[], Callable[[], object] | None]:
        def make():
            implementation = candidate.implement()
            return implementation and runner(implementation, layer.spec, target)

        return make

    result = race([(str(candidate), maker(candidate)) for candidate in found], budget_s)
    return choice(layer.shape, found, result)


def choice(layer: str, found: list[Candidate], result: Result) -> Choice:
    """What is kept of a race, in words and figures."""
    rules, winner = found[0], next(c for c in found if str(c) == result.winner)
    count = len(result.looked_at)
    ratio = result.ratio
    if winner is rules:
        reason = f"tuned: the rule's choice, fastest of {count}"
        speedup = low = high = 1.0
    else:
        speedup, low, high = 1 / ratio.value, 1 / ratio.high, 1 / ratio.low
        reason = f"tuned: {speedup:.2f}x of the rule's choice ({rules})"
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
