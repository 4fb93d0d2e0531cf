"""One item of a sweep in a process of its own: ``python -m workbook.sweep_item SPEC``.

It ends with whoever started it, and holds a lock that is the host's: a timed run never shares its
machine with another, however many sweeps or workers there are.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbook import paths

LOCK_VARIABLE = "WORKBOOK_HOST_LOCK"
_PR_SET_PDEATHSIG = 1


def start(
    spec: Mapping[str, Any], folder: Path, log: Path, inherited: Sequence[int] = ()
) -> subprocess.Popen:
    """Start an item.

    Parameters
    ----------
    spec : mapping
        ``notebook``, ``profile`` and ``given`` of a `workbook.grid.Point`.
    folder : pathlib.Path
        The run's folder, not there yet.
    log : pathlib.Path
        Where its output goes.
    inherited : sequence of int
        Descriptors it keeps open as long as it lives.

    Returns
    -------
    subprocess.Popen
        Exit status as ``python -m workbook run``: 0, 1 where a notebook failed, 2 for a bad
        request, 130 where it was interrupted.
    """
    told = {**spec, "folder": str(folder), "parent": os.getpid()}
    command = [sys.executable, "-m", "workbook.sweep_item", json.dumps(told)]
    with log.open("wb") as stream:
        return subprocess.Popen(
            command, cwd=paths.root(), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            pass_fds=inherited, start_new_session=True,
        )  # fmt: skip


def end(process: subprocess.Popen, patience: float = 20.0) -> None:
    """End an item that still runs: asked first, so that its kernel ends with it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def host_lock() -> Iterator[None]:
    """Wait until no other item runs on this host, and hold it."""
    default = Path(tempfile.gettempdir()) / "relaxquant-sweep.lock"
    path = os.environ.get(LOCK_VARIABLE) or default
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        # Another user's file: a lock needs no right to write.
        handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the sweep that started this is gone")


def main(text: str) -> int:
    """Run one item; return its exit status."""
    from rich.console import Console

    from workbook.errors import WorkbookError
    from workbook.runner import Request, run

    spec = json.loads(text)
    die_with(spec["parent"])
    request = Request([spec["notebook"]], spec["profile"], spec["given"], out=Path(spec["folder"]))
    try:
        with host_lock():
            return run(request, Console()).code
    except WorkbookError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
