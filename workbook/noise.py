"""What two runs say of their own noise: their A/A controls, and what all times did in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from workbook import directions
from workbook.directions import HIGHER, LOWER, Metric

METRIC = "noise_floor"
# What a control must agree in with a row, where it says anything there.
SETTING = ("notebook", "model", "batch")
# Fewer times than this have no common movement that a change of one of them would not be.
ENOUGH = 4

Row = Mapping[str, Any]


class Noise:
    """Bands within which times of two runs do not differ.

    Parameters
    ----------
    before, after : sequence of mappings
        All rows of the two runs.
    pairs : sequence of (mapping, mapping)
        Their rows that belong together.
    busy : bool
        Whether one of them ran on a machine that others were using: then no time counts.

    Attributes
    ----------
    busy : bool
    shift : float
        Logarithm of how much slower (above zero) or faster at least three quarters of all times
        are in the second run; 0 where they moved in both directions.
    """

    def __init__(
        self,
        before: Sequence[Row],
        after: Sequence[Row],
        pairs: Sequence[tuple[Row, Row]],
        busy: bool = False,
    ) -> None:
        self.busy = busy
        self._controls = [_controls(rows) for rows in (before, after)]
        self.shift = common_shift(pairs)

    def floor(self, row: Row, least: float) -> float:
        """Return the relative difference that the controls of either run allow, or `least`."""
        return max([least, *(_floor(controls, row) for controls in self._controls)])

    def band(self, before: Row, after: Row, metric: Metric, least: float) -> tuple[float, float]:
        """Return the band of a change, as logarithms of after over before."""
        floor = math.log1p(max(self.floor(before, least), self.floor(after, least)))
        shift = self.shift if metric.kind == directions.TIME else 0.0
        shift = -shift if metric.better == HIGHER else shift
        return min(0.0, shift) - floor, max(0.0, shift) + floor


def common_shift(pairs: Sequence[tuple[Row, Row]]) -> float:
    """Return the logarithm by which three quarters of the times moved at least, the same way."""
    moves = [
        math.log(after["value"] / before["value"])
        for before, after in pairs
        if directions.of(after) == Metric(directions.TIME, LOWER)
        and before["machine"] == after["machine"]
        and min(before["value"], after["value"]) > 0
    ]
    if len(moves) < ENOUGH:
        return 0.0
    low, _, high = quantiles(moves, n=4, method="inclusive")
    return max(0.0, low) + min(0.0, high)


def _controls(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["metric"] == METRIC and row["unit"] == "%"]


def _floor(controls: Sequence[Row], row: Row) -> float:
    """The largest control of a row's own setting; the run's median one where it has none."""
    own = [c["value"] for c in controls if all(c[k] in (None, row[k]) for k in SETTING)]
    every = [c["value"] for c in controls]
    return (max(own) if own else median(every) if every else 0.0) / 100
