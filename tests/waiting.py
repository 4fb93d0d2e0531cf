"""What tests of other processes share: waiting as long as a slow machine needs, and signals."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

SECONDS = 300  # never waited for in vain unless something is broken: generous on purpose


def until(
    ready: Callable[[], Any],
    what: str,
    process: subprocess.Popen | None = None,
    said: Path | None = None,
) -> Any:
    """Ask until the answer is true, and return it.

    Fails where ``process`` ends before, or time is up, and shows what was ``said`` till then.
    """
    end = time.monotonic() + SECONDS
    while not (found := ready()):
        text = f"\n{said.read_text()}" if said else ""
        assert process is None or process.poll() is None, f"its process ended without {what}{text}"
        assert time.monotonic() < end, f"not within {SECONDS} s: {what}{text}"
        time.sleep(0.1)
    return found


def is_gone(pid: int) -> bool:
    """Whether a process has ended, though perhaps nobody has asked for its exit status yet."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def heed_interrupts() -> None:
    """As ``preexec_fn``: a shell starts what runs in the background with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
