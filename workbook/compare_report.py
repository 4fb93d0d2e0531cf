"""A comparison for the terminal and as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workbook import directions, templates, verdicts
from workbook.compare import Comparison, Side, describe
from workbook.files import write_atomic
from workbook.headline import cell
from workbook.tables import DASH, number
from workbook.verdicts import Change

# Those that a terminal shows line by line; the page has all of them.
SHOWN = (verdicts.REGRESSED, verdicts.IMPROVED)
COLOURS = {verdicts.REGRESSED: "red", verdicts.IMPROVED: "green"}
RULE = (
    f"A time or ratio counts as changed where it is surely beyond {100 * verdicts.MIN_FLOOR:.0f} % "
    "or the A/A control of either run, whichever is more; a share, where it surely differs. "
    "“Surely” is 95 % for all lines together (Holm's method). Measured memory counts from "
    f"{100 * verdicts.MEMORY_FLOOR:.0f} %, computed bytes from "
    f"{100 * verdicts.BYTES_FLOOR:.0f} %. A time is unchanged where its interval stays "
    f"within {100 * verdicts.MIN_FLOOR:.0f} %; the rest is inconclusive. What is better neither "
    "high nor low, the A/A control say, only differs."
)


def show(comparison: Comparison, console: Console) -> None:
    """Print what changed, and how many lines did not."""
    lines = [*comparison.cautions, summary(comparison)]
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)
    table = Table("", "notebook", "what", "metric", "before", "after", "change (95 %)", box=None)
    for name in ("metric", "before", "after", "change (95 %)"):
        next(column for column in table.columns if column.header == name).no_wrap = True
    for verdict in SHOWN:
        for change in comparison.of(verdict):
            cells = [escape(text) for text in _cells(change).values()]
            table.add_row(f"[{COLOURS[verdict]}]{verdict}[/]", *cells[:-1])
    if table.row_count:
        console.print(table)


def summary(comparison: Comparison) -> str:
    """Return one sentence: how many lines of each verdict."""
    counts = [f"{len(found)} {v}" for v in verdicts.VERDICTS if (found := comparison.of(v))]
    only = [
        f"{len(rows)} only in {side.name}"
        for rows, side in (
            (comparison.gone, comparison.before),
            (comparison.new, comparison.after),
        )
        if rows
    ]
    return f"{len(comparison.changes)} lines in common: {', '.join(counts + only)}."


def write(comparison: Comparison, path: Path) -> None:
    """Write the comparison as one HTML file that needs nothing else."""
    groups = [(v, [_cells(c) for c in comparison.of(v)]) for v in verdicts.VERDICTS]
    page = templates.render(
        "compare.html.j2",
        before=_side(comparison.before),
        after=_side(comparison.after),
        summary=summary(comparison),
        cautions=comparison.cautions,
        groups=[(verdict, lines) for verdict, lines in groups if lines],
        shown=SHOWN,
        only=[
            (side.name, [(r["notebook"], describe(r), cell(r)) for r in rows])
            for side, rows in (
                (comparison.before, comparison.gone),
                (comparison.after, comparison.new),
            )
            if rows
        ],
        rule=RULE,
    )
    write_atomic(path, page)


def _side(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "machine": "; ".join(side.machines),
        "revision": side.revision,
        "created": side.about.get("created", ""),
    }


def _cells(change: Change) -> dict[str, str]:
    """Return the cells of one line, in the order of the columns."""
    before, after = cell(change.before), cell(change.after)
    return {
        "notebook": change.after["notebook"],
        "what": describe(change.after),
        "metric": after.label,
        "before": before.value,
        "after": after.value,
        "change": _size(change),
        "reason": change.reason,
    }


def _size(change: Change) -> str:
    if change.size is None:
        return DASH
    points = change.metric.kind in (directions.SHARE, directions.POINTS)
    size = f"{change.size:+.2f} points" if points else f"{number(change.size, 4)}×"
    if change.low is None:
        return size
    texts = [f"{x:+.2f}" if points else number(x, 4) for x in (change.low, change.high)]
    return f"{size} ({' to '.join(texts)})"
