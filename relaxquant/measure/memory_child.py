"""The process in which `memory.peak_memory` measures; run as a script, never imported.

It imports the standard library only, and of that little: what is loaded here is in the baseline.
The folder it lies in must stay off sys.path.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys


def main(out: str) -> None:
    """Read the work from standard input, do it, and write the figures to `out` as JSON."""
    sys.path[:] = json.loads(sys.stdin.buffer.readline())
    function, args, setup = pickle.loads(sys.stdin.buffer.read())
    if setup is not None:
        args = (setup(), *args)
    was_reset = reset_high_water()
    baseline = resident("VmRSS") or maxrss()
    function(*args)
    peak = resident("VmHWM")
    figures = {
        "baseline_bytes": baseline,
        "peak_bytes": peak or maxrss(),
        "ru_maxrss_bytes": maxrss(),
        "source": _source(peak is not None, was_reset),
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(figures, file)


def _source(has_status: bool, was_reset: bool) -> str:
    if not has_status:
        return "ru_maxrss"
    return "VmHWM" if was_reset else "VmHWM, not reset"


def resident(field: str) -> int | None:
    """A field of /proc/self/status in bytes, None where there is no such file."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def reset_high_water() -> bool:
    """Set VmHWM back to what is resident now (proc(5), clear_refs); False where not allowed."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def maxrss() -> int:
    """Peak resident memory of this process by getrusage, bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if os.uname().sysname == "Darwin" else most * 1024


if __name__ == "__main__":
    main(sys.argv[1])
