"""The report's answer: two sentences on a whole run, of what is there of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workbook import headline, paper
from workbook.store import Row
from workbook.story_plots import speedups
from workbook.tables import untrained

# Whose speedup stands for the run: the paper's own comparison first.
FIRST = ("03_graph_int8", "04_schedules", "00_start_here")
NOTHING = "This run holds no comparison of int8 with fp32 yet."


def gain(rows: Sequence[Row]) -> str:
    """How much faster int8 is, in integers to which part, and what that costs in accuracy.

    Parameters
    ----------
    rows : sequence of dict
        All rows of the run.
    """
    found = [row for row in speedups(rows) if row["executor"] != "naive"]
    found.sort(key=lambda r: FIRST.index(r["notebook"]) if r["notebook"] in FIRST else len(FIRST))
    if not found:
        return NOTHING
    parts = [_speedup(found[0]), *_integers(rows)]
    # Of one network that several notebooks judged, what was seen on the most images.
    judged = sorted(filter(_is_change, rows), key=lambda row: row["n"] or 0)
    changes = {row["model"]: _change(row) for row in judged}
    if changes:
        parts.append(f"changes top-1 by {', by '.join(changes.values())}")
    return f"int8 with integer kernels {_joined(parts)}."


def against_paper(claims: Sequence[paper.Line]) -> str:
    """How many of the paper's ratios were measured, and how many point the way they do there."""
    measured = [line for line in claims if line.measured]
    if not measured:
        return "None of the paper's ratios was measured in this run."
    same = sum(_same_way(line) for line in measured)
    return (
        f"Of the {len(claims)} ratios that these notebooks share with the paper, {len(measured)} "
        f"were measured, and {same} of those surely point the same way as published."
    )


def _speedup(row: Row) -> str:
    shown = headline.cell(row)
    detail = f" ({shown.detail})" if shown.detail else ""
    where = f"{row['model']}{untrained(row['trained'])}, batch {row['batch']}"
    return f"is {shown.value}{detail} as fast as our own fp32 on {where}"


def _integers(rows: Sequence[Row]) -> list[str]:
    shares = {
        row["value"]
        for row in rows
        if (row["metric"], row["precision"], row["executor"]) == ("integer_macs", "w8a8", "graph")
    }
    if not shares:
        return []
    return [f"does at least {min(shares):.4g} % of its multiply-accumulates in integers"]


def _is_change(row: Row) -> bool:
    return (row["metric"], row["precision"]) == ("top1_difference", "w8a8")


def _change(row: Row) -> str:
    bounds = (
        f" ({row['ci_low']:+.2f} to {row['ci_high']:+.2f})" if row["ci_low"] is not None else ""
    )
    images = f" on {row['n']} images" if row["n"] else ""
    whose = f"{row['model']}{untrained(row['trained'])}"
    return f"{row['value']:+.2f} points{bounds} for {whose}{images}"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _same_way(line: paper.Line) -> bool:
    """Whether the whole interval lies on the published ratio's side of 1."""
    value, low, high = line.measured
    ends = (value,) if math.isnan(low) else (low, high)
    return all((end > 1) == (line.ratio > 1) for end in ends)
