"""The settings that no other one beats in cost and in accuracy at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbook.bit_speed import BASE, MIB
from workbook.bit_sweep import PRESET

if TYPE_CHECKING:
    from workbook.bit_speed import Speeds
    from workbook.bit_sweep import Result

MILLISECONDS, MEBIBYTES, TOP1 = "median (ms)", "weights (MiB)", "top-1 (%)"


def front(points: Sequence[Mapping[str, Any]], cost: str, worth: str) -> list[Mapping[str, Any]]:
    """The points that no other one beats, cheapest first.

    A point is beaten by one that costs no more and is worth no less, and is better in one of the
    two.

    Parameters
    ----------
    points : sequence of mapping
    cost, worth : str
        Keys: what should be low, and what should be high.
    """
    kept: list[Mapping[str, Any]] = []
    for point in sorted(points, key=lambda p: (p[cost], -p[worth])):
        if not kept or point[worth] > kept[-1][worth]:
            kept.append(point)
    return kept


def points(speeds: Speeds, results: Sequence[Result]) -> list[dict[str, Any]]:
    """A line for each precision that was both timed and judged, its preset's accuracy beside it."""
    plain = [r for r in results if r.setting.calibrator in ("", PRESET)]
    by_precision = {result.setting.precision: result for result in plain}
    lines = []
    for name in speeds.libraries:
        result = by_precision.get(name)
        if result is None or name == BASE:
            continue
        top1 = result.top1
        lines.append(
            {
                "precision": name,
                MILLISECONDS: speeds.milliseconds(name),
                MEBIBYTES: speeds.weight_bytes(name) / MIB,
                TOP1: 100 * top1.value,
                "low": 100 * top1.low,
                "high": 100 * top1.high,
            }
        )
    return lines


def marked(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points as a table, with whether each is on the front of time and of size."""
    on = {cost: front(lines, cost, TOP1) for cost in (MILLISECONDS, MEBIBYTES)}
    return [
        {
            "precision": line["precision"],
            TOP1: line[TOP1],
            "95 % (%)": f"{line['low']:.1f} to {line['high']:.1f}",
            MILLISECONDS: line[MILLISECONDS],
            MEBIBYTES: line[MEBIBYTES],
            "on the front of time": "yes" if line in on[MILLISECONDS] else "",
            "on the front of size": "yes" if line in on[MEBIBYTES] else "",
        }
        for line in lines
    ]
