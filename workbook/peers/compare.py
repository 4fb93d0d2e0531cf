"""What a scenario says of ours: ratios of times, and whether the project's goals are met."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from relaxquant.measure import Ratio
from workbook import paths
from workbook.peers.job import Job
from workbook.peers.scenario import Found

# The study's own schedule, for comparing int8 with fp32 where neither may save arithmetic.
DIRECT = "nchw_spatial_pack"
MET, MISSED, INCONCLUSIVE = "met", "missed", "inconclusive"


@dataclass(frozen=True)
class Comparison:
    """Time of `first` over time of `second`, two labels of one scenario.

    Attributes
    ----------
    first, second : str
    job : Job
        That of `first`.
    against : str
        What `first` is compared with: a peer's name, or ours in fp32.
    ratio : Ratio
        Paired by round.
    at_most : float or None
        The project's goal for the ratio, None where it has none.
    """

    first: str
    second: str
    job: Job
    against: str
    ratio: Ratio
    at_most: float | None

    @property
    def verdict(self) -> str:
        """`judge` of the ratio; empty without a goal."""
        return "" if self.at_most is None else judge(self.ratio, self.at_most)

    def __str__(self) -> str:
        low, high = self.ratio.low, self.ratio.high
        bounds = "no interval" if math.isnan(low) else f"{low:.2f} to {high:.2f}"
        goal = f"; goal ≤ {self.at_most:.2f}: {self.verdict}" if self.verdict else ""
        return (
            f"{self.first} takes {self.ratio.value:.2f} ({bounds}) of the time of {self.second}"
            f"{goal}"
        )


def judge(ratio: Ratio, at_most: float) -> str:
    """Whether a goal is met, by the interval and not by the median.

    Returns
    -------
    str
        "met" where the whole interval lies at or below the goal, "missed" where it lies above,
        "inconclusive" where the goal is inside or there is no interval.
    """
    if math.isnan(ratio.low) or math.isnan(ratio.high):
        return INCONCLUSIVE
    if ratio.high <= at_most:
        return MET
    return MISSED if ratio.low > at_most else INCONCLUSIVE


@cache
def targets() -> dict[tuple[str, int, str, str, str], float]:
    """The project's goals, ``data/targets.csv``: (model, batch, precision, first, second)."""
    with (paths.root() / "data" / "targets.csv").open(encoding="utf-8", newline="") as stream:
        return {
            (r["model"], int(r["batch"]), r["precision"], r["first"], r["second"]): float(
                r["at_most"]
            )
            for r in csv.DictReader(stream)
        }


def comparisons(found: Found, default_schedule: str) -> list[Comparison]:
    """Compare ours with each peer of the same precision, int8 with fp32 and few bits with int8.

    Best against best is what `relaxquant.compile` chooses by itself; direct against direct is the
    same schedule for both. Where the default is that schedule, one measurement serves both.
    """
    result = []
    for first, second, roles in _pairs(found, default_schedule):
        if {first, second} <= set(found.timings.samples):
            job = found.jobs[first]
            ratio = found.timings.ratio(first, second)
            goals = [
                targets().get((job.model, job.batch, job.precision, mine, theirs))
                for mine, theirs in roles
            ]
            goal = next((value for value in goals if value is not None), None)
            result.append(Comparison(first, second, job, roles[0][1], ratio, goal))
    return result


def _pairs(found: Found, default: str) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Labels of two variants, and the roles they play in the table of goals."""
    best = {job.precision: label for label, job in _ours(found) if not job.schedule}
    direct = {job.precision: label for label, job in _ours(found) if job.schedule == DIRECT}
    one_serves_both = default == DIRECT
    if {"fp32", "w8a8"} <= set(best):
        roles = [("ours", "ours fp32")]
        roles += [("ours direct", "ours direct fp32")] if one_serves_both else []
        yield best["w8a8"], best["fp32"], roles
    if {"fp32", "w8a8"} <= set(direct):
        yield direct["w8a8"], direct["fp32"], [("ours direct", "ours direct fp32")]
    if "w8a8" in direct or (one_serves_both and "w8a8" in best):
        base = (best if one_serves_both else direct)["w8a8"]
        for precision in best.keys() - {"fp32", "w8a8"}:
            yield best[precision], base, [("ours", "ours direct w8a8")]
    for label, job in found.jobs.items():
        if job.peer != "ours" and job.precision in best:
            yield best[job.precision], label, [("ours", job.peer)]


def _ours(found: Found) -> list[tuple[str, Job]]:
    return [
        (label, job)
        for label, job in found.jobs.items()
        if job.peer == "ours" and not label.endswith(")")
    ]
