"""Whether a measurement changed between two runs, or only its noise did.

The rule, by kind of metric (`workbook.directions`):

*Times and ratios of times.* The change is the logarithm of after over before. Its 95 % interval is
put together from those of the two rows by square-and-add (Zou and Donner 2008, Statistics in
Medicine 27:1693). Those intervals hold for one run: between two runs of one build the machine
changes too. So a change counts only beyond a *band*: at least `MIN_FLOOR`, or what the A/A controls
(`noise_floor` rows) of either run say, if that is more. Where at least three quarters of all times
moved in one direction, the band of times reaches as far as the least of those three quarters did: a
busy machine and a change of everything look the same, and only ratios tell them apart.
Each row is tested for a change beyond its band, by Student's t with the fewer samples of the two
runs. Over all rows of the comparison, Holm's method keeps the chance of one false verdict at 5 %
(Holm 1979, Scandinavian Journal of Statistics 6:65). What is not beyond is *unchanged* if the whole
interval lies within `MIN_FLOOR`, else *inconclusive*; a row without an interval is inconclusive,
and so is every time where one of the runs shared its machine with others.

*Shares and differences of shares.* As above, in percentage points, with no band; equal values are
*unchanged*. Rows do not keep single answers, so two runs are taken as independent: on the same
images that is cautious.

*Measured memory and computed bytes.* No interval is kept: beyond `MEMORY_FLOOR` and `BYTES_FLOOR`
they changed, within they are unchanged.

*All else* has no better side: unchanged or *differs*.

Times of two machines are *not comparable*; their ratios, shares and bytes are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from workbook import directions
from workbook.directions import HIGHER, Metric
from workbook.noise import Noise

ALPHA = 0.05
MIN_FLOOR = 0.05
MEMORY_FLOOR = 0.10
BYTES_FLOOR = 0.01
IMPROVED, REGRESSED, UNCHANGED = "improved", "regressed", "unchanged"
INCONCLUSIVE, DIFFERS, NOT_COMPARABLE = "inconclusive", "differs", "not comparable"
# In the order in which a reader wants them.
VERDICTS = (REGRESSED, IMPROVED, DIFFERS, INCONCLUSIVE, NOT_COMPARABLE, UNCHANGED)

_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.975)

Row = Mapping[str, Any]


@dataclass
class Change:
    """What became of one measurement.

    Attributes
    ----------
    before, after : mapping
        The two rows.
    metric : Metric
    size : float or None
        After over before, or after minus before for shares and points; None where before is zero.
    low, high : float or None
        95 % interval of `size`; None where the rows have none.
    band : tuple of float or None
        Sizes within which nothing counts as a change.
    p : float or None
        Of a change beyond the band, before Holm's correction; None where nothing was tested.
    verdict, reason : str
    """

    before: Row
    after: Row
    metric: Metric
    size: float | None
    low: float | None = None
    high: float | None = None
    band: tuple[float, float] | None = None
    p: float | None = None
    verdict: str = INCONCLUSIVE
    reason: str = ""


def judge(pairs: Sequence[tuple[Row, Row]], noise: Noise) -> list[Change]:
    """Give every pair of rows its verdict.

    Parameters
    ----------
    pairs : sequence of (mapping, mapping)
        Before and after, as `workbook.store` reads them.
    noise : Noise
        What the two runs' controls say.

    Returns
    -------
    list of Change
        In the order of `pairs`.
    """
    changes = [_measure(before, after, noise) for before, after in pairs]
    tested = [change for change in changes if change.p is not None]
    for change, beyond in zip(tested, holm([c.p for c in tested]), strict=True):
        _decide(change, beyond)
    return changes


def holm(ps: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Return which hypotheses are rejected with a family-wise error of at most `alpha`."""
    rejected = [False] * len(ps)
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if ps[index] > alpha / (len(ps) - rank):
            break
        rejected[index] = True
    return rejected


def square_and_add(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Return after minus before with its interval, from (value, low, high) of each."""
    size = after[0] - before[0]
    low = size - math.hypot(after[0] - after[1], before[2] - before[0])
    high = size + math.hypot(after[2] - after[0], before[0] - before[1])
    return size, low, high


def p_beyond(size: float, half: float, band: float, freedom: float = math.inf) -> float:
    """Return the two-sided p of a change beyond a band.

    Parameters
    ----------
    size : float
        The change's distance from zero.
    half : float
        Half of its 95 % interval, on the side that faces zero.
    band : float
        Distance from zero that is no change yet.
    freedom : float
        Degrees of freedom of Student's t; infinite for the normal distribution. Its tail by
        Wallace 1959, "Bounds on normal approximations", Annals of Mathematical Statistics 30:1124.
    """
    if size <= band:
        return 1.0
    if half == 0:
        return 0.0
    score = (size - band) / (half / _Z)
    if math.isfinite(freedom):
        shrunk = math.sqrt(freedom * math.log1p(score * score / freedom))
        score = shrunk * (8 * freedom + 1) / (8 * freedom + 3)
    return 2 * _NORMAL.cdf(-score)


def _measure(before: Row, after: Row, noise: Noise) -> Change:
    metric = directions.of(after)
    measure = {
        directions.TIME: _time,
        directions.RATIO: _time,
        directions.SHARE: _share,
        directions.POINTS: _share,
        directions.MEMORY: _bytes,
        directions.BYTES: _bytes,
    }.get(metric.kind, _plain)
    change = Change(before, after, metric, _size(before, after, metric))
    measure(change, noise)
    return change


def _size(before: Row, after: Row, metric: Metric) -> float | None:
    if metric.kind in (directions.SHARE, directions.POINTS):
        return after["value"] - before["value"]
    return after["value"] / before["value"] if before["value"] else None


def _time(change: Change, noise: Noise) -> None:
    before, after = change.before, change.after
    if change.metric.kind == directions.TIME and before["machine"] != after["machine"]:
        change.verdict, change.reason = NOT_COMPARABLE, "another machine"
    elif _equal(change):
        change.verdict = UNCHANGED
    elif not _bounded(change) or min(before["ci_low"], after["ci_low"]) <= 0:
        change.reason = "no interval"
    elif noise.busy:
        change.reason = "a busy machine"
    else:
        band = noise.band(before, after, change.metric, MIN_FLOOR)
        size, low, high = square_and_add(*(_triple(row, math.log) for row in (before, after)))
        half = size - low if size > 0 else high - size
        limit = band[1] if size > 0 else -band[0]
        change.low, change.high = math.exp(low), math.exp(high)
        change.band = (math.exp(band[0]), math.exp(band[1]))
        samples = min(row["n"] or 2 for row in (before, after))
        change.p = p_beyond(abs(size), half, limit, max(1, samples - 1))


def _share(change: Change, noise: Noise) -> None:
    if _equal(change):
        change.verdict = UNCHANGED
    elif not _bounded(change):
        change.reason = "no interval"
    else:
        rows = (change.before, change.after)
        size, change.low, change.high = square_and_add(*(_triple(row, float) for row in rows))
        half = size - change.low if size > 0 else change.high - size
        change.p = p_beyond(abs(size), half, 0.0)


def _bytes(change: Change, noise: Noise) -> None:
    floor = MEMORY_FLOOR if change.metric.kind == directions.MEMORY else BYTES_FLOOR
    if _equal(change):
        change.verdict = UNCHANGED
    elif change.size is None or change.size <= 0:
        change.reason = "no ratio with zero"
    else:
        change.band = (1 / (1 + floor), 1 + floor)
        within = change.band[0] <= change.size <= change.band[1]
        change.verdict = UNCHANGED if within else _side(change, change.size > 1)


def _plain(change: Change, noise: Noise) -> None:
    change.verdict = UNCHANGED if _equal(change) else DIFFERS


def _decide(change: Change, beyond: bool) -> None:
    """Turn the test of a time or a share into its verdict."""
    centre = 0.0 if change.band is None else 1.0
    if beyond:
        change.verdict = _side(change, change.size > centre)
    elif change.band is None:
        change.reason = "not told apart from noise"
    elif change.low >= 1 / (1 + MIN_FLOOR) and change.high <= 1 + MIN_FLOOR:
        change.verdict = UNCHANGED
    else:
        change.reason = "within the noise, or not surely beyond it"


def _side(change: Change, up: bool) -> str:
    return IMPROVED if up == (change.metric.better == HIGHER) else REGRESSED


def _equal(change: Change) -> bool:
    return change.before["value"] == change.after["value"]


def _bounded(change: Change) -> bool:
    return all(row["ci_low"] is not None for row in (change.before, change.after))


def _triple(row: Row, scale: Callable[[float], float]) -> tuple[float, float, float]:
    return scale(row["value"]), scale(row["ci_low"]), scale(row["ci_high"])
