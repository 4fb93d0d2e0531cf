"""The program of a library that came from the compile cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import cache
from .program import Program, StockProgram


class CachedProgram:
    """What machine code no longer tells, compiled when it is asked for; the interface of `Program`.

    Parameters
    ----------
    entry : pathlib.Path or None
        The cache's file, where it is what `export` would write.
    program : callable
        Compiles the program.
    """

    def __init__(self, entry: Path | None, program: Callable[[], Program | StockProgram]):
        self._entry, self._program = entry, program

    def export(self, path: Path, compiler: str | None = None) -> None:
        """As `Program.export`."""
        if compiler or self._entry is None or not cache.copy(self._entry, path):
            self._program().export(path, compiler)

    def source(self, form: str) -> str:
        """As `Program.source`."""
        return self._program().source(form)
