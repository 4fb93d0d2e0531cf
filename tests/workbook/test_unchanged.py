"""The same command again: what is unchanged is not run a second time."""

from __future__ import annotations

import json
import shutil

import nbformat
import pytest

from workbook import facts, results, runner, state, store
from workbook.context import rows_file
from workbook.errors import WorkbookError

ROW = {"notebook": "01_a", "metric": "latency", "value": 1.0, "unit": "ms", "machine": "toy"}


@pytest.fixture
def books(tmp_path, notebook, monkeypatch):
    """Three notebooks, the last of which gathers; and a kernel that only keeps a row."""
    folder = tmp_path / "nb"
    notebook(folder, "01_a", "x = 1")
    notebook(folder, "02_b", "x = 1", parameters="rounds = 10")
    path = notebook(folder, "10_report", "x = 1", parameters='profile = "quick"')
    node = nbformat.read(path, as_version=4)
    node.metadata["workbook"] = {"gathers": True}
    nbformat.write(node, path)
    return folder


@pytest.fixture
def ran(monkeypatch):
    """Names of the notebooks that were executed; each leaves one more row value than before."""
    names: list[str] = []

    def fake(notebook, folder, parameters, on_cell=None):
        names.append(notebook.name)
        executed = folder / "notebooks" / f"{notebook.name}.ipynb"
        executed.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(), executed)
        rows = rows_file(folder, notebook.name)
        store.start(rows)
        store.append(rows, ROW | {"notebook": notebook.name, "value": float(len(names))})

    monkeypatch.setattr(runner.execute, "execute", fake)
    return names


def again(start_run, books, ran, *words, **request):
    """Run once more; return the folder, what was executed, and what the terminal said."""
    ran.clear()
    ended = start_run(books, *words, **request)
    return ended.outcome.folder, list(ran), ended.text


def test_same_command_runs_nothing_and_leaves_the_run_as_it_was(start_run, books, ran):
    first, names, _ = again(start_run, books, ran)
    assert names == ["01_a", "02_b", "10_report"]
    before = {name: (first / name).read_text() for name in ("run.json", "results.csv")}
    second, names, text = again(start_run, books, ran)
    assert (second, names) == (first, [])
    assert f"going on with {first.name}, nothing changed; --fresh" in text
    assert "kept  10_report" in text
    assert {name: (first / name).read_text() for name in before} == before


@pytest.mark.parametrize(
    "request_",
    [{"fresh": True}, {"code": "other"}, {"given": {"rounds": "20"}}, {"profile": "full"}],
)
def test_anything_else_is_a_new_run(start_run, books, ran, request_, monkeypatch):
    first, _, _ = again(start_run, books, ran)
    aside = first.rename(first.with_name("20260101T000000Z-quick"))
    second, names, text = again(start_run, books, ran, **request_)
    assert second != aside
    assert names == ["01_a", "02_b", "10_report"]
    assert "going on with" not in text


def test_other_notebooks_are_another_request(start_run, books, ran):
    first, _, _ = again(start_run, books, ran)
    first.rename(first.with_name("20260101T000000Z-quick"))
    assert again(start_run, books, ran, "2")[1] == ["02_b"]
    assert again(start_run, books, ran, "2")[1] == []


def test_what_failed_is_run_again_and_what_gathers_with_it(start_run, books, ran):
    folder, _, _ = again(start_run, books, ran)
    current = state.load(folder)
    current.notebooks["02_b"].status = state.FAILED
    current.save(folder)
    assert again(start_run, books, ran)[:2] == (folder, ["02_b", "10_report"])


def test_report_alone_is_made_again_in_its_run(start_run, books, ran, notebook):
    folder, _, _ = again(start_run, books, ran)
    node = nbformat.read(books / "10_report.ipynb", as_version=4)
    node.cells[-1].source = "x = 2"
    nbformat.write(node, books / "10_report.ipynb")
    assert again(start_run, books, ran)[:2] == (folder, ["10_report"])


def test_changed_notebook_is_a_new_run(start_run, books, ran, notebook):
    first, _, _ = again(start_run, books, ran)
    first.rename(first.with_name("20260101T000000Z-quick"))
    notebook(books, "01_a", "x = 2")
    assert again(start_run, books, ran)[1] == ["01_a", "02_b", "10_report"]


@pytest.mark.parametrize("change", [{"finished": None}, {"machine": {"name": "another"}}])
def test_unfinished_run_and_that_of_another_machine_are_passed_over(start_run, books, ran, change):
    first, _, _ = again(start_run, books, ran)
    aside = first.rename(first.with_name("20260101T000000Z-quick"))
    about = json.loads((aside / facts.FILE).read_text())
    (aside / facts.FILE).write_text(json.dumps(about | change))
    assert again(start_run, books, ran)[1] == ["01_a", "02_b", "10_report"]


def test_run_of_another_version_is_no_obstacle(start_run, books, ran, tmp_path):
    broken = tmp_path / "outputs" / "old"
    broken.mkdir(parents=True)
    (broken / state.FILE).write_text('{"version": 0}')
    assert again(start_run, books, ran)[1] == ["01_a", "02_b", "10_report"]


def test_rows_that_changed_are_gathered_again(start_run, books, ran):
    folder, _, _ = again(start_run, books, ran)
    rows = rows_file(folder, "01_a")
    store.append(rows, ROW | {"value": 7.0})
    assert again(start_run, books, ran)[1] == ["10_report"]


def test_named_notebook_of_a_run_takes_the_report_with_it(start_run, books, ran):
    folder, _, _ = again(start_run, books, ran)
    found = again(start_run, books, ran, "1", out=folder, resume=True, code="other")
    assert found[1] == ["01_a", "10_report"]


def test_digest_is_of_what_others_left_and_how_they_ended(start_run, books, ran):
    folder, _, _ = again(start_run, books, ran)
    current = state.load(folder)
    before = results.others(folder, "10_report", current)
    store.append(rows_file(folder, "10_report"), ROW)
    assert results.others(folder, "10_report", current) == before
    current.notebooks["01_a"].status = state.FAILED
    assert results.others(folder, "10_report", current) != before


def test_resume_and_fresh_exclude_each_other(start_run, books, ran):
    with pytest.raises(WorkbookError, match="give one of them"):
        start_run(books, resume=True, fresh=True)


def test_lost_file_is_made_again(start_run, books, ran):
    folder, _, _ = again(start_run, books, ran)
    shutil.rmtree(folder / "notebooks")
    assert again(start_run, books, ran)[:2] == (folder, ["01_a", "02_b", "10_report"])
