"""``python -m workbook.peers.worker``: the process that one variant lives in.

The first request is its job. It loads the network, runs it, and answers with the logits' agreement
with PyTorch's fp32, its peak resident memory up to then, and what multiplies. Its job's file is
named by the parent, so that nothing is imported here but the framework itself. From then on it runs
as many calls as each request asks for, and answers with how long they took.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from workbook.peers import bind, channel
from workbook.peers.job import Job
from workbook.peers.registry import PEERS

# Of the largest logit. Frameworks sum in other orders and Winograd rounds more, within this.
FP32_TOLERANCE = 1e-2


def main() -> None:
    """Serve the job of the first request."""
    serve(lambda first: _ready(Job.loads(first["job"]), first["path"], first["images"]))


def serve(ready: Callable[[dict], tuple[Callable[[], np.ndarray], dict]]) -> None:
    """Load, then answer until the line is closed.

    Parameters
    ----------
    ready : callable
        Given the first request, returns what to time and what to say of it.
    """
    stream = channel.claim_stdout()
    requests = channel.requests()
    first = next(requests)
    try:
        run, about = ready(first)
    except Exception as error:
        channel.answer(stream, ok=False, reason=channel.reason(error))
        return
    channel.answer(stream, ok=True, **about)
    for request in requests:
        try:
            channel.answer(stream, ok=True, elapsed_ns=_elapsed_ns(run, request["calls"]))
        except Exception as error:
            channel.answer(stream, ok=False, reason=channel.reason(error))


def _ready(job: Job, path: str | None, count: int) -> tuple[Callable[[], np.ndarray], dict]:
    """Load the job, check its outputs, and return what to time with what is known of it."""
    bind.process(job.threads)
    peer = PEERS[job.peer]
    for name in peer.imports:
        import_module(name)
    before = resident_bytes("VmRSS")
    loaded = peer.adapter().load(job, path and Path(path))
    images = np.load(job.path("images.npy"), mmap_mode="r")
    expected = np.load(job.path("expected.npy"))
    chosen = np.arange(job.batch) % len(images)
    x = np.ascontiguousarray(images[chosen])
    logits = np.asarray(loaded.run(x))
    check(logits, expected[chosen], job.precision)
    memory = resident_bytes("VmHWM")
    agreed = _agreed(loaded.run, images[:count], expected, job.batch)
    gc.collect()
    about = {"instructions": loaded.instructions, "peak_bytes": memory}
    about["added_bytes"] = memory - before
    return lambda: loaded.run(x), about | {"agreed": agreed, "images": min(count, len(images))}


def check(logits: np.ndarray, expected: np.ndarray, precision: str) -> None:
    """Refuse outputs that are not the network's.

    Raises
    ------
    ValueError
        For another shape, a value that is not finite, and in fp32 one that is off by more than
        `FP32_TOLERANCE` of the largest. How far int8 is off is for the agreement to say.
    """
    if logits.shape != expected.shape:
        raise ValueError(f"wrong output: shape {logits.shape}, not {expected.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("wrong output: not finite")
    error = np.abs(logits - expected).max() / np.abs(expected).max()
    if precision == "fp32" and error > FP32_TOLERANCE:
        raise ValueError(f"wrong output: off by {100 * error:.1f} % of the largest logit")


def _agreed(run, images: np.ndarray, expected: np.ndarray, batch: int) -> int:
    """How many of the images get PyTorch's top class; the last batch is filled up."""
    agreed = 0
    for start in range(0, len(images), batch):
        places = np.arange(start, start + batch)
        logits = np.asarray(run(np.ascontiguousarray(images[places % len(images)])))
        real = places[places < len(images)]
        agreed += int((logits[: len(real)].argmax(1) == expected[real].argmax(1)).sum())
    return agreed


def resident_bytes(field: str) -> int:
    """``VmRSS``, resident now, or ``VmHWM``, most since this process began; bytes.

    Where there is no /proc both are the most by getrusage, which on Linux would tell a child its
    parent's.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            (line,) = [line for line in file if line.startswith(f"{field}:")]
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if os.uname().sysname == "Darwin" else most * 1024


def _elapsed_ns(run: Callable[[], np.ndarray], calls: int) -> int:
    repeat = range(calls)
    gc.disable()
    try:
        start = time.perf_counter_ns()
        for _ in repeat:
            run()
        return time.perf_counter_ns() - start
    finally:
        gc.enable()


if __name__ == "__main__":
    main()
