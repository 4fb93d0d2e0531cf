"""Wall-clock timing of variants against one another.

The rules are those of pyperf, google/benchmark, asv and MLPerf: variants interleaved in random
order, warm-up until stable, raw samples kept, medians and paired ratios with intervals, and an A/A
control for the noise floor. A timed function must return only when its work is done.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .progress import progress_bar
from .samples import AA_SUFFIX, NoiseFloor, Ratio, Timings, Warmup, noise_floor

__all__ = [
    "NoiseFloor",
    "Ratio",
    "Timings",
    "Warmup",
    "aa_control",
    "interleaved",
    "noise_floor",
]

MIN_ROUNDS = 10

# Warm-up ends when the last samples lie this close together, relative to their median ...
_STABLE_SAMPLES = 4
_STABLE_SPREAD = 0.05
# ... or when this much has been spent on one variant, and the result says so (`Warmup.stable`).
_WARMUP_MAX_SAMPLES = 40
_WARMUP_MAX_S = 15.0

# A variant follows another one, whose worker threads may still spin for about a millisecond and
# whose data fills the caches. One untimed call absorbs that; in calls longer than this it is below
# 1 percent anyway.
_LEAD_IN_MAX_S = 0.25

# Aim a little above the shortest sample allowed: calls still get slightly quicker after warm-up.
_INNER_MARGIN = 1.1


def interleaved(
    variants: Mapping[str, Callable[[], Any]],
    rounds: int = MIN_ROUNDS,
    warmup: str | int = "stable",
    seed: int = 0,
    min_sample_s: float = 0.02,
    progress: bool = False,
    *,
    check: Callable[[str, Any], Any] | None = None,
    allow_few_rounds: bool = False,
    clock: Callable[[], int] = time.perf_counter_ns,
    pause_s: float = 0.0,
    lost: Callable[[str, Exception], Any] | None = None,
) -> Timings:
    """Time variants against one another, interleaved.

    Every variant is called once and its output given to `check`; then each is warmed up; then each
    round runs every variant once, in an order drawn anew. The number of calls averaged into a
    sample is fixed for each variant after its warm-up, so that a sample lasts at least
    `min_sample_s`; a slow variant is called once a sample. A quick variant gets one untimed call
    before each sample, to clear away what the variant before it left behind. The garbage collector
    is off inside a sample.

    Parameters
    ----------
    variants : mapping of str to callable
        Functions of no argument. Threads must be fixed, and equal, before they are built. One that
        has a method ``elapsed_ns(calls)`` is timed by that, not by `clock`: it runs elsewhere, in
        a process of its own say, and keeps the time there.
    rounds : int
        Samples a variant, at least 10 unless `allow_few_rounds`.
    warmup : "stable" or int
        Warm up until the last samples agree within 5 percent (bounded by 40 samples and 15 s a
        variant), or with this many calls and then as many as it takes to size a sample.
    seed : int
        Seed of the order within the rounds.
    min_sample_s : float
        Shortest sample, seconds.
    progress : bool
        Draw a progress bar, between samples only.
    check : callable, optional
        `check(name, output)`, called for every variant before anything is timed. It raises, or
        returns False, to refuse the output.
    allow_few_rounds : bool
        Allow fewer than 10 rounds; below 6, ratios have no 95 percent interval.
    clock : callable
        Nanoseconds as int; replaced in tests.
    pause_s : float
        Rest before a variant's turn, seconds: threads of the one before it may still spin.
    lost : callable, optional
        `lost(name, error)` is told of a variant that raised; it drops out and the others go on,
        so that the result holds only those that came through. Without it the exception ends the
        run.

    Returns
    -------
    Timings
        Seconds a call, one sample a variant and round.

    Raises
    ------
    InputError
        No variants, a variant that cannot be called, too few rounds, a bad `warmup` or
        `min_sample_s`, or an output that `check` returned False for.
    Exception
        What a variant or `check` raises comes through, with a note naming the variant, unless
        `lost` takes it.
    """
    _check_arguments(variants, rounds, warmup, min_sample_s, allow_few_rounds)
    field = _Field(variants, lost)
    _check_outputs(field, check)
    sampler = _Sampler(clock, int(min_sample_s * 1e9), pause_s)
    with progress_bar("timing", len(variants) * (1 + rounds), progress) as step:
        warmed, calls = {}, {}
        for name in variants:
            with field.turn(name, "warming up") as function:
                if function is not None:
                    warmed[name], calls[name] = sampler.warm_up(function, warmup)
            step()
        return _rounds(field, rounds, seed, sampler, warmed, calls, step)


def aa_control(name: str, build: Callable[[], Callable[[], Any]]) -> dict[str, Callable[[], Any]]:
    """Build one variant twice, under two names, so that a run measures its own noise.

    Two builds, not one function twice: where code and buffers happen to lie in memory is part of
    the noise. Give the result to `interleaved` among the other variants, and read it with
    `noise_floor(timings, name)`.

    Parameters
    ----------
    name : str
        Name of the variant; the control is called `name + " (A/A)"`.
    build : callable
        Returns a function to time; called twice.

    Returns
    -------
    dict of str to callable
    """
    return {name: build(), name + AA_SUFFIX: build()}


class _Field:
    """The variants still in the run."""

    def __init__(self, variants: Mapping[str, Callable[[], Any]], lost: Callable | None):
        self.variants, self._lost = dict(variants), lost

    @contextmanager
    def turn(self, name: str, doing: str):
        """Yield the variant's function, None if it has dropped out; take what it raises."""
        try:
            yield self.variants.get(name)
        except Exception as error:
            error.add_note(f"while {doing} variant {name!r}")
            if self._lost is None:
                raise
            del self.variants[name]
            self._lost(name, error)


def _rounds(field, rounds, seed, sampler, warmed, calls, step) -> Timings:
    rng = np.random.default_rng(seed)
    names = list(field.variants)
    samples = {name: np.empty(rounds) for name in names}
    order = []
    gc.collect()
    for index in range(rounds):
        turn = tuple(names[i] for i in rng.permutation(len(names)))
        for name in turn:
            with field.turn(name, f"timing round {index + 1}") as function:
                if function is not None:
                    samples[name][index] = sampler.sample(function, calls[name])
            step()
        order.append(turn)
    kept = list(field.variants)
    return Timings(
        {name: samples[name] for name in kept},
        {name: calls[name].inner for name in kept},
        {name: warmed[name] for name in kept},
        tuple(tuple(name for name in turn if name in kept) for turn in order),
    )


@dataclass(frozen=True)
class _Calls:
    """How a variant is called in each round, fixed after its warm-up."""

    inner: int
    lead_in: bool


class _Sampler:
    """Takes samples with a clock: the only place where time is read."""

    def __init__(self, clock: Callable[[], int], min_sample_ns: int, pause_s: float = 0.0):
        self._clock = clock
        self._min_sample_ns = min_sample_ns
        self._pause_s = pause_s

    def sample(self, function: Callable[[], Any], calls: _Calls) -> float:
        """Seconds a call."""
        self._rest()
        if calls.lead_in:
            function()
        return self._elapsed_ns(function, calls.inner) / calls.inner / 1e9

    def warm_up(self, function: Callable[[], Any], warmup: str | int) -> tuple[Warmup, _Calls]:
        """Warm a variant up, and settle how it is called from then on."""
        self._rest()
        counted = 0 if isinstance(warmup, str) else int(warmup)
        for _ in range(counted):
            function()
        start, made, inner, times = self._clock(), counted, 1, []
        for _ in range(_WARMUP_MAX_SAMPLES):
            elapsed = self._elapsed_ns(function, inner)
            made += inner
            seconds = elapsed / inner / 1e9
            if elapsed < self._min_sample_ns:
                inner, times = self._lengthened(inner, elapsed), []
                continue
            times.append(seconds)
            out_of_time = self._clock() - start > _WARMUP_MAX_S * 1e9
            if warmup != "stable" or _is_stable(times) or out_of_time:
                break
        stable = _is_stable(times) if warmup == "stable" else None
        return Warmup(made, stable), _Calls(inner, seconds <= _LEAD_IN_MAX_S)

    def _lengthened(self, inner: int, elapsed_ns: int) -> int:
        # At most tenfold at a time: the first calls are the slowest and say the least.
        wanted = math.ceil(_INNER_MARGIN * inner * self._min_sample_ns / max(elapsed_ns, 1))
        return min(wanted, 10 * inner)

    def _rest(self) -> None:
        if self._pause_s:
            time.sleep(self._pause_s)

    def _elapsed_ns(self, function: Callable[[], Any], inner: int) -> int:
        if hasattr(function, "elapsed_ns"):
            return function.elapsed_ns(inner)
        repeat = range(inner)
        with _collector_off():
            start = self._clock()
            for _ in repeat:
                function()
            return self._clock() - start


def _is_stable(times: list[float]) -> bool:
    last = times[-_STABLE_SAMPLES:]
    if len(last) < _STABLE_SAMPLES:
        return False
    return bool(np.ptp(last) <= _STABLE_SPREAD * np.median(last))


@contextmanager
def _collector_off():
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _check_outputs(field: _Field, check) -> None:
    for name in list(field.variants):
        with field.turn(name, "checking the output of") as function:
            output = function()
            verdict = check(name, output) if check is not None else None
            if isinstance(verdict, (bool, np.bool_)) and not verdict:
                raise InputError(f"the check refused the output of {name!r}: nothing was timed")


def _check_arguments(variants, rounds, warmup, min_sample_s, allow_few_rounds) -> None:
    if not variants:
        raise InputError("no variants to time: give at least one name and function")
    for name, function in variants.items():
        if not callable(function):
            kind = type(function).__name__
            raise InputError(f"variant {name!r} cannot be called: it is a {kind}")
    if rounds < 1 or (rounds < MIN_ROUNDS and not allow_few_rounds):
        raise InputError(
            f"rounds must be at least {MIN_ROUNDS}, got {rounds}: "
            "fewer (from 1) need allow_few_rounds=True"
        )
    # bool is an int to isinstance, and warmup=True means nothing here.
    counted = isinstance(warmup, (int, np.integer)) and not isinstance(warmup, bool)
    if warmup != "stable" and not (counted and warmup >= 0):
        raise InputError(f'warmup must be "stable" or a number of calls, got {warmup!r}')
    if not min_sample_s >= 0:
        raise InputError(f"min_sample_s must be a time in seconds >= 0, got {min_sample_s!r}")
