"""The state of a run, kept in ``state.json``: what was asked, and how each notebook ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workbook.errors import WorkbookError
from workbook.files import read_versioned, write_json

FILE = "state.json"
VERSION = 1
OK, FAILED, SKIPPED = "ok", "failed", "skipped"
RUNNING, INTERRUPTED = "running", "interrupted"


@dataclass
class Entry:
    """How one notebook ended.

    Attributes
    ----------
    status : str
        ``ok``, ``failed``, ``skipped``, ``interrupted``, or ``running`` where the process was
        killed.
    title : str
    parameters : dict
        Those passed to it.
    fingerprint : str
        See `workbook.fingerprint`.
    seconds : float
    started : str
        UTC, ISO 8601.
    revision : str or None
        The checkout's git revision, ``+`` behind it where it had changes.
    reason : str
        Why it was skipped.
    error : dict or None
        ``name``, ``value``, ``cell`` (execution count), ``source``.
    gathered : str
        Of a notebook that gathers: digest of what it found, see `workbook.results.others`.
    """

    status: str
    title: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    seconds: float = 0.0
    started: str = ""
    revision: str | None = None
    reason: str = ""
    error: dict[str, Any] | None = None
    gathered: str = ""


@dataclass
class State:
    """A run: its request and its notebooks, in the order they are run and shown.

    Attributes
    ----------
    created : str
        UTC, ISO 8601.
    profile : str
    requested : dict
        Parameter name -> text, as given with ``-p``.
    notebooks : dict
        Name -> `Entry`.
    """

    created: str
    profile: str
    requested: dict[str, str]
    notebooks: dict[str, Entry] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write ``state.json`` in a run's folder, atomically."""
        write_json(folder / FILE, {"version": VERSION, **asdict(self)})

    def finished(self) -> list[str]:
        """Return the names of the notebooks that ended well."""
        return [name for name, entry in self.notebooks.items() if entry.status == OK]


def load(folder: Path) -> State:
    """Read the state of the run in `folder`.

    Raises
    ------
    WorkbookError
        Where there is none, or it was written by another version.
    """
    return read_versioned(folder, FILE, VERSION, "run", _state)


def _state(content: dict) -> State:
    entries = {name: Entry(**entry) for name, entry in content.pop("notebooks").items()}
    return State(**content, notebooks=entries)


def latest(outputs: Path) -> Path:
    """Return the folder of the run that was started last.

    Raises
    ------
    WorkbookError
        Where there is no run.
    """
    runs = [path.parent for path in outputs.glob(f"*/{FILE}")]
    if not runs:
        raise WorkbookError(f"no run in {outputs}: start one with 'run', or name its folder")
    return max(runs, key=lambda folder: load(folder).created)
