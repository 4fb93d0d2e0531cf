from __future__ import annotations

import pytest

from workbook import headline, store

BASE = {"notebook": "03", "model": "resnet18", "weights": "cifar10", "trained": True, "batch": 1,
        "precision": "w8a8", "executor": "graph", "machine": "toy"}  # fmt: skip


def row(metric="latency", value=8.27, unit="ms", **change):
    return store.check_row({**BASE, "metric": metric, "value": value, "unit": unit, **change})


def top1(value=94.05, **change):
    return row("top1", value, "%", **change)


def values(cells):
    return [cell.value for cell in cells]


def test_accuracy_of_the_same_outputs_is_found():
    assert values(headline.accuracies(row(), [row(), top1()])) == ["94.05%"]


@pytest.mark.parametrize(
    "change",
    [{"model": "resnet50"}, {"weights": "other"}, {"precision": "fp32"}, {"executor": "vm"},
     {"schedule": "nchw_simd"}, {"trained": False}],
)  # fmt: skip
def test_accuracy_of_something_else_is_not(change):
    assert headline.accuracies(row(), [top1(**change)]) == []


def test_accuracy_without_executor_holds_for_all_but_the_closer_one_wins():
    loose, close = top1(90.0, executor=None), top1(91.0)
    assert values(headline.accuracies(row(), [loose])) == ["90.00%"]
    assert values(headline.accuracies(row(), [close, loose])) == ["91.00%"]
    assert values(headline.accuracies(row(executor="vm"), [close, loose])) == ["90.00%"]


def test_top1_comes_before_top5_and_agreement():
    found = [row("agreement", 99.0, "%"), row("top5", 98.0, "%"), top1()]
    assert [c.label for c in headline.accuracies(row(), found)] == ["top-1", "top-5", "agreement"]


def test_flagged_rows_are_those_a_headline_names():
    said = {"03": {"headlines": [{"metrics": ["latency"], "where": {"batch": 1}}]}}
    rows = [row(), row(batch=8), top1(), row(notebook="01")]
    assert headline.flagged(rows, said) == rows[:1]


def test_one_block_a_model_one_line_a_variant():
    rows = [
        row(precision="fp32"),
        row(),
        row("speedup", 2.0, "x", ci_low=1.9, ci_high=2.1, n=10),
        row(model="resnet50", weights="random", trained=False),
    ]
    first, second = headline.blocks(rows, rows)
    assert first.title == "resnet18, batch 1"
    assert first.columns == ["latency", "speedup"]
    assert [list(line.cells) for line in first.lines] == [["latency"], ["latency", "speedup"]]
    shown = first.lines[1].cells["speedup"]
    assert (shown.value, shown.detail) == ("2.00×", "1.90–2.10, n = 10")
    assert (first.untrained, second.untrained) == (False, True)


def test_second_row_of_a_metric_is_shown_too():
    (block,) = headline.blocks([row(), row(value=9.0)], [])
    assert values(block.lines[0].cells.values()) == ["8.27 ms", "9.00 ms"]
