"""Which of several kernels of one layer is the fastest: the timing, without knowing of kernels.

Three heats, so that the time goes to those that are close. A *look* at each candidate drops the
slow ones; *rounds* over the rest, in random order, find the fastest; and where that is not the
rules' choice, *fresh* rounds of only these two decide, since the fastest of many is partly the
luckiest of many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..measure.samples import Ratio, Timings

Run = Callable[[], object]
Make = Callable[[], Run | None]

LOOKS = 3  # calls that a first look takes, after one that is not timed
SLOWER = 1.3  # a candidate this many times slower than the best so far is dropped
FINALISTS = 6
MIN_ROUNDS = 10  # fewer give no interval worth its name
MAX_ROUNDS = 200
# Shares of the budget at which building, and then the rounds among finalists, must end.
BUILD_SHARE = 0.6
ROUNDS_SHARE = 0.8


@dataclass(frozen=True)
class Result:
    """How a race ended.

    Attributes
    ----------
    winner : str
        The candidate to use: the first one unless another is faster beyond doubt.
    ratio : Ratio or None
        Time of the fastest other candidate over the first one's, from fresh rounds; None where
        the first was the fastest in the rounds.
    looked_at : dict of str to float
        Every candidate that was built -> seconds of its first look.
    """

    winner: str
    ratio: Ratio | None
    looked_at: dict[str, float]


def race(
    candidates: Sequence[tuple[str, Make]],
    budget_s: float,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Result:
    """Time candidates against the first of them.

    Parameters
    ----------
    candidates : sequence of (str, callable)
        Name, and what builds the kernel and returns a function to time, or None where it does not
        apply after all. The first is the one to beat; the others are built in this order until the
        budget's share for that is used.
    budget_s : float
        Seconds for all of it. The first two are built, and ten rounds run, whatever they take.
    seed : int
        Of the order within rounds.
    clock : callable
        Seconds; replaced in tests.

    Returns
    -------
    Result
    """
    start = clock()
    rng = np.random.default_rng(seed)
    runs, looks = _look(candidates, start + BUILD_SHARE * budget_s, clock)
    first = candidates[0][0]
    finalists = _finalists(first, looks, start + ROUNDS_SHARE * budget_s - clock())
    if finalists == [first]:
        return Result(first, None, looks)
    rounds = _Rounds({name: runs[name] for name in finalists}, rng, clock)
    timings = rounds.run(start + ROUNDS_SHARE * budget_s)
    fastest = min(finalists, key=timings.median)
    if fastest == first:
        return Result(first, None, looks)
    final = _Rounds({name: runs[name] for name in (first, fastest)}, rng, clock)
    ratio = final.run(start + budget_s).ratio(fastest, first)
    return Result(fastest if ratio.verdict == "faster" else first, ratio, looks)


def _look(candidates, deadline: float, clock) -> tuple[dict[str, Run], dict[str, float]]:
    """Build candidates and time each a few times; keep the runs of those worth more of it."""
    runs: dict[str, Run] = {}
    looks: dict[str, float] = {}
    for index, (name, make) in enumerate(candidates):
        if index > 1 and clock() > deadline:
            break
        run = make()
        if run is None:
            continue
        run()
        looks[name] = min(_seconds(run, clock) for _ in range(LOOKS))
        if index == 0 or looks[name] <= SLOWER * min(looks.values()):
            runs[name] = run
    return runs, looks


def _finalists(first: str, looks: dict[str, float], left_s: float) -> list[str]:
    """The candidate to beat and the best others, as many as ten rounds of all have time for."""
    limit = SLOWER * min(looks.values())
    others = sorted((n for n in looks if n != first and looks[n] <= limit), key=looks.get)
    chosen, a_round = [first], looks[first]
    for name in others[: FINALISTS - 1]:
        a_round += looks[name]
        if len(chosen) > 1 and MIN_ROUNDS * a_round > left_s:
            break
        chosen.append(name)
    return chosen


def _seconds(run: Run, clock) -> float:
    """Of one call: what it says itself, as runs on another machine do, or by the clock here."""
    start = clock()
    said = run()
    return said if isinstance(said, float) else clock() - start


class _Rounds:
    """Rounds over a few runs, one call each in an order drawn anew.

    One call a sample, and another candidate before it: each finds the caches as full of something
    else as it does in a network.
    """

    def __init__(self, runs: dict[str, Run], rng, clock):
        self.runs, self.rng, self.clock = runs, rng, clock

    def run(self, deadline: float) -> Timings:
        """Samples until the deadline, between `MIN_ROUNDS` and `MAX_ROUNDS` of them."""
        names = list(self.runs)
        samples: dict[str, list[float]] = {name: [] for name in names}
        for index in range(MAX_ROUNDS):
            if index >= MIN_ROUNDS and self.clock() > deadline:
                break
            for at in self.rng.permutation(len(names)):
                samples[names[at]].append(_seconds(self.runs[names[at]], self.clock))
        return Timings({name: np.array(values) for name, values in samples.items()})
