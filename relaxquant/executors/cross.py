"""A network compiled for another architecture: look into it and export it, but do not run it."""

from __future__ import annotations

from pathlib import Path

import tvm

from .. import target as targets
from ..errors import TargetError
from .library import Library, Metadata
from .program import Program, StockProgram


class CrossLibrary(Library):
    """What `relaxquant.compile` gives for a target of another architecture than this machine's.

    ``kernels``, ``memory``, ``source`` and ``export`` are as of any `Library`; what would run its
    code raises TargetError.
    """

    def __init__(
        self, program: Program | StockProgram, metadata: Metadata, target: tvm.target.Target
    ):
        # Nothing is handed to the virtual machine, which would start on the code at once.
        self.metadata, self._program = metadata, lambda: program
        self._triple = targets.triple(target)

    def __call__(self, *inputs):
        """Raise TargetError: the code is another architecture's."""
        raise self._not_here("run")

    def stamped(self, *inputs):
        """Raise TargetError: the code is another architecture's."""
        raise self._not_here("run")

    def profile(self, *inputs, repeats: int = 10):
        """Raise TargetError: the code is another architecture's."""
        raise self._not_here("profiled")

    def export(self, path: str | Path, compiler: str | None = None) -> Path:
        """Write a shared library for the target.

        Parameters
        ----------
        path : str or pathlib.Path
            File to write.
        compiler : str, optional
            Linker driver for the target; default: the triple and ``-g++``, as in
            ``aarch64-linux-gnu-g++``.

        Raises
        ------
        InputError
            If the folder does not exist or there is no such compiler.
        """
        return super().export(path, compiler or f"{self._triple}-g++")

    def _not_here(self, done: str) -> TargetError:
        return TargetError(
            f"a network compiled for {self._triple} cannot be {done} on this machine: write it "
            "with lib.export(...), copy the file there and rq.load(...) it"
        )
