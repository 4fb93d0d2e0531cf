"""The figures of the report: what int8 gains with what it keeps, and the paper beside this run."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib import pyplot

from workbook import headline, paper
from workbook.figures import colour
from workbook.store import Row
from workbook.tables import number, untrained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Notebooks whose speedup is that of int8 over our own fp32.
OVER_FP32 = (
    "00_start_here", "02_naive_int8", "03_graph_int8", "04_schedules", "05_batch_and_memory",
)  # fmt: skip
STEPS = (0.001, 0.01, 0.1, 0.5, 1, 2, 3, 5, 10, 100)
MARGIN = 1.4  # of a logarithmic axis, beyond its outermost point


def speedups(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that say how much faster than fp32 int8 is, each network at each batch."""
    return [
        row
        for row in rows
        if row["notebook"] in OVER_FP32
        and (row["metric"], row["precision"]) == ("speedup", "w8a8")
        and row["schedule"] != paper.TUNED
    ]


def gain_and_accuracy(rows: Sequence[Row]) -> Figure:
    """One line a measurement: time of fp32 over that of int8, and beside it how right int8 is.

    Parameters
    ----------
    rows : sequence of dict
        All rows of the run, with at least one of `speedups`.
    """
    shown = speedups(rows)
    figure, (left, right) = pyplot.subplots(
        1, 2, sharey=True, figsize=(9.6, 1.3 + 0.42 * len(shown)), width_ratios=[3, 2]
    )
    low, high = _reach(shown)
    for place, row in enumerate(shown):
        shade = colour("naive int8" if _is_naive(row) else "int8 graph")
        if row["value"] >= low:
            _point(left, place, row, shade, f"{number(row['value'])}×", "center")
        else:
            text = f" ◂ {number(row['value'])}×"
            left.text(low, place, text, color=shade, va="center", fontsize=8)
        for accuracy in headline.accuracy_rows(row, rows)[:1]:
            name = headline.cell(accuracy).label.removesuffix(" with fp32")
            text = f"{name} {number(accuracy['value'])} %"
            _point(right, place, accuracy, shade, text, "right")
    left.axvline(1, color="black", lw=0.8)
    _log_axis(left, low, high)
    left.set_xlabel("times as fast as our fp32 (log scale)")
    left.set_yticks(range(len(shown)), [_name(row) for row in shown])
    left.margins(y=0.12)
    left.invert_yaxis()
    right.set_xlim(0, 105)
    right.set_xlabel("images (%)")
    return figure


def beside_paper(claims: Sequence[paper.Line]) -> Figure:
    """Each ratio that was measured, ours joined with the published one.

    Parameters
    ----------
    claims : sequence of workbook.paper.Line
        At least one of them with ``measured``.
    """
    shown = [line for line in claims if line.measured]
    figure, axes = pyplot.subplots(figsize=(9.6, 1.5 + 0.5 * len(shown)))
    for place, line in enumerate(shown):
        value, low, high = line.measured
        axes.plot([line.ratio, value], [place, place], color="#C8CCCF", lw=2, zorder=0)
        _dot(axes, place, (line.ratio, math.nan, math.nan), colour("published"), "D", "published")
        _dot(axes, place, (value, low, high), colour("int8 graph"), "o", "this run")
        text = f" {line.published} published, {number(value)}× here"
        axes.annotate(text, (1, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    axes.axvline(1, color="black", lw=0.8)
    values = [ratio for line in shown for ratio in (line.ratio, line.measured[0])]
    _log_axis(axes, min(*values, 1) / MARGIN, max(*values, 1) * MARGIN)
    axes.set_yticks(range(len(shown)), [textwrap.fill(line.what, 36) for line in shown])
    axes.margins(y=0.15)
    axes.invert_yaxis()
    axes.set_xlabel("ratio (log scale)")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def _is_naive(row: Row) -> bool:
    return row["executor"] == "naive"


def _reach(shown: Sequence[Row]) -> tuple[float, float]:
    """Ends of the axis: naive int8, hundreds of times slower, would leave the rest no room."""
    wide = [row["value"] for row in shown if not _is_naive(row)] or [row["value"] for row in shown]
    return min(*wide, 1) / MARGIN**2, max(*wide, 1) * MARGIN


def _point(axes: Any, place: int, row: Row, shade: str, text: str, side: str) -> None:
    low, high = (math.nan if row[end] is None else row[end] for end in ("ci_low", "ci_high"))
    _dot(axes, place, (row["value"], low, high), shade, "o", None)
    where = {"textcoords": "offset points", "ha": side, "fontsize": 8}
    axes.annotate(text, (row["value"], place), (4 if side == "right" else 0, 6), **where)


def _dot(axes: Any, place: int, bounds: tuple, shade: str, marker: str, label: str | None) -> None:
    value, low, high = bounds
    ends = None if math.isnan(low) else [[value - low], [high - value]]
    axes.errorbar(
        [value], [place], xerr=ends, marker=marker, color=shade, ls="none", capsize=2, label=label
    )


def _log_axis(axes: Any, low: float, high: float) -> None:
    """A logarithmic axis with ticks at round ratios, without exponents."""
    ticks = [step for step in STEPS if low <= step <= high]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(low, high)


def _name(row: Row) -> str:
    whose = f"{row['model']}{untrained(row['trained'])}"
    way = ", naive" if _is_naive(row) else ""
    return f"{row['notebook'][:2]}: {whose}, batch {row['batch']}{way}"
