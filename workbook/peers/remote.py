"""Processes seen from the parent: started, asked, and where they die, why."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from typing import Any

from workbook import paths
from workbook.peers.job import Job
from workbook.peers.registry import PEERS
from workbook.threads import VARIABLES

LOAD_S = 300.0
SAMPLE_S = 120.0


class WorkerError(Exception):
    """A child failed, died or took too long: one line with the reason."""


class Child:
    """A Python module run in a process of its own, asked and answering in JSON lines.

    Parameters
    ----------
    module : str
        Run as ``python -m``.
    environment : mapping
        Variables on top of the present ones.
    """

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        path = os.pathsep.join([str(paths.root()), os.environ.get("PYTHONPATH", "")])
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), **environment},
            text=True,
        )

    def send(self, **request: Any) -> None:
        """Send one request."""
        with contextlib.suppress(OSError):  # a dead child is found out when it is listened to
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Return the answer to the oldest request.

        Raises
        ------
        WorkerError
            Where it reports a failure, died, or did not answer in time; it is killed then.
        """
        late = threading.Event()
        timer = threading.Timer(timeout_s, lambda: (late.set(), self._process.kill()))
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if late.is_set():
            self.close()
            raise WorkerError(f"no answer in {timeout_s:.0f} s")
        if not line:
            raise WorkerError(self._fate())
        answer = json.loads(line)
        if not answer.pop("ok"):
            raise WorkerError(answer["reason"])
        return answer

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _fate(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", often for want of memory" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{hint}"
        return f"its process ended with status {code}" + (f": {said[-1][:200]}" if said else "")


class Timed:
    """A network in a process of its own; a variant for `relaxquant.measure.interleaved`.

    Parameters
    ----------
    module : str
        Serves as `worker.serve` does.
    environment : mapping
        Variables on top of the present ones.
    **first
        The first request: what to load.
    """

    def __init__(self, module: str, environment: Mapping[str, str], **first: Any) -> None:
        self._child = Child(module, environment)
        self._child.send(**first)

    def ready(self) -> dict[str, Any]:
        """Wait until it has loaded; return what it says of itself."""
        return self._child.receive(LOAD_S)

    def __call__(self) -> None:
        """Run once."""
        self.elapsed_ns(1)

    def elapsed_ns(self, calls: int) -> int:
        """Run `calls` times; return the nanoseconds it took, by the child's own clock."""
        self._child.send(calls=calls)
        return self._child.receive(SAMPLE_S)["elapsed_ns"]

    def close(self) -> None:
        """End the process."""
        self._child.close()


class Worker(Timed):
    """One variant of a network of the zoo.

    Parameters
    ----------
    job : Job
    images : int
        Images to measure the agreement on; 0 where it is known.
    """

    def __init__(self, job: Job, images: int) -> None:
        self.job = job
        peer = PEERS[job.peer]
        environment = dict.fromkeys(VARIABLES, str(job.threads)) | peer.environment
        if job.isa:
            environment |= peer.avx2 or {}
        path = peer.adapter().artifact(job)
        first = {"job": job.dumps(), "path": path and str(path), "images": images}
        super().__init__("workbook.peers.worker", environment, **first)
