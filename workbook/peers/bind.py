"""Cores: the same ones for every framework, and no two threads of one on the same core.

On a virtual machine Linux was seen to leave both threads of a pool on one core for seconds, which
doubles a time at random. So every worker may use the first `threads` processors only, pool threads
are bound by each framework's own setting, and the main thread, where it is one of the pool, here.
"""

from __future__ import annotations

import os


def processors(threads: int) -> list[int]:
    """Return the first `threads` processors this process may use; empty where nobody tells."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))[:threads]


def process(threads: int) -> None:
    """Keep this process, and the threads it will start, to its processors."""
    if chosen := processors(threads):
        os.sched_setaffinity(0, chosen)


def main_thread(threads: int) -> None:
    """Bind the calling thread, and it alone, to the first processor; after the pool has started."""
    if threads > 1 and (chosen := processors(threads)):
        os.sched_setaffinity(0, chosen[:1])
