"""TVM's thread pool: one for the process, sized once, shared by all libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import tvm_ffi

from .. import target as targets
from ..errors import InputError

VARIABLE = "TVM_NUM_THREADS"
BIG_CORES = 1  # TVM's affinity mode for the fastest cores; all of them where they are alike


def available() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# TVM reads the variable once, when its pool starts at the first parallel loop. Left to itself it
# takes half of x86's processors, for hyper-threads, also where there are none.
os.environ.setdefault(VARIABLE, str(available()))

_used: list[int] = []


def check(count: int | None, here: bool = True) -> int:
    """Return ``count``, by default the physical cores that this process and the pool may use.

    Raises InputError if the pool cannot have that many threads; of another machine's, where the
    code does not run ``here``, it is known only that there is at least one.
    """
    if not here and isinstance(count, int) and count >= 1:
        return count
    most = int(os.environ[VARIABLE])
    count = count or min(targets.physical_cores(), available(), most)
    if not 1 <= count <= most:
        raise InputError(
            f"threads must be 1 to {most}, got {count}; {VARIABLE}, set before Python starts, says "
            "how many TVM's pool may have"
        )
    return count


def use(count: int) -> None:
    """Let the pool run ``count`` threads from now on."""
    if _used[-1:] != [count]:
        tvm_ffi.get_global_func("runtime.config_threadpool")(BIG_CORES, count)
        _used[:] = [count]


@contextmanager
def bound(count: int) -> Iterator[None]:
    """Keep the calling thread, one of the pool's ``count``, to the first processor.

    TVM binds the others to one each and leaves the caller free, and Linux was seen to keep both of
    two threads on one processor for seconds, which doubles a time at random.
    """
    if count < 2 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
