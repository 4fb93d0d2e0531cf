"""The same number of threads for every framework, set before any of them starts its pool."""

from __future__ import annotations

import os
import sys

from workbook.errors import WorkbookError

# OpenMP and MKL for PyTorch, OpenBLAS for NumPy; TVM reads its own once, when its pool starts.
VARIABLES = ("TVM_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def available() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fix(threads: int | None) -> int:
    """Set the thread count of TVM, PyTorch and the BLAS libraries.

    Parameters
    ----------
    threads : int or None
        How many; None or 0 means all processors this process may use.

    Returns
    -------
    int
        The count that now holds.

    Raises
    ------
    WorkbookError
        For a negative count, and where TVM is already imported with another one: its thread pool
        keeps the count it started with, and a measurement would not be what its row says.
    """
    if isinstance(threads, bool) or not isinstance(threads, int | None) or (threads or 0) < 0:
        raise WorkbookError(f"threads must be a whole number from 1, or 0 for all, not {threads!r}")
    count = threads or available()
    held = os.environ.get("TVM_NUM_THREADS")
    if "tvm" in sys.modules and held != str(count):
        raise WorkbookError(
            f"TVM is already imported with TVM_NUM_THREADS={held}, {count} asked: "
            "restart the kernel, and start the run before importing tvm"
        )
    os.environ.update(dict.fromkeys(VARIABLES, str(count)))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    return count
