"""Published against ours: ratios of the CSV files in data/published, and those of a run."""

from __future__ import annotations

import pytest

from workbook import paper, store

BASE = {"notebook": "03_graph_int8", "model": "resnet18", "weights": "w", "trained": True,
        "batch": 1, "precision": "w8a8", "executor": "graph", "machine": "toy"}  # fmt: skip


def row(metric="speedup", value=3.0, unit="x", **change):
    return store.check_row({**BASE, "metric": metric, "value": value, "unit": unit, **change})


def lines(*rows):
    return paper.lines(list(rows), {row["notebook"] for row in rows})


def test_every_claim_has_its_published_rows():
    all_ = paper.lines([], {claim.notebook for claim in paper.CLAIMS})
    assert len(all_) == len(paper.CLAIMS)
    assert [line.published for line in all_ if line.notebook == "03_graph_int8"] == ["1.61×"]
    assert {line.place for line in all_} == {"Table 1", "Table 2", "Table 3"}


def test_speedup_is_shown_with_interval_and_accuracy():
    (line,) = lines(row(ci_low=2.9, ci_high=3.1, n=10), row("top1", 94.05, "%"))
    assert (line.published, line.ours.value, line.ours.detail) == (
        "1.61×",
        "3.00×",
        "2.90–3.10, n = 10",
    )
    assert [cell.value for cell in line.accuracy] == ["94.05%"]
    assert not line.untrained


def test_ratio_of_two_rows():
    book = {"notebook": "05_batch_and_memory", "batch": 64}
    found = lines(
        row("peak_memory", 600.0, "MiB", precision="fp32", **book),
        row("peak_memory", 400.0, "MiB", **book, trained=False),
    )
    (memory,) = [line for line in found if line.ours]
    assert memory.what == "peak memory of fp32 / int8, batch 64"
    assert (memory.published, memory.ours.value) == ("0.986×", "1.50×")
    assert memory.untrained


def test_what_this_run_did_not_measure_is_said():
    found = lines(row(notebook="05_batch_and_memory", batch=1))
    assert [line.what for line in found if line.ours] == ["time of fp32 / int8, batch 1"]
    assert len(found) == 6


@pytest.mark.parametrize("rows", [[], [row(model="resnet50")], [row(notebook="06_bit_widths")]])
def test_no_line_without_the_papers_notebook_and_network(rows):
    assert lines(*rows) == []


def test_tuning_over_rules_is_no_speedup_over_fp32():
    tuned = row(notebook="04_schedules", schedule="auto, tuned", value=1.01)
    (line,) = lines(tuned, row(notebook="04_schedules", schedule="auto", value=2.25))
    assert line.ours.value == "2.25×"
