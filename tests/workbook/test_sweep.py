"""Sweeps: which items run, what is kept, what is written; once for real, with kill -9."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from click.testing import CliRunner
from rich.console import Console

from tests import waiting
from workbook import cli, fingerprint, paths, runner, store, sweep, sweep_item, sweep_state
from workbook.errors import WorkbookError
from workbook.sweep_pool import Done

RECORD = """\
import helpers as h
run = h.start("05_toy", model=model, batch=batch, threads=threads, profile=profile)
same = dict(model=model, trained=True, batch=batch)
run.record(**same, metric="latency", value=2.0 * batch, unit="ms", ci_low=1.9, ci_high=9.0, n=10)
run.headline("It takes {ms:.1f} ms.", metrics=["latency"], ms=2.0 * batch)
"""


class FakePool:
    """Runs items in this process, with a stand-in for the kernel."""

    lost: list[int] = []

    def __init__(self, scratch):
        self._scratch, self._done = scratch, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def idle(self):
        return not self._done

    def free(self):
        return self.idle

    def submit(self, key, spec):
        folder = self._scratch / key
        folder.mkdir()
        if self.lost and self.lost.pop():
            (folder / "run").mkdir()
            sweep.shutil.rmtree(folder)
            self._done.append(Done(key, None, None, "its machine is gone"))
            return "here"
        asked = runner.Request([spec["notebook"]], spec["profile"], spec["given"], folder / "run")
        try:
            code = runner.run(asked, Console(file=io.StringIO())).code
        except WorkbookError as error:
            self._done.append(Done(key, 2, None, f"Error: {error}"))
        else:
            self._done.append(Done(key, code, folder / "run", "said"))
        return "here"

    def collect(self, timeout):
        found, self._done = self._done, []
        return found


@pytest.fixture
def site(tmp_path, notebook, monkeypatch):
    """A notebook, and a function that sweeps it without kernels; `ran` says what was executed."""
    notebook(tmp_path / "nb", "05_toy", "x = 1")
    found = SimpleNamespace(home=tmp_path, out=tmp_path / "sweep", ran=[], code="code", fail=set())

    def execute(book, folder, parameters, on_cell=None):
        batch = parameters.get("batch", 1)
        found.ran.append(batch)
        path = folder / "notebooks" / f"{book.name}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(nbformat.v4.new_notebook(), path)
        rows = folder / "rows" / f"{book.name}.csv"
        store.start(rows)
        store.append(rows, {"notebook": book.name, "machine": "box", "metric": "latency",
                            "value": 2.0 * batch, "unit": "ms", "batch": batch})  # fmt: skip
        error = {"name": "ValueError", "value": "un<b>lucky</b>\nx", "cell": 1, "source": "x"}
        return error if batch in found.fail else None

    monkeypatch.setenv(paths.NOTEBOOKS_VARIABLE, str(tmp_path / "nb"))
    monkeypatch.setattr(runner.execute, "execute", execute)
    monkeypatch.setattr(fingerprint, "of_code", lambda root: found.code)
    monkeypatch.setattr(sweep, "_pool", lambda fleet, scratch, lock: FakePool(scratch))
    monkeypatch.setattr(FakePool, "lost", [])

    def start(*words, given=(), out=found.out, **request):
        screen = io.StringIO()
        asked = sweep.Request(words, given=given, out=out, **request)
        found.outcome = sweep.run(asked, Console(file=screen, width=200))
        found.text = screen.getvalue()
        return found.outcome

    found.start = start
    return found


def table(site):
    with (site.outcome.folder / "status.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_every_point_runs_once_and_is_joined(site):
    assert site.start("05", given=[("batch", "1,8"), ("model", "a,b")]).code == 0
    assert site.ran == [1, 1, 8, 8]
    assert [(r["p_batch"], r["p_model"], r["status"], r["attempts"]) for r in table(site)] == [
        ("1", "a", "ok", "1"), ("1", "b", "ok", "1"), ("8", "a", "ok", "1"), ("8", "b", "ok", "1"),
    ]  # fmt: skip
    with (site.out / "results.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["p_batch"], r["p_model"], r["value"]) for r in rows] == [
        ("1", "a", "2.0"), ("1", "b", "2.0"), ("8", "a", "16.0"), ("8", "b", "16.0"),
    ]  # fmt: skip
    assert {r["item"] for r in rows} == set(site.outcome.sweep.items)
    assert sorted(path.name for path in site.out.iterdir()) == [
        ".lock", "index.html", "items", "results.csv", "status.csv", "sweep.json",
    ]  # fmt: skip


def test_what_is_there_is_not_run_again(site):
    site.start("05", given=[("batch", "1,8")])
    assert site.start("05", given=[("batch", "1,8")]).code == 0
    assert site.ran == [1, 8]
    assert "kept  2 of 2 items are unchanged" in site.text
    # A larger grid in the same folder runs what is new, and the table has all.
    site.start("05", given=[("batch", "1,8,64")])
    assert site.ran == [1, 8, 64]
    assert [r["p_batch"] for r in table(site)] == ["1", "8", "64"]


def test_changed_code_notebook_or_lost_file_runs_again(site, notebook):
    site.start("05", given=[("batch", "1,8")])
    key = next(iter(site.outcome.sweep.items))
    (site.out / "items" / key / "notebooks" / "05_toy.html").unlink()
    site.start(resume=True)
    assert site.ran == [1, 8, 1]
    site.code = "other"
    site.start(resume=True)
    assert site.ran == [1, 8, 1, 1, 8]
    notebook(site.home / "nb", "05_toy", "x = 2")
    site.start(resume=True)
    assert site.ran[5:] == [1, 8]
    assert len(list((site.out / "items").iterdir())) == 2


def test_one_failing_item_stops_no_other_and_is_run_again(site):
    site.fail = {8}
    assert site.start("05", given=[("batch", "1,8,64")]).code == 1
    assert [r["status"] for r in table(site)] == ["ok", "failed", "ok"]
    assert table(site)[1]["reason"] == "05_toy: ValueError: un<b>lucky</b>"
    page = (site.out / "index.html").read_text()
    assert "un&lt;b&gt;lucky" in page
    assert "<b>lucky" not in page
    with (site.out / "results.csv").open() as stream:
        assert [r["p_batch"] for r in csv.DictReader(stream)] == ["1", "64"]
    site.fail = set()
    assert site.start(resume=True).code == 0
    assert site.ran == [1, 8, 64, 8]
    assert [r["attempts"] for r in table(site)] == ["1", "2", "1"]


def test_item_whose_machine_was_lost_is_run_again_but_not_for_ever(site, monkeypatch):
    FakePool.lost[:] = [1, 1]
    assert site.start("05", given=[("batch", "1")]).code == 0
    assert table(site)[0]["attempts"] == "3"
    FakePool.lost[:] = [1] * 9
    assert site.start("05", given=[("batch", "8")]).code == 1
    assert [(r["attempts"], r["status"]) for r in table(site)] == [("3", "ok"), ("3", "failed")]
    assert table(site)[1]["reason"] == "its machine is gone"


def test_page_links_to_what_is_there(site):
    site.start("05", given=[("batch", "1")])
    page = (site.out / "index.html").read_text()
    links = [part.split('"')[0] for part in page.split('href="')[1:]]
    files = [link for link in links if not link.startswith("data:")]
    assert len(files) == 3
    assert all((site.out / link).is_file() for link in files)
    assert "http" not in page


def test_default_folder_is_named_by_the_request_and_resume_takes_the_latest(site):
    first = site.start("05", given=[("batch", "1")], out=None).folder
    other = site.start("05", given=[("batch", "8")], out=None).folder
    assert first != other
    assert first.parent == other.parent == paths.outputs_dir()
    assert site.start("05", given=[("batch", "1")], out=None).folder == first
    assert site.start(out=None, resume=True).folder == first
    assert site.ran == [1, 8]


def test_bad_requests_write_nothing(site):
    for words, given in ((["7"], []), (["05"], [("btach", "1")]), (["05"], [("batch", "1,x")])):
        with pytest.raises(WorkbookError):
            site.start(*words, given=given)
    with pytest.raises(WorkbookError, match="holds no sweep"):
        site.start(resume=True)
    with pytest.raises(WorkbookError, match="no sweep in"):
        site.start(out=None, resume=True)
    assert not site.out.exists()
    with pytest.raises(WorkbookError, match="is not empty"):
        site.start("05", out=site.home / "nb")


def test_resume_with_parameters_needs_their_notebooks(site):
    site.start("05", given=[("batch", "1")])
    with pytest.raises(WorkbookError, match="name the notebooks"):
        site.start(given=[("batch", "8")], resume=True)


def test_unreadable_state_is_refused(site):
    site.out.mkdir()
    (site.out / "sweep.json").write_text('{"version": 99}')
    with pytest.raises(WorkbookError, match=r"sweep\.json cannot be read"):
        site.start("05")


def test_folder_is_one_sweeps_at_a_time(tmp_path):
    with (
        sweep_state.alone(tmp_path),
        pytest.raises(WorkbookError, match="another sweep is at work"),
        sweep_state.alone(tmp_path, patience=0.2),
    ):
        pass
    with sweep_state.alone(tmp_path, patience=0.0):
        pass


def test_host_runs_one_item_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv(sweep_item.LOCK_VARIABLE, str(tmp_path / "lock"))
    code = (
        "from workbook.sweep_item import host_lock\n"
        "print('asks', flush=True)\n"
        "with host_lock(): print('in', flush=True)"
    )
    with sweep_item.host_lock():
        other = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=paths.root()
        )
        assert other.stdout.readline() == b"asks\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=1)
    assert other.communicate(timeout=waiting.SECONDS)[0] == b"in\n"


def test_bad_command_is_one_line_and_code_2(site):
    for words, message in (
        (["05", "-p", "btach", "1"], "did you mean 'batch'"),
        (["05", "-p", "batch", "1,x"], "batch must be of type int"),
        ([], "a sweep needs a notebook"),
    ):
        done = CliRunner().invoke(cli.main, ["sweep", *words])
        assert done.exit_code == 2
        assert message in done.stderr
        assert "Traceback" not in done.output


SLOW = """\
import os, time
with open({log!r}, "a") as log:
    log.write(f"{{batch}} {{os.getpid()}}\\n")
if batch == 2 and not os.path.exists({go!r}):
    time.sleep(600)
if batch == 3:
    raise ValueError("unlucky")
"""


def test_killed_in_the_middle_and_gone_on_with(tmp_path, notebook, monkeypatch):
    """kill -9: what was finished is kept, what was in flight runs again, nothing else twice."""
    log, go, out = tmp_path / "log", tmp_path / "go", tmp_path / "sweep"
    slow = SLOW.format(log=str(log), go=str(go))
    notebook(tmp_path / "nb", "05_toy", slow, RECORD)
    monkeypatch.setenv(paths.NOTEBOOKS_VARIABLE, str(tmp_path / "nb"))
    monkeypatch.setenv(sweep_item.LOCK_VARIABLE, str(tmp_path / "lock"))
    command = [sys.executable, "-m", "workbook", "sweep", "--out", str(out)]
    process = subprocess.Popen([*command, "05", "-p", "batch", "1,2,3"], cwd=paths.root())
    try:
        lines = waiting.until(lambda: _lines(log, 2), "the second item", process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = json.loads((out / "sweep.json").read_text())["items"]
    assert [item["status"] for item in kept.values()] == ["ok", "running", "waiting"]
    finished = out / "items" / next(iter(kept))
    before = (finished / "state.json").stat().st_mtime_ns

    go.touch()
    done = subprocess.run([*command, "--resume"], cwd=paths.root(), capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["1", "2", "2", "3"]
    assert (finished / "state.json").stat().st_mtime_ns == before
    # The kernel of the killed sweep is gone as well.
    waiting.until(lambda: waiting.is_gone(int(lines[1].split()[1])), "the kernel's end")
    with (out / "status.csv").open() as stream:
        found = [(r["status"], r["attempts"]) for r in csv.DictReader(stream)]
    assert found == [("ok", "1"), ("ok", "2"), ("failed", "1")]
    with (out / "results.csv").open() as stream:
        assert [r["value"] for r in csv.DictReader(stream)] == ["2.0", "4.0"]
    assert "It takes 4.0 ms." in (out / "index.html").read_text()


def _lines(path, count):
    """Return the lines of a file that has so many of them, else None."""
    lines = path.read_text().splitlines() if path.exists() else []
    return lines if len(lines) >= count else None
