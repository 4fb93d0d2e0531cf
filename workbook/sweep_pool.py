"""Where the items of a sweep run: here, one at a time. `workbook.sweep_dask` is the other place."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbook import sweep_item

RUN = "run"
LOG = "log.txt"


@dataclass
class Done:
    """How an attempt ended.

    Attributes
    ----------
    key : str
    code : int or None
        Exit status; None where its machine was lost, and it is to be run elsewhere.
    folder : pathlib.Path or None
        What it left, to be moved into place.
    log : str
        What it printed.
    """

    key: str
    code: int | None
    folder: Path | None
    log: str


class LocalPool:
    """One item at a time on this machine.

    Parameters
    ----------
    scratch : pathlib.Path
        An empty folder on the file system of the sweep's.
    lock : int
        Descriptor of the sweep's lock, see `workbook.sweep_state.alone`.
    """

    def __init__(self, scratch: Path, lock: int) -> None:
        self._scratch, self._lock = scratch, lock
        self._key = ""
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            sweep_item.end(self._process)

    @property
    def idle(self) -> bool:
        """Whether nothing runs."""
        return self._process is None

    def free(self) -> bool:
        """Return whether one more item can be started."""
        return self.idle

    def submit(self, key: str, spec: Mapping[str, Any]) -> str:
        """Start an item; return the host it runs on."""
        folder = self._scratch / key
        folder.mkdir()
        self._key = key
        self._process = sweep_item.start(spec, folder / RUN, folder / LOG, [self._lock])
        return platform.node()

    def collect(self, timeout: float) -> list[Done]:
        """Return the attempts that ended, waiting for one at most so many seconds."""
        if self._process is None:
            time.sleep(timeout)
            return []
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return []
        self._process = None
        folder = self._scratch / self._key
        log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        left = folder / RUN
        return [Done(self._key, code, left if left.is_dir() else None, log)]
