"""Result rows: one tidy row a measurement, checked on the way in, kept as CSV.

Each notebook owns one file, ``rows/<notebook>.csv``, started anew when the notebook starts; the
runner merges them into ``results.csv``. So a notebook that is run again replaces its own rows and
nobody else's.
"""

from __future__ import annotations

import csv
import io
import math
import numbers
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbook.errors import WorkbookError, hint
from workbook.files import write_atomic

# Column -> what it holds. The order is the order in results.csv.
COLUMNS: dict[str, type] = {
    "notebook": str,
    "model": str,
    "weights": str,
    "trained": bool,
    "batch": int,
    "layout": str,
    "schedule": str,
    "precision": str,
    "executor": str,
    "metric": str,
    "value": float,
    "unit": str,
    "ci_low": float,
    "ci_high": float,
    "n": int,
    "machine": str,
}
REQUIRED = ("notebook", "metric", "value", "unit", "machine")
SPEED_UNITS = frozenset({"s", "ms", "us", "µs", "ns", "images/s", "GMAC/s", "GFLOP/s"})
SPEED_METRICS = frozenset({"latency", "throughput", "speedup"})
ACCURACY_METRICS = ("top1", "top5", "agreement", "top1_agreement")

Row = dict[str, Any]


def check_row(row: Mapping[str, Any]) -> Row:
    """Check one row and bring it to the columns' types.

    Parameters
    ----------
    row : mapping
        Column -> value. Columns left out are empty. NumPy scalars are accepted.

    Returns
    -------
    dict
        Every column of `COLUMNS`, in order; ``None`` where empty.

    Raises
    ------
    WorkbookError
        For an unknown column, a missing or wrongly typed value, a value or bound that is not a
        finite number, half an interval or one the wrong way round, ``batch`` or ``n`` below 1, and
        for a model without ``trained``, since every table must be able to say *untrained*.
    """
    for name in row:
        if name not in COLUMNS:
            raise WorkbookError(f"unknown result column {name!r}: {hint(name, COLUMNS)}")
    checked = {name: _convert(name, row.get(name), kind) for name, kind in COLUMNS.items()}
    missing = [name for name in REQUIRED if checked[name] is None]
    if missing:
        raise WorkbookError(f"result row lacks {', '.join(missing)}: {dict(row)}")
    if checked["model"] is not None and checked["trained"] is None:
        raise WorkbookError(
            f"result row of model {checked['model']!r} lacks trained: "
            "say trained=True or trained=False, so that untrained weights are labelled"
        )
    _check_interval(checked)
    return checked


def is_speed(row: Mapping[str, Any]) -> bool:
    """Return whether a row is a time, a rate or a ratio of times."""
    return row["unit"] in SPEED_UNITS or row["metric"] in SPEED_METRICS


def is_accuracy(row: Mapping[str, Any]) -> bool:
    """Return whether a row says how right the outputs are."""
    return row["metric"] in ACCURACY_METRICS


def start(path: Path) -> None:
    """Begin a notebook's rows anew: a file with the header and nothing else."""
    write_atomic(path, _line(COLUMNS))


def append(path: Path, row: Mapping[str, Any]) -> Row:
    """Check `row` and add it to `path` in one write, so that a reader never sees half of it.

    Returns
    -------
    dict
        The row as it was kept.

    Raises
    ------
    WorkbookError
        As `check_row`.
    """
    checked = check_row(row)
    line = _line("" if value is None else value for value in checked.values())
    handle = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)
    return checked


def read(path: Path) -> list[Row]:
    """Read rows with their types; empty cells become ``None``.

    Raises
    ------
    WorkbookError
        Where the file is missing, its header is not `COLUMNS`, or a row does not check.
    """
    if not path.is_file():
        raise WorkbookError(f"no result rows at {path}")
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if reader.fieldnames != list(COLUMNS):
            raise WorkbookError(f"{path.name} is no result file: its header is {reader.fieldnames}")
        return [parse_row(row) for row in reader]


def parse_row(cells: Mapping[str, str | None]) -> Row:
    """Return a row from the cells of a CSV line, with its types; empty cells become ``None``.

    Raises
    ------
    WorkbookError
        As `check_row`.
    """
    return check_row({name: _parse(name, text) for name, text in cells.items()})


def merge(paths: Iterable[Path], target: Path) -> int:
    """Write the rows of `paths`, in order, to `target`; return how many there are."""
    rows = [row for path in paths for row in read(path)]
    lines = [_line("" if v is None else v for v in row.values()) for row in rows]
    write_atomic(target, _line(COLUMNS) + "".join(lines))
    return len(rows)


def _convert(name: str, value: Any, kind: type) -> Any:
    if value is None or (kind is not bool and isinstance(value, str) and not value.strip()):
        return None
    if kind is str:
        return str(value)
    if kind is bool:
        return _boolean(name, value)
    return _number(name, value, kind)


def _boolean(name: str, value: Any) -> bool:
    # numpy.bool_ is no bool, but it says so in its dtype.
    if isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b":
        return bool(value)
    raise WorkbookError(f"result column {name!r} must be True or False, not {value!r}")


def _number(name: str, value: Any, kind: type) -> Any:
    wanted = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, bool) or not isinstance(value, wanted):
        noun = "a whole number" if kind is int else "a finite number"
        raise WorkbookError(f"result column {name!r} must be {noun}, not {value!r}")
    if not math.isfinite(value):
        raise WorkbookError(f"result column {name!r} must be a finite number, not {value!r}")
    if kind is int and value < 1:
        raise WorkbookError(f"result column {name!r} must be at least 1, not {value!r}")
    return kind(value)


def _check_interval(row: Row) -> None:
    low, high = row["ci_low"], row["ci_high"]
    if (low is None) != (high is None):
        raise WorkbookError("result row has half an interval: give both ci_low and ci_high")
    if low is not None and low > high:
        raise WorkbookError(f"result row's interval is the wrong way round: {low} > {high}")


def _parse(name: str, text: str | None) -> Any:
    kind = COLUMNS.get(name or "", str)
    if text is None or text == "":
        return None
    if kind is bool:
        return {"True": True, "False": False}.get(text, text)
    try:
        return kind(text)
    except ValueError:
        return text


def _line(cells: Iterable[Any]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(list(cells))
    return stream.getvalue()
