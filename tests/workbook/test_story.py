"""The report's story: read from a run's folder, with what is missing said and never guessed."""

from __future__ import annotations

import shutil

import pytest
from matplotlib import pyplot

from tests.workbook import run_folder
from workbook import context, notes, paper, paths, state, store, story, story_answer, story_plots

BASE = {"notebook": "03_graph_int8", "model": "resnet18", "weights": "w", "trained": True,
        "batch": 1, "precision": "w8a8", "executor": "graph", "machine": "toy"}  # fmt: skip


def row(metric="speedup", value=3.0, unit="x", **change):
    return store.check_row({**BASE, "metric": metric, "value": value, "unit": unit, **change})


@pytest.fixture
def folder(tmp_path, notebook, monkeypatch):
    """A run with one notebook that ran, one that failed, one that was not run; and the report."""
    books = tmp_path / "nb"
    for name in ("01_good", "02_fails", "04_later", "10_report"):
        notebook(books, name)
    monkeypatch.setenv(paths.NOTEBOOKS_VARIABLE, str(books))
    return run_folder.write(tmp_path / "run")


def test_only_what_ended_well_is_told(folder):
    told = story.read(folder, "10_report")
    assert [(b.name, b.status) for b in told.books] == [
        ("01_good", "yes"), ("02_fails", "failed"), ("04_later", "no"),
    ]  # fmt: skip
    assert told.rows == [store.check_row(r) for r in run_folder.ROWS]
    assert 77.7 not in [r["value"] for r in told.rows]
    assert told.machines == "Toy CPU"


def test_missing_notebooks_are_named_with_the_way_to_them(folder):
    words = story.read(folder, "10_report").missing
    assert "[Question of 02_fails](02_fails.ipynb) (failed)" in words
    assert "[Question of 04_later](04_later.ipynb)" in words
    assert "`python -m workbook run 02 04 --resume`" in words
    assert "01_good" not in words


def test_nothing_is_missing_where_all_ran(folder):
    for name in ("02_fails", "04_later"):
        (paths.notebooks_dir() / f"{name}.ipynb").unlink()
    assert story.read(folder, "10_report").missing == ""


def test_empty_folder_says_what_to_run_first(folder, tmp_path):
    told = story.read(tmp_path / "nowhere", "10_report")
    assert told.here == told.rows == told.sentences() == told.claims() == told.changes() == []
    assert told.result_lines() == []
    assert "Nothing has been measured" in told.missing
    assert "make run" in told.missing


def test_without_a_runner_what_lies_there_counts(folder):
    (folder / state.FILE).unlink()
    told = story.read(folder, "10_report")
    assert {b.name: b.status for b in told.here} == {
        "01_good": story.PARTLY, "02_fails": story.PARTLY,
    }  # fmt: skip


def test_own_rows_are_none_of_the_story(folder):
    shutil.copy(context.rows_file(folder, "01_good"), context.rows_file(folder, "10_report"))
    assert len(story.read(folder, "10_report").rows) == len(run_folder.ROWS)


def test_sentences_and_results_are_the_notebooks_own(folder):
    told = story.read(folder, "10_report")
    assert told.sentences() == [
        "8.27 < 13.29 *(partly untrained)* [Question of 01_good](01_good.ipynb)"
    ]
    lines = told.result_lines()
    assert [(line["network"], line["variant"]) for line in lines][:1] == [
        ("resnet18, batch 1", "w8a8, graph")
    ]
    assert lines[0]["measured"] == "latency 8.27 ms (8.10–8.40, n = 10)"
    assert lines[0]["accuracy"] == "94.05% (n = 2000) top-1"
    assert lines[-1]["network"] == "resnet50, batch 1 (untrained)"


def test_counts_are_a_range():
    assert story.counts([row(n=10), row(n=20), row()], "rounds") == "10 to 20 rounds"
    assert story.counts([row(n=10)], "rounds") == "10 rounds"
    assert story.counts([row()], "rounds") == ""


def test_answer_is_of_the_papers_comparison_first():
    rows = [
        row(notebook="00_start_here", value=2.0),
        row(notebook="02_naive_int8", executor="naive", value=0.005),
        row(ci_low=2.9, ci_high=3.1, n=10, trained=False),
        row("integer_macs", 100.0, "%"),
        row("top1_difference", 0.2, "points", ci_low=-0.6, ci_high=1.1, n=500, model="toy"),
        row("top1_difference", 0.05, "points", ci_low=-0.3, ci_high=0.41, n=2000, model="toy"),
    ]
    assert story_answer.gain(rows) == (
        "int8 with integer kernels is 3.00× (2.90–3.10, n = 10) as fast as our own fp32 on "
        "resnet18 (untrained), batch 1, does at least 100 % of its multiply-accumulates in "
        "integers and changes top-1 by +0.05 points (-0.30 to +0.41) for toy on 2000 images."
    )


@pytest.mark.parametrize("rows", [[], [row("latency", 2.0, "ms")], [row(executor="naive")]])
def test_answer_without_a_comparison_says_so(rows):
    rows = [r | {"notebook": "02_naive_int8"} for r in rows]
    assert story_answer.gain(rows) == story_answer.NOTHING


def claim(ratio, *measured):
    return paper.Line("time", "Table 1", f"{ratio}×", "03", ratio, None, measured or None)


def test_ratios_count_as_the_same_way_only_where_the_interval_says_so():
    nan = float("nan")
    claims = [claim(1.6, 3.0, 2.9, 3.1), claim(1.6, 1.1, 0.9, 1.3), claim(0.5, 0.1, 0.08, 0.2),
              claim(1.6, 0.5, nan, nan), claim(2.0)]  # fmt: skip
    words = story_answer.against_paper(claims)
    assert "Of the 5 ratios" in words
    assert "4 were measured, and 2 of those surely" in words
    assert "None of the paper's ratios" in story_answer.against_paper([claim(2.0)])


def test_speedups_over_something_else_are_left_out():
    rows = [row(), row(schedule=paper.TUNED), row(notebook="06_bit_widths"), row(precision="w4a8")]
    assert story_plots.speedups(rows) == rows[:1]


def test_figure_has_a_line_a_measurement_and_its_accuracy():
    rows = [
        row(ci_low=2.9, ci_high=3.1, n=10),
        row(notebook="02_naive_int8", executor="naive", value=0.005),
        row("top1", 94.0, "%", ci_low=92.0, ci_high=95.0, executor=None),
    ]
    figure = story_plots.gain_and_accuracy(rows)
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == [
        "03: resnet18, batch 1", "02: resnet18, batch 1, naive",
    ]  # fmt: skip
    assert [line.get_xdata()[0] for line in left.lines if line.get_marker() == "o"] == [3.0]
    assert " ◂ 0.00500×" in [text.get_text() for text in left.texts]
    assert [line.get_xdata()[0] for line in right.lines if line.get_marker() == "o"] == [94.0] * 2
    pyplot.close(figure)


def test_figure_of_the_paper_has_both_points():
    figure = story_plots.beside_paper([claim(1.6, 3.0, 2.9, 3.1), claim(2.0)])
    (axes,) = figure.axes
    points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() in ("o", "D")]
    assert points == [1.6, 3.0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["published", "this run"]
    pyplot.close(figure)


def test_claims_that_were_not_measured_are_lines_too():
    lines = story.claim_lines([claim(2.0)])
    assert lines == [
        {"ratio": "time", "published": "2.0× (Table 1)", "ours": "not in this run",
         "accuracy of ours": ""}
    ]  # fmt: skip


def test_notes_of_a_failed_notebook_are_not_told(folder):
    said = {"text": "half", "metrics": [], "where": {}, "label": ""}
    notes.put(context.notes_file(folder, "02_fails"), "headlines", "h", said)
    assert all("half" not in words for words in story.read(folder, "10_report").sentences())
