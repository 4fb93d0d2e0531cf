"""``index.html`` of a run: one page that a person can be sent, with everything it links to."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbook import facts, headline, notes, results, state, store, templates
from workbook.context import notes_file
from workbook.errors import WorkbookError
from workbook.execute import executed_file
from workbook.export import pages_of
from workbook.files import write_atomic
from workbook.state import FAILED, OK, Entry, State

FILE = "index.html"


def build(folder: Path) -> Path:
    """Write ``index.html`` of the run in `folder` from what lies there.

    Parameters
    ----------
    folder : pathlib.Path
        A run's folder.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    WorkbookError
        Where `folder` holds no run.
    """
    current = state.load(folder)
    run = _run(folder)
    rows = store.read(folder / results.FILE)
    said = {name: notes.read(notes_file(folder, name)) for name in current.finished()}
    page = templates.render(
        "index.html.j2",
        state=current,
        title=_title(current),
        summary=_summary(current),
        date=_date(current.created),
        sentences=[h for n in said.values() for h in n["headlines"]],
        blocks=headline.blocks(headline.flagged(rows, said), rows),
        figures=[_figure(name, f) for name, n in said.items() for f in n["figures"]],
        notebooks=[_notebook(folder, name, e) for name, e in current.notebooks.items()],
        asked=_asked(current),
        machine=facts.lines(run),
        name=run["machine"]["name"],
        revision=facts.revision(run["machine"]),
        rows=len(rows),
    )
    write_atomic(folder / FILE, page)
    return folder / FILE


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


def _figure(notebook: str, figure: dict[str, str]) -> dict[str, str]:
    return {
        "id": quote(figure["name"]),
        "png": quote(f"figures/{figure['png']}"),
        "svg": quote(f"figures/{figure['svg']}"),
        "caption": figure["caption"],
        "notebook": notebook,
    }


def _notebook(folder: Path, name: str, entry: Entry) -> dict[str, Any]:
    executed = executed_file(folder, name)
    files = (*pages_of(executed), executed)
    labels = ("with code", "text only", "notebook")
    return {
        "name": name,
        "title": entry.title,
        "status": entry.status,
        "seconds": f"{entry.seconds:.0f} s" if entry.seconds else "",
        "reason": entry.reason,
        "error": entry.error if entry.status == FAILED else None,
        "parameters": entry.parameters if entry.status in (OK, FAILED) else {},
        "revision": entry.revision,
        "links": [
            (label, quote(f"notebooks/{path.name}"))
            for label, path in zip(labels, files, strict=True)
            if path.is_file()
        ],
    }
