"""The report's first screen: the flagged rows, each speed beside the accuracy that goes with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbook import notes, store
from workbook.store import Row
from workbook.tables import DASH, number

SUBJECT = ("model", "weights", "trained", "batch")
VARIANT = ("precision", "schedule", "layout", "executor")
NAMES = {"top1": "top-1", "top5": "top-5", "top1_agreement": "top-1 agreement with fp32"}
SIGNS = {"percent": "%", "x": "×", "images/s": "images/s"}


@dataclass
class Cell:
    """One figure of the table: the value with its unit, the interval and n below it."""

    label: str
    value: str
    detail: str = ""


@dataclass
class Line:
    """One variant of a model: its name, its notebook, its figures, its accuracy."""

    variant: dict[str, str]
    notebook: str
    cells: dict[str, Cell] = field(default_factory=dict)
    accuracy: list[Cell] = field(default_factory=list)
    has_speed: bool = False


@dataclass
class Block:
    """One model at one batch size."""

    title: str
    weights: str
    untrained: bool
    columns: list[str]
    lines: list[Line]


def flagged(rows: Iterable[Row], said: Mapping[str, notes.Notes]) -> list[Row]:
    """Return the rows that a notebook's headlines name, in the order they were recorded.

    Parameters
    ----------
    rows : iterable of dict
        All rows of the run.
    said : mapping
        Notebook -> its notes.
    """
    return [row for row in rows if _named(row, said.get(row["notebook"], notes.empty()))]


def blocks(chosen: Sequence[Row], rows: Sequence[Row]) -> list[Block]:
    """Lay rows out as one table a model, one line a variant, one column a metric.

    Parameters
    ----------
    chosen : sequence of dict
        The rows to show.
    rows : sequence of dict
        All rows of the run, among which the accuracies are looked up.
    """
    found: dict[tuple, Block] = {}
    lines: dict[tuple, Line] = {}
    for row in chosen:
        subject = tuple(row[column] for column in SUBJECT)
        block = found.setdefault(subject, _block(row))
        variant = tuple(row[column] for column in (*VARIANT, "notebook"))
        if (*subject, *variant) not in lines:
            names = {c: row[c] or "" for c in VARIANT}
            line = Line(names, row["notebook"], accuracy=accuracies(row, rows))
            lines[(*subject, *variant)] = line
            block.lines.append(line)
        if not store.is_accuracy(row):
            _add(block, lines[(*subject, *variant)], row)
    return list(found.values())


def accuracies(row: Mapping[str, Any], rows: Iterable[Row]) -> list[Cell]:
    """Return the accuracies of what a row measured, top-1 first.

    An accuracy belongs to a row of the same model, weights and precision whose executor, schedule
    and layout it does not contradict: one recorded without an executor holds for all of them, one
    of the VM says nothing of the graph executor.

    Parameters
    ----------
    row : mapping
    rows : iterable of dict
        Candidates.
    """
    return [cell(found) for found in accuracy_rows(row, rows)]


def accuracy_rows(row: Mapping[str, Any], rows: Iterable[Row]) -> list[Row]:
    """Return the rows that `accuracies` prints, top-1 first."""
    best: dict[str, tuple[int, Row]] = {}
    for other in rows:
        if not store.is_accuracy(other) or not _same_outputs(row, other):
            continue
        agreed = sum(row[c] == other[c] for c in (*VARIANT, "batch", "notebook"))
        if other["metric"] not in best or agreed > best[other["metric"]][0]:
            best[other["metric"]] = (agreed, other)
    return [best[name][1] for name in store.ACCURACY_METRICS if name in best]


def cell(row: Mapping[str, Any]) -> Cell:
    """Return a row's figure as it is printed."""
    sign = SIGNS.get(row["unit"], row["unit"])
    gap = "" if sign in ("×", "%") else " "
    digits = 4 if store.is_accuracy(row) else 3
    parts = []
    if row["ci_low"] is not None:
        parts.append(f"{number(row['ci_low'], digits)}{DASH}{number(row['ci_high'], digits)}")
    if row["n"] is not None:
        parts.append(f"n = {row['n']}")
    value = f"{number(row['value'], digits)}{gap}{sign}"
    return Cell(NAMES.get(row["metric"], row["metric"].replace("_", " ")), value, ", ".join(parts))


def _named(row: Row, said: notes.Notes) -> bool:
    return any(
        row["metric"] in line["metrics"]
        and all(row[column] == value for column, value in line["where"].items())
        for line in said["headlines"]
    )


def _block(row: Row) -> Block:
    batch = f", batch {row['batch']}" if row["batch"] else ""
    return Block(
        title=f"{row['model'] or 'Not of one model'}{batch}",
        weights=row["weights"] or "",
        untrained=row["trained"] is False,
        columns=[],
        lines=[],
    )


def _add(block: Block, line: Line, row: Row) -> None:
    shown = cell(row)
    # A second row of the same metric is shown beside the first and not in its place.
    key, times = shown.label, 1
    while key in line.cells:
        times += 1
        key = f"{shown.label} ({times})"
    line.cells[key] = shown
    line.has_speed |= store.is_speed(row)
    if key not in block.columns:
        block.columns.append(key)


def _same_outputs(row: Mapping[str, Any], other: Row) -> bool:
    if any(row[column] != other[column] for column in ("model", "weights", "trained", "precision")):
        return False
    return all(other[c] in (None, row[c]) for c in ("executor", "schedule", "layout"))
