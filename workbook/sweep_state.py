"""The state of a sweep, kept in ``sweep.json``: what was asked, and how each item stands."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workbook.errors import WorkbookError
from workbook.files import read_versioned, write_json

FILE = "sweep.json"
VERSION = 1
WAITING, RUNNING, OK, FAILED = "waiting", "running", "ok", "failed"
INTERRUPTED = "interrupted"
LOCK = ".lock"
# A child of a killed sweep dies with it; that takes a moment.
PATIENCE = 15.0


@dataclass
class Item:
    """One item: a notebook with parameters, whose run lies in ``items/<key>/``.

    Attributes
    ----------
    notebook : str
    profile : str
    given : dict
        Swept parameter -> text.
    status : str
        ``waiting``, ``running``, ``ok``, ``failed``, or ``interrupted``.
    attempts : int
        How often it was begun.
    seconds : float
        What its notebooks took.
    started : str
        UTC, ISO 8601.
    where : str
        Host it ran on.
    reason : str
        Why it failed.
    """

    notebook: str
    profile: str
    given: dict[str, str]
    status: str = WAITING
    attempts: int = 0
    seconds: float = 0.0
    started: str = ""
    where: str = ""
    reason: str = ""

    @property
    def label(self) -> str:
        """The notebook with its swept values."""
        return ", ".join([self.notebook, *(f"{k}={v}" for k, v in self.given.items())])


@dataclass
class Sweep:
    """A sweep: what was asked for, in one or more commands, and its items.

    Attributes
    ----------
    created : str
        UTC, ISO 8601.
    requests : list of dict
        ``words``, ``profile`` and ``given`` of each command that was different.
    items : dict
        Key -> `Item`, in the order in which they are run.
    """

    created: str
    requests: list[dict[str, Any]]
    items: dict[str, Item] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write ``sweep.json`` in a sweep's folder, atomically."""
        write_json(folder / FILE, {"version": VERSION, **asdict(self)})

    @property
    def parameters(self) -> list[str]:
        """The swept parameters, in the order in which they were given."""
        return list(dict.fromkeys(name for item in self.items.values() for name in item.given))

    def count(self, status: str) -> int:
        """Return how many items have a status."""
        return sum(item.status == status for item in self.items.values())


def load(folder: Path) -> Sweep:
    """Read the sweep in `folder`.

    Raises
    ------
    WorkbookError
        Where there is none, or it was written by another version.
    """
    return read_versioned(folder, FILE, VERSION, "sweep", _sweep)


def _sweep(content: dict) -> Sweep:
    items = {key: Item(**item) for key, item in content.pop("items").items()}
    return Sweep(**content, items=items)


def latest(outputs: Path) -> Path:
    """Return the folder of the sweep that was written last.

    Raises
    ------
    WorkbookError
        Where there is no sweep.
    """
    files = list(outputs.glob(f"*/{FILE}"))
    if not files:
        raise WorkbookError(f"no sweep in {outputs}: start one with 'sweep', or name its folder")
    return max(files, key=lambda path: path.stat().st_mtime).parent


@contextmanager
def alone(folder: Path, patience: float = PATIENCE) -> Iterator[int]:
    """Hold a sweep's folder: yield a descriptor that its child processes are to inherit.

    The lock is gone when the last of them is: what a killed sweep left running is waited for.

    Raises
    ------
    WorkbookError
        Where another sweep works in the folder.
    """
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise WorkbookError(
                        f"another sweep is at work in {folder}: wait for it, or name another --out"
                    ) from None
                time.sleep(0.1)
        yield handle
    finally:
        os.close(handle)
