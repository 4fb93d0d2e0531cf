"""The tables and the page of a sweep, written anew after each item."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbook import joined, notes, paths, results, store, templates
from workbook.context import notes_file
from workbook.files import write_atomic
from workbook.sweep_progress import counts
from workbook.sweep_state import OK, Item, Sweep

INDEX = "index.html"
STATUS = "status.csv"
COLUMNS = ("status", "attempts", "seconds", "started", "where", "reason")


def build(folder: Path, sweep: Sweep) -> Path:
    """Write ``status.csv``, ``results.csv`` and ``index.html`` of a sweep.

    Parameters
    ----------
    folder : pathlib.Path
        The sweep's folder.
    sweep : Sweep
        Its state.

    Returns
    -------
    pathlib.Path
        The page.
    """
    write_atomic(folder / STATUS, _status(sweep))
    rows = list(_rows(folder, sweep))
    joined.write(folder / results.FILE, sweep.parameters, rows)
    page = templates.render(
        "sweep.html.j2",
        created=sweep.created,
        summary=counts(sweep),
        commands=[_command(asked) for asked in sweep.requests],
        parameters=sweep.parameters,
        items=[_item(folder, key, item) for key, item in sweep.items.items()],
        rows=len(rows),
    )
    write_atomic(folder / INDEX, page)
    return folder / INDEX


def _status(sweep: Sweep) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = sweep.parameters
    prefixed = [joined.PREFIX + name for name in names]
    writer.writerow([joined.ITEM, "notebook", "profile", *prefixed, *COLUMNS])
    for key, item in sweep.items.items():
        values = [item.given.get(name, "") for name in names]
        told = [getattr(item, column) for column in COLUMNS]
        writer.writerow([key, item.notebook, item.profile, *values, *told])
    return stream.getvalue()


def _rows(folder: Path, sweep: Sweep) -> Iterator[dict[str, Any]]:
    for key, item in sweep.items.items():
        path = run_folder(folder, key) / results.FILE
        if item.status == OK and path.is_file():
            swept = {joined.PREFIX + name: value for name, value in item.given.items()}
            for row in store.read(path):
                yield {joined.ITEM: key, **swept, **row}


def run_folder(folder: Path, key: str) -> Path:
    """Return where the run of an item lies."""
    return folder / "items" / key


def _item(folder: Path, key: str, item: Item) -> dict[str, Any]:
    run = run_folder(folder, key)
    said = notes.read(notes_file(run, item.notebook))
    page = run / INDEX
    return {
        "key": key,
        "item": item,
        "seconds": f"{item.seconds:.0f} s" if item.seconds else "",
        "link": quote(f"items/{key}/{INDEX}") if page.is_file() else None,
        "log": quote(f"items/{key}/log.txt") if (run / "log.txt").is_file() else None,
        "sentences": [h["text"] for h in said["headlines"]] if item.status == OK else [],
        "reason": paths.without_folders(item.reason),
    }


def _command(asked: dict[str, Any]) -> str:
    words = [*asked["words"], *(f"-p {name} {text}" for name, text in asked["given"])]
    return f"sweep {' '.join(words)} --profile {asked['profile']}"
