"""Sweeps on Dask workers: three on two hosts' names, one of which is killed under its item."""

from __future__ import annotations

import csv
import io
import itertools
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from tests import waiting
from workbook import fingerprint, paths, sweep, sweep_dask, sweep_item
from workbook.errors import WorkbookError

distributed = pytest.importorskip("distributed")

# The first item kills its worker, the first time: kernel <- item <- worker.
BODY = """\
import os, pathlib, time
import psutil
once = pathlib.Path({home!r}) / "once"
def say(what):
    with open(pathlib.Path({home!r}) / "log", "a") as log:
        log.write(f"{{what}} {{batch}} {{os.environ['WORKBOOK_HOST']}} {{time.time()}}\\n")
if batch == 1 and not once.exists():
    once.touch()
    psutil.Process().parent().parent().kill()
    time.sleep(600)
say("begin")
time.sleep(0.5)
say("end")
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, notebook):
    """A scheduler, and workers on hosts that call themselves a, b and b."""
    home = tmp_path_factory.mktemp("cluster")
    notebook(home / "nb", "05_toy", BODY.format(home=str(home)))
    file = home / "scheduler.json"
    environment = {
        **os.environ, paths.NOTEBOOKS_VARIABLE: str(home / "nb"), "PYTHONPATH": str(paths.root()),
        # A machine that pauses for minutes is not lost.
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "2 hours",
    }  # fmt: skip

    def start(kind, *options, host=""):
        own = {sweep_dask.HOST_VARIABLE: host, sweep_item.LOCK_VARIABLE: str(home / f"lock{host}")}
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--scheduler-file", file]
        with (home / "cluster.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--no-dashboard", *options], env=environment | own, cwd=home, stdout=log,
                stderr=log,
            )  # fmt: skip

    processes = [start("scheduler", "--host", "127.0.0.1", "--port", "0")]
    try:
        waiting.until(file.exists, "the scheduler's address", processes[0])
        options = ("--no-nanny", "--nthreads", "1", "--local-directory", str(home / "space"))
        processes += [start("worker", *options, host=host) for host in "abb"]
        with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(3, timeout=waiting.SECONDS)
            address = client.scheduler.address
        yield SimpleNamespace(home=home, address=address)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_items_run_on_all_hosts_one_at_a_time_and_a_lost_worker_costs_nothing(cluster, monkeypatch):
    monkeypatch.setenv(paths.NOTEBOOKS_VARIABLE, str(cluster.home / "nb"))
    out = cluster.home / "sweep"
    request = sweep.Request(["05"], given=[("batch", "1,2,3")], out=out, scheduler=cluster.address)
    screen = io.StringIO()
    outcome = sweep.run(request, Console(file=screen, width=200))
    print(screen.getvalue())
    assert outcome.code == 0
    with (out / "status.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["attempts"] for row in table] == ["2", "1", "1"]
    assert "is gone" in screen.getvalue() or "failed" in screen.getvalue()
    assert {row["where"] for row in table} <= {"a", "b"}
    spans = _spans(cluster.home / "log")
    assert sorted(batch for batch, *_ in spans) == ["1", "2", "3"]
    for host in "ab":
        times = sorted((begin, end) for _, h, begin, end in spans if h == host)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))
    # The run's folder came back whole, and nothing but it.
    for key in outcome.sweep.items:
        assert (out / "items" / key / "notebooks" / "05_toy.html").is_file()
    assert not (out / "partial").exists()


def test_item_ends_with_the_sweep_that_wanted_it(cluster, notebook, monkeypatch, tmp_path):
    mark = cluster.home / "slow.pid"
    slow = f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    notebook(cluster.home / "nb", "06_slow", slow)
    fleet = sweep_dask.Fleet(cluster.address, fingerprint.of_code(paths.root()))
    with sweep_dask.DaskPool(fleet, tmp_path) as pool:
        pool.submit("slow", {"notebook": "06_slow", "profile": "quick", "given": {}})
        waiting.until(lambda: mark.exists() and mark.read_text(), "the kernel's mark")
        assert pool.collect(0.1) == []
    waiting.until(lambda: waiting.is_gone(int(mark.read_text())), "the kernel's end")


def test_worker_with_other_code_is_refused_before_anything_runs(cluster, monkeypatch):
    monkeypatch.setenv(paths.NOTEBOOKS_VARIABLE, str(cluster.home / "nb"))
    monkeypatch.setattr(fingerprint, "of_code", lambda root: "mine")
    out = cluster.home / "refused"
    request = sweep.Request(["05"], out=out, scheduler=cluster.address)
    with pytest.raises(WorkbookError, match="b has other code or package versions"):
        sweep.run(request, Console(file=io.StringIO()))
    assert not out.exists()


def test_scheduler_that_goes_away_is_said(cluster, tmp_path, monkeypatch):
    fleet = sweep_dask.Fleet(cluster.address, fingerprint.of_code(paths.root()))
    monkeypatch.setattr(fleet.client, "nthreads", _gone)
    with (
        pytest.raises(WorkbookError, match="does not answer any more"),
        sweep_dask.DaskPool(fleet, tmp_path) as pool,
    ):
        pool.collect(0)


def _gone():
    raise OSError("connection refused")


def test_missing_scheduler_and_missing_dask_are_said(tmp_path, notebook, monkeypatch):
    notebook(tmp_path / "nb", "05_toy", "x = 1")
    monkeypatch.setenv(paths.NOTEBOOKS_VARIABLE, str(tmp_path / "nb"))
    monkeypatch.setattr(sweep_dask, "CONNECT_SECONDS", 1)
    request = sweep.Request(["05"], out=tmp_path / "sweep", scheduler="tcp://127.0.0.1:9")
    with pytest.raises(WorkbookError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        sweep.run(request, Console(file=io.StringIO()))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(WorkbookError, match=r"pip install -r env/requirements-fleet\.txt"):
        sweep.run(request, Console(file=io.StringIO()))
    assert not (tmp_path / "sweep").exists()


def _spans(path):
    """Return (batch, host, begin, end) of each item from the log the notebook writes."""
    found = {}
    for line in path.read_text().splitlines():
        what, batch, host, moment = line.split()
        found.setdefault((batch, host), {})[what] = float(moment)
    return [(batch, host, t["begin"], t["end"]) for (batch, host), t in found.items()]
