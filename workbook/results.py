"""The files of a run's folder that belong to one notebook, and the merged ``results.csv``."""

from __future__ import annotations

import hashlib
from pathlib import Path

from workbook import notes, store
from workbook.context import notes_file, rows_file
from workbook.execute import executed_file
from workbook.export import pages_of
from workbook.state import OK, State

FILE = "results.csv"


def merge(folder: Path, state: State) -> int:
    """Merge the rows of the notebooks that ended well into ``results.csv``.

    Rows of a notebook that failed half-way stay in ``rows/``: they may be read there, but half a
    comparison is no result.

    Returns
    -------
    int
        The count of rows.
    """
    files = [rows_file(folder, name) for name in state.finished()]
    return store.merge([path for path in files if path.is_file()], folder / FILE)


def complete(folder: Path, name: str) -> bool:
    """Return whether everything a finished notebook left is still there."""
    executed = executed_file(folder, name)
    return all(path.is_file() for path in (executed, *pages_of(executed), *_noted(folder, name)))


def others(folder: Path, name: str, state: State) -> str:
    """Return a digest of how the other notebooks of a run ended, and of what they left.

    Parameters
    ----------
    folder : pathlib.Path
        The run's folder.
    name : str
        The notebook that reads it.
    state : State
        The run's.
    """
    digest = hashlib.sha256()
    for other, entry in state.notebooks.items():
        if other != name:
            digest.update(f"{other} {entry.status}\n".encode())
            for path in (rows_file(folder, other), notes_file(folder, other)):
                content = path.read_bytes() if path.is_file() and entry.status == OK else b""
                digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def clear(folder: Path, name: str) -> None:
    """Remove what an earlier execution of a notebook left, so that nothing stale is shown."""
    executed = executed_file(folder, name)
    own = [rows_file(folder, name), notes_file(folder, name), executed, *pages_of(executed)]
    for path in [*_noted(folder, name), *own]:
        path.unlink(missing_ok=True)


def _noted(folder: Path, name: str) -> list[Path]:
    said = notes.read(notes_file(folder, name))
    figures = [folder / "figures" / f[kind] for f in said["figures"] for kind in ("png", "svg")]
    return figures + [folder / "tables" / table["file"] for table in said["tables"]]
