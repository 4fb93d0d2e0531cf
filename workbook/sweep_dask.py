"""The items of a sweep on several machines, by Dask's distributed scheduler.

Each host of the scheduler's workers gets one item at a time, whatever the number of workers and
threads there, and an item is a process of its own that also holds the host's lock: a timed run
never shares its machine with another. A worker needs this checkout, with the same library, data and
package versions; a run comes back as the bytes of its folder, so no file system has to be shared.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shutil
import tarfile
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbook import fingerprint, paths, sweep_item
from workbook.errors import WorkbookError
from workbook.sweep_pool import LOG, RUN, Done

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 20
POLL_SECONDS = 0.5
HOST_VARIABLE = "WORKBOOK_HOST"
START = "run 'dask worker ADDRESS --nworkers 1 --nthreads 1' in the checkout on each machine"


class Fleet:
    """The workers of a scheduler that can be used, and the host of each.

    Parameters
    ----------
    address : str
        Of the scheduler, ``tcp://host:8786`` say.
    code : str
        Fingerprint of the code that workers must have, see `workbook.fingerprint.of_code`.

    Attributes
    ----------
    client : distributed.Client
    hosts : dict
        Worker's address -> name of its host.

    Raises
    ------
    WorkbookError
        Where Dask is not installed, nothing answers at the address, no worker is there, or one has
        other code.
    """

    def __init__(self, address: str, code: str) -> None:
        self.client = _connect(address)
        self.hosts: dict[str, str] = {}
        self._code = code
        self._refused: dict[str, str] = {}
        try:
            self._wait(address)
        except BaseException:
            self.client.close()
            raise

    def look(self) -> None:
        """Bring the workers up to date: new ones are asked who they are, lost ones dropped."""
        # Not scheduler_info: what it returns is now and then replaced by a list without workers.
        there = set(self.client.nthreads())
        self.hosts = {worker: host for worker, host in self.hosts.items() if worker in there}
        new = sorted(there - self.hosts.keys() - self._refused.keys())
        found = self.client.run(about, workers=new, on_error="return") if new else {}
        for worker, answer in found.items():
            if isinstance(answer, OSError):
                continue  # Gone while it was asked.
            if isinstance(answer, Exception):
                self._refused[worker] = f"{worker} cannot run this checkout ({answer!r})"
            elif answer[1] != self._code:
                self._refused[worker] = f"{answer[0]} has other code or package versions"
            else:
                self.hosts[worker] = answer[0]

    def _wait(self, address: str) -> None:
        try:
            self.client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise WorkbookError(f"the scheduler at {address} has no worker: {START}") from None
        self.look()
        # Later ones are left out; of those that are there, someone should know.
        if self._refused:
            raise WorkbookError(
                f"{'; '.join(sorted(set(self._refused.values())))}: bring its checkout and "
                "environment up to date, and start the worker again in the checkout"
            )


class DaskPool:
    """One item at a time on each host.

    Parameters
    ----------
    fleet : Fleet
    scratch : pathlib.Path
        An empty folder on the file system of the sweep's.
    """

    def __init__(self, fleet: Fleet, scratch: Path) -> None:
        self._fleet, self._scratch = fleet, scratch
        self._tasks: dict[str, tuple[Future, str, str]] = {}

    def __enter__(self) -> DaskPool:
        return self

    def __exit__(self, *_: object) -> None:
        # A scheduler that is gone has nothing left to cancel.
        with contextlib.suppress(OSError, CancelledError):
            for future, *_where in self._tasks.values():
                future.cancel()
            self._fleet.client.close()

    @property
    def idle(self) -> bool:
        """Whether nothing runs."""
        return not self._tasks

    def free(self) -> bool:
        """Return whether one more item can be started."""
        return bool(self._free_workers())

    def submit(self, key: str, spec: Mapping[str, Any]) -> str:
        """Start an item on a free host; return the host's name."""
        worker = self._free_workers()[0]
        host = self._fleet.hosts[worker]
        future = self._fleet.client.submit(
            attempt, dict(spec), key=f"{key}-{time.time_ns()}", workers=[worker], pure=False,
            allow_other_workers=False, retries=0,
        )  # fmt: skip
        self._tasks[key] = (future, worker, host)
        return host

    def collect(self, timeout: float) -> list[Done]:
        """Return the attempts that ended, or whose machine is gone."""
        time.sleep(timeout)
        try:
            self._fleet.look()
        except (OSError, CancelledError) as error:
            raise WorkbookError(
                f"the scheduler does not answer any more ({error}): start it again, and the same "
                "command goes on with the sweep"
            ) from None
        ended = []
        for key, (future, worker, host) in list(self._tasks.items()):
            if future.done():
                ended.append(self._take(key, future, host))
            elif worker not in self._fleet.hosts:
                future.cancel()
                ended.append(Done(key, None, None, f"the worker on {host} is gone"))
            else:
                continue
            del self._tasks[key]
        return ended

    def _free_workers(self) -> list[str]:
        """Return a worker of each host on which nothing runs."""
        busy = {host for _, _, host in self._tasks.values()}
        by_host: dict[str, str] = {}
        for worker, host in self._fleet.hosts.items():
            by_host.setdefault(host, worker)
        return [worker for host, worker in by_host.items() if host not in busy]

    def _take(self, key: str, future: Future, host: str) -> Done:
        if future.status != "finished":
            # Dask's own failure: the worker went down under the item, or lost it.
            reason = repr(future.exception()) if future.status == "error" else future.status
            return Done(key, None, None, f"the worker on {host} failed: {reason}")
        code, content = future.result()
        folder = self._scratch / key
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            archive.extractall(folder, filter="data")
        log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        left = folder / RUN
        return Done(key, code, left if left.is_dir() else None, log)


def about() -> tuple[str, str]:
    """Return a worker's host and the fingerprint of its code.

    Containers have names of their own: ``WORKBOOK_HOST`` names the machine they share.
    """
    return os.environ.get(HOST_VARIABLE) or platform.node(), fingerprint.of_code(paths.root())


def attempt(spec: Mapping[str, Any]) -> tuple[int, bytes]:
    """Run one item on a worker; return its exit status and its folder as an archive.

    It is ended where the sweep that wanted it is gone.
    """
    with tempfile.TemporaryDirectory(prefix="relaxquant-sweep-") as scratch:
        folder = Path(scratch)
        process = sweep_item.start(spec, folder / RUN, folder / LOG)
        try:
            while process.poll() is None:
                if _unwanted():
                    return 130, b""
                time.sleep(POLL_SECONDS)
        finally:
            sweep_item.end(process)
        return process.returncode, _packed(folder)


def _connect(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise WorkbookError(
            "--scheduler needs Dask: pip install -r env/requirements-fleet.txt"
        ) from None
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise WorkbookError(
            f"no Dask scheduler answers at {address} ({error}): run 'dask scheduler' and {START}"
        ) from None


def _unwanted() -> bool:
    """Return whether the task that runs this has been cancelled, or its sweep's client is gone."""
    from distributed import get_worker
    from distributed.worker import thread_state

    key = getattr(thread_state, "key", None)
    task = get_worker().state.tasks.get(key)
    return task is None or task.state == "cancelled"


def _packed(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    return stream.getvalue()
