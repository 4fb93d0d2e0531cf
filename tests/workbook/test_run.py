"""Runs for real. A kernel start costs about two seconds, so many tests share few runs."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import nbformat
import pytest

from workbook import paths, runner, state, store
from workbook.errors import WorkbookError

START = """\
import helpers as h
run = h.start("{name}", model=model, batch=batch, threads=threads, profile=profile)
"""
GOOD = """\
from matplotlib import pyplot
same = dict(model=model, weights="own & <b>few</b>", trained=True, batch=batch, precision="fp32")
run.record(**same, metric="latency", value=2.0, unit="ms", ci_low=1.9, ci_high=2.1, n=10)
run.record(**same, metric="top1", value=94.05, unit="%", n=2000)
run.record(**{**same, "weights": "random", "trained": False}, metric="latency", value=3., unit="ms")
run.table(run.rows(metric="latency"), "Time of the toy")
figure, axes = pyplot.subplots()
run.figure(figure, "bars", caption="What the toy is")
run.headline("It takes {ms:.1f} ms.", metrics=["latency"], ms=2)
"""
FAIL = "import os\nraise ValueError(f'no <b>way</b> in {os.getcwd()}/x.py')"


@pytest.fixture(scope="module")
def site(tmp_path_factory, notebook, start_run):
    """Run three notebooks once: one good, one that fails, one that needs the failing one."""
    home = tmp_path_factory.mktemp("site")
    notebook(home / "nb", "01_good", START.format(name="01_good"), GOOD)
    notebook(home / "nb", "02_fails", "print('before')", FAIL, parameters="rounds = 10")
    notebook(home / "nb", "03_needs", "x = 1", needs=["02_fails"])
    ended = start_run(home / "nb", given={"batch": "8"}, out=home / "run")
    return SimpleNamespace(home=home, nb=home / "nb", run=home / "run", **vars(ended))


def entries(outcome):
    return {name: entry.status for name, entry in outcome.state.notebooks.items()}


def test_failed_is_kept_dependent_is_skipped_others_go_on(site):
    assert entries(site.outcome) == {"01_good": "ok", "02_fails": "failed", "03_needs": "skipped"}
    assert site.outcome.code == 1
    assert site.outcome.state.notebooks["03_needs"].reason == "needs 02_fails, which failed"
    assert "skipped  03_needs  needs 02_fails, which failed" in site.text


def test_failure_says_where(site):
    error = site.outcome.state.notebooks["02_fails"].error
    assert (error["name"], error["cell"]) == ("ValueError", 3)
    # The kernel's folder is the checkout; where that lies is nobody's business.
    assert error["value"] == "no <b>way</b> in x.py"
    for name in ("02_fails.ipynb", "02_fails.html"):
        assert str(paths.root()) not in (site.run / "notebooks" / name).read_text()
    assert "raise ValueError" in error["source"]


def test_executed_notebooks_are_kept_with_output_and_error(site):
    good = nbformat.read(site.run / "notebooks" / "01_good.ipynb", as_version=4)
    kinds = [list(o.data) for cell in good.cells for o in cell.get("outputs", []) if "data" in o]
    assert any("image/png" in kind for kind in kinds)
    assert any("text/html" in kind for kind in kinds)
    failed = (site.run / "notebooks" / "02_fails.ipynb").read_text()
    assert "before" in failed
    assert "ValueError" in failed
    assert not (site.run / "notebooks" / "03_needs.ipynb").exists()


def test_parameters_and_profile_reach_the_kernel(site):
    rows = store.read(site.run / "results.csv")
    assert {row["batch"] for row in rows} == {8}
    in_force = site.outcome.state.notebooks["01_good"].parameters
    assert in_force == {"batch": 8, "profile": "quick", "model": "toy", "threads": 1}
    assert site.outcome.state.notebooks["02_fails"].parameters == {"rounds": 10}


def test_results_are_the_rows_of_the_good_notebook(site):
    rows = store.read(site.run / "results.csv")
    assert [(r["metric"], r["value"]) for r in rows] == [
        ("latency", 2.0), ("top1", 94.05), ("latency", 3.0),
    ]  # fmt: skip
    assert {row["notebook"] for row in rows} == {"01_good"}


def test_run_json_tells_request_machine_and_load(site):
    about = json.loads((site.run / "run.json").read_text())
    assert about["profile"] == "quick"
    assert about["requested"] == {"batch": "8"}
    assert about["parameters"]["01_good"]["batch"] == 8
    assert about["machine"]["packages"]["numpy"]
    assert about["machine"]["cpu"]["model"]
    assert about["begun"] <= about["finished"]
    assert set(about["load"]) == {"before", "after"}


def test_figures_and_pages_are_there(site):
    names = {path.relative_to(site.run).as_posix() for path in site.run.rglob("*.*")}
    assert names >= {
        "figures/01_good-bars.png", "figures/01_good-bars.svg", "index.html",
        "notebooks/01_good.html", "notebooks/01_good-text.html", "notebooks/02_fails.html",
        "tables/01_good-time-of-the-toy.csv", "state.json", "run.json", "results.csv",
    }  # fmt: skip


def test_page_without_code_has_none(site):
    names = ("01_good.html", "01_good-text.html")
    with_code, without = ((site.run / "notebooks" / name).read_text() for name in names)
    assert "helpers" in with_code
    assert "helpers" not in without
    assert "Question of 01_good" in without


def test_folder_that_holds_a_run_is_not_overwritten(site, start_run):
    with pytest.raises(WorkbookError, match="already holds a run: add --resume"):
        start_run(site.nb, out=site.run)


def test_folder_of_other_things_is_not_written_to(site, start_run):
    with pytest.raises(WorkbookError, match="is not an empty folder"):
        start_run(site.nb, out=site.nb)
    assert not (site.nb / "state.json").exists()


def test_nothing_is_written_for_a_bad_request(site, start_run, tmp_path):
    for bad in ({"given": {"btach": "8"}}, {"given": {"batch": "abc"}}):
        with pytest.raises(WorkbookError):
            start_run(site.nb, out=tmp_path / "new", **bad)
    with pytest.raises(WorkbookError, match="unknown notebook"):
        start_run(site.nb, "04_missing", out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def resumed(site, notebook, start_run):
    """Mend the failing notebook and resume; what the first run left is copied beforehand."""
    copy = site.home / "resumed"
    shutil.copytree(site.run, copy)
    books = site.home / "nb2"
    shutil.copytree(site.nb, books)
    notebook(books, "02_fails", "print('mended')", parameters="rounds = 10")
    ended = start_run(books, out=copy, resume=True)
    return SimpleNamespace(run=copy, nb=books, **vars(ended))


def test_resume_runs_what_failed_and_what_needs_it(resumed):
    assert entries(resumed.outcome) == {"01_good": "ok", "02_fails": "ok", "03_needs": "ok"}
    assert resumed.outcome.code == 0
    assert "kept  01_good" in resumed.text
    assert "ok  02_fails" in resumed.text
    assert "ok  03_needs" in resumed.text


def test_resume_keeps_request_and_results(resumed, site):
    assert resumed.outcome.state.requested == {"batch": "8"}
    assert store.read(resumed.run / "results.csv") == store.read(site.run / "results.csv")


def executed(monkeypatch):
    """Replace the kernel by a list of what would run."""
    names = []

    def fake(notebook, folder, parameters, on_cell=None):
        names.append(notebook.name)
        path = folder / "notebooks" / f"{notebook.name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(), path)

    monkeypatch.setattr(runner.execute, "execute", fake)
    return names


def test_resume_of_a_finished_run_runs_nothing(resumed, start_run, monkeypatch):
    names = executed(monkeypatch)
    assert start_run(resumed.nb, out=resumed.run, resume=True).outcome.code == 0
    assert names == []


@pytest.fixture
def copy(resumed, tmp_path):
    """Return a copy of a finished run and of its notebooks, to be changed."""
    shutil.copytree(resumed.run, tmp_path / "run")
    shutil.copytree(resumed.nb, tmp_path / "nb")
    return SimpleNamespace(run=tmp_path / "run", nb=tmp_path / "nb")


def test_changed_source_runs_again_with_what_needs_it(copy, notebook, start_run, monkeypatch):
    names = executed(monkeypatch)
    notebook(copy.nb, "02_fails", "print('changed')", parameters="rounds = 10")
    start_run(copy.nb, out=copy.run, resume=True)
    assert names == ["02_fails", "03_needs"]


def test_changed_parameter_runs_again_where_it_is_known(copy, start_run, monkeypatch):
    names = executed(monkeypatch)
    start_run(copy.nb, out=copy.run, resume=True, given={"rounds": "20"})
    assert names == ["02_fails", "03_needs"]


def test_changed_parameter_is_for_the_whole_run(copy, start_run, monkeypatch):
    names = executed(monkeypatch)
    start_run(copy.nb, "1", out=copy.run, resume=True, given={"rounds": "20"})
    assert names == ["02_fails", "03_needs"]


def test_run_has_one_profile(copy, start_run):
    with pytest.raises(WorkbookError, match="run is a quick run: start a new one for full"):
        start_run(copy.nb, out=copy.run, resume=True, profile="full")


def test_notebook_that_is_gone_keeps_its_place(copy, start_run, monkeypatch):
    names = executed(monkeypatch)
    (copy.nb / "03_needs.ipynb").unlink()
    outcome = start_run(copy.nb, out=copy.run, resume=True).outcome
    assert names == []
    assert list(outcome.state.notebooks) == ["01_good", "02_fails", "03_needs"]


def test_named_notebook_alone_is_resumed(copy, start_run, monkeypatch):
    names = executed(monkeypatch)
    start_run(copy.nb, "1", out=copy.run, resume=True, code="other")
    assert names == ["01_good"]


def test_changed_code_runs_everything_again(copy, start_run, monkeypatch):
    names = executed(monkeypatch)
    start_run(copy.nb, out=copy.run, resume=True, code="other")
    assert names == ["01_good", "02_fails", "03_needs"]


@pytest.mark.parametrize(
    "lost", ["notebooks/01_good.ipynb", "figures/01_good-bars.svg", "notebooks/01_good.html"]
)
def test_missing_file_runs_again(copy, start_run, monkeypatch, lost):
    names = executed(monkeypatch)
    (copy.run / lost).unlink()
    start_run(copy.nb, out=copy.run, resume=True)
    assert names == ["01_good"]


def test_running_again_clears_what_was_there(copy, start_run, monkeypatch):
    executed(monkeypatch)
    (copy.run / "notebooks" / "01_good.html").unlink()
    start_run(copy.nb, out=copy.run, resume=True)
    # The stand-in for the kernel records nothing: rows and figures of before must not survive.
    assert store.read(copy.run / "results.csv") == []
    assert not list((copy.run / "figures").iterdir())


def test_resume_takes_the_latest_run(copy, start_run, monkeypatch):
    names = executed(monkeypatch)
    shutil.copytree(copy.run, copy.run.parent / "outputs" / "20260101T000000Z-quick")
    outcome = start_run(copy.nb, resume=True).outcome
    assert outcome.folder.name == "20260101T000000Z-quick"
    assert names == []


def test_new_run_goes_to_outputs_by_time_and_profile(copy, start_run, monkeypatch):
    names = executed(monkeypatch)
    folder = start_run(copy.nb, "1", profile="full").outcome.folder
    assert folder.parent.name == "outputs"
    assert folder.name.endswith("Z-full")
    assert names == ["01_good"]


def test_needed_notebook_is_added(copy, start_run, monkeypatch):
    names = executed(monkeypatch)
    ended = start_run(copy.nb, "03", out=copy.run.parent / "new")
    assert names == ["02_fails", "03_needs"]
    assert "02_fails is added" in ended.text


def test_interrupt_keeps_what_is_finished(copy, start_run, monkeypatch):
    names = executed(monkeypatch)
    run_one = runner.execute.execute

    def stopped(notebook, *arguments, **options):
        if notebook.name == "02_fails":
            raise KeyboardInterrupt
        return run_one(notebook, *arguments, **options)

    monkeypatch.setattr(runner.execute, "execute", stopped)
    outcome = start_run(copy.nb, out=copy.run.parent / "new").outcome
    assert outcome.code == 130
    assert entries(outcome) == {
        "01_good": "ok", "02_fails": "interrupted", "03_needs": "interrupted",
    }  # fmt: skip
    assert state.load(outcome.folder).notebooks["03_needs"].reason == "not reached"
    assert outcome.index.is_file()

    monkeypatch.setattr(runner.execute, "execute", run_one)
    assert start_run(copy.nb, out=outcome.folder, resume=True).outcome.code == 0
    assert names == ["01_good", "02_fails", "03_needs"]
