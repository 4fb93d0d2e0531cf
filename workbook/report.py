"""``index.html`` of a run: one page that a person can be sent, with everything it links to."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbook import (
    chromium,
    export,
    facts,
    headline,
    notes,
    paper,
    results,
    state,
    store,
    templates,
)
from workbook.context import notes_file
from workbook.errors import WorkbookError
from workbook.execute import executed_file
from workbook.export import pages_of
from workbook.files import write_atomic
from workbook.state import FAILED, OK, Entry, State

FILE = "index.html"
PDF = "report.pdf"
REQUIREMENTS = "requirements.txt"


def build(folder: Path, pdf: bool = False) -> Path:
    """Write ``index.html`` of the run in `folder` from what lies there.

    Parameters
    ----------
    folder : pathlib.Path
        A run's folder.
    pdf : bool
        Whether the page is printed too, as ``report.pdf``. An earlier one is removed in any case:
        it would show what the page no longer says.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    WorkbookError
        Where `folder` holds no run, and with `pdf` where there is no Chromium.
    """
    current = state.load(folder)
    run = _run(folder)
    for name in current.notebooks:
        export.relink(executed_file(folder, name), _with_pages(folder, current))
    (folder / PDF).unlink(missing_ok=True)
    write_atomic(folder / REQUIREMENTS, facts.requirements(run))
    write_atomic(folder / FILE, _page(folder, current, run, pdf))
    if pdf:
        try:
            chromium.print_pdf(folder / FILE, folder / PDF)
        except WorkbookError:
            write_atomic(folder / FILE, _page(folder, current, run, False))
            raise
    return folder / FILE


def export_again(folder: Path) -> None:
    """Write the pages of a run's notebooks anew, with the templates of today.

    Raises
    ------
    WorkbookError
        Where `folder` holds no run.
    """
    for name, entry in state.load(folder).notebooks.items():
        if executed_file(folder, name).is_file():
            export.export(executed_file(folder, name), entry.title)


def _page(folder: Path, current: State, run: dict[str, Any], pdf: bool) -> str:
    rows = store.read(folder / results.FILE)
    said = {name: notes.read(notes_file(folder, name)) for name in current.finished()}
    return templates.render(
        "index.html.j2",
        title=_title(current),
        summary=_summary(current),
        date=_date(current.created),
        sentences=[{**h, "notebook": name} for name, n in said.items() for h in n["headlines"]],
        blocks=headline.blocks(headline.flagged(rows, said), rows),
        claims=paper.lines(rows, said),
        source=paper.sources(),
        notebooks=[
            _notebook(folder, name, entry, said.get(name, notes.empty()))
            for name, entry in current.notebooks.items()
        ],
        asked=_asked(current),
        machine=facts.lines(run),
        name=run["machine"]["name"],
        revision=facts.revision(run["machine"]),
        rows=len(rows),
        downloads=_downloads(len(rows), pdf),
        tables=[_table(name, table) for name, n in said.items() for table in n["tables"]],
    )


def _with_pages(folder: Path, current: State) -> set[str]:
    names = current.notebooks
    return {n for n in names if all(p.is_file() for p in pages_of(executed_file(folder, n)))}


def _run(folder: Path) -> dict[str, Any]:
    path = folder / facts.FILE
    if not path.is_file():
        raise WorkbookError(f"{folder} lacks {facts.FILE}: the run was stopped before it began")
    return json.loads(path.read_text(encoding="utf-8"))


def _title(current: State) -> str:
    return f"{current.profile.capitalize()} run"


def _summary(current: State) -> str:
    entries = current.notebooks.values()
    done = len(current.finished())
    minutes, seconds = divmod(round(sum(entry.seconds for entry in entries)), 60)
    took = f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
    return f"{done} of {len(entries)} notebooks ran through, in {took}"


def _date(text: str) -> str:
    when = datetime.datetime.fromisoformat(text)
    return f"{when.day} {when:%B %Y, %H:%M} UTC"


def _asked(current: State) -> list[tuple[str, str]]:
    return [("profile", current.profile), *current.requested.items()]


def _downloads(rows: int, pdf: bool) -> list[tuple[str, str]]:
    files = [
        (results.FILE, f"{rows} rows, one a measurement"),
        (facts.FILE, "parameters, machine, versions, load"),
        (REQUIREMENTS, "the Python packages of this run, for pip"),
    ]
    return [*files, (PDF, "this page, to print or to send")] if pdf else files


def _table(notebook: str, table: dict[str, str]) -> dict[str, str]:
    href = quote(f"tables/{table['file']}")
    return {"href": href, "caption": table["caption"], "notebook": notebook}


def _figure(figure: dict[str, str]) -> dict[str, str]:
    return {
        "id": quote(figure["name"]),
        "png": quote(f"figures/{figure['png']}"),
        "svg": quote(f"figures/{figure['svg']}"),
        "caption": figure["caption"],
    }


def _notebook(folder: Path, name: str, entry: Entry, said: notes.Notes) -> dict[str, Any]:
    executed = executed_file(folder, name)
    files = (*pages_of(executed), executed)
    labels = ("with code", "without code", "notebook file")
    return {
        "name": name,
        "title": entry.title,
        "status": entry.status,
        "seconds": f"{entry.seconds:.0f} s" if entry.seconds else "",
        "reason": entry.reason,
        "error": entry.error if entry.status == FAILED else None,
        "parameters": entry.parameters if entry.status in (OK, FAILED) else {},
        "revision": entry.revision,
        "figures": [_figure(figure) for figure in said["figures"]],
        "links": [
            (label, quote(f"notebooks/{path.name}"))
            for label, path in zip(labels, files, strict=True)
            if path.is_file()
        ],
    }
