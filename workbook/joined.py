"""Rows of a run or of a sweep: a sweep's have the item and its parameters before the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbook import store
from workbook.errors import WorkbookError
from workbook.files import write_atomic

ITEM = "item"
PREFIX = "p_"

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """Read the rows of a run, a benchmark or a sweep, with their types.

    Returns
    -------
    list of dict
        The columns of `workbook.store.COLUMNS`; a sweep's also have ``item`` and, as text,
        ``p_<parameter>``.

    Raises
    ------
    WorkbookError
        Where the file is missing, its header is another, or a row does not check.
    """
    if not path.is_file():
        raise WorkbookError(f"no result rows at {path}")
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        header = list(reader.fieldnames or [])
        extra = header[: -len(store.COLUMNS)]
        known = all(name == ITEM or name.startswith(PREFIX) for name in extra)
        if header != [*extra, *store.COLUMNS] or not known:
            raise WorkbookError(f"{path.name} is no result file: its header is {header}")
        return [_row(cells, extra) for cells in reader]


def write(path: Path, parameters: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a sweep's rows, atomically.

    Parameters
    ----------
    path : pathlib.Path
    parameters : iterable of str
        Names that get a column ``p_<name>``.
    rows : iterable of mappings
    """
    columns = [ITEM, *(PREFIX + name for name in parameters), *store.COLUMNS]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        cells = (row.get(column) for column in columns)
        writer.writerow(["" if cell is None else cell for cell in cells])
    write_atomic(path, stream.getvalue())


def _row(cells: Mapping[str, str], extra: list[str]) -> Row:
    own = store.parse_row({name: cells[name] for name in store.COLUMNS})
    return {**{name: cells[name] for name in extra}, **own}
