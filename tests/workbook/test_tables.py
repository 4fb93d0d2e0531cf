from __future__ import annotations

import pandas as pd
import pytest

from workbook import tables

ROW = {"notebook": "01", "model": "resnet18", "weights": "imagenet", "trained": True, "batch": 1,
       "layout": None, "precision": "fp32", "metric": "latency", "value": 8.2712, "unit": "ms",
       "ci_low": 8.1, "ci_high": 8.4, "n": 10, "machine": "toy"}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8.2712, "8.27"), (2127.4, "2127"), (162.4, "162"), (0.001234, "0.00123"), (0.0, "0"),
        (-8.2712, "-8.27"), (64, "64"), ("graph", "graph"), (True, "True"), (None, "–"),
        (float("nan"), "–"), (pd.NA, "–"),
    ],
)  # fmt: skip
def test_number(value, text):
    assert tables.number(value) == text


def test_result_rows_are_spread_with_units_in_the_headers():
    faster = {**ROW, "precision": "w8a8", "value": 4.0}
    top1 = {**ROW, "metric": "top1", "value": 94.05, "unit": "%", "n": 2000}
    frame = tables.to_frame([ROW, top1, faster])
    assert list(frame["precision"]) == ["fp32", "w8a8"]
    assert list(frame["latency (ms)"]) == [8.2712, 4.0]
    assert frame["top1 (%)"][0] == 94.05
    assert pd.isna(frame["top1 (%)"][1])
    assert frame["latency 95 % interval (ms)"][0] == "8.10–8.40"
    assert frame["top1 n"][0] == 2000
    assert not {"notebook", "machine", "layout", "metric", "trained"} & set(frame.columns)


def test_the_same_measured_twice_is_two_lines():
    frame = tables.to_frame([ROW, {**ROW, "value": 9.0}])
    assert list(frame["latency (ms)"]) == [8.2712, 9.0]


def test_other_tables_stay_as_they_are():
    frame = tables.to_frame([{"layer": "conv1", "time (ms)": 1.5}])
    assert frame.to_dict("list") == {"layer": ["conv1"], "time (ms)": [1.5]}


def test_untrained_weights_are_labelled():
    frame = tables.to_frame([ROW, {**ROW, "weights": "random", "trained": False}])
    assert list(frame["weights"]) == ["imagenet", "random (untrained)"]


def test_untrained_is_said_once_and_without_a_weights_column_too():
    named = tables.label_untrained(pd.DataFrame({"weights": ["untrained"], "trained": [False]}))
    assert list(named["weights"]) == ["untrained"]
    bare = tables.label_untrained(pd.DataFrame({"model": ["m"], "trained": [False]}))
    assert list(bare["weights"]) == ["(untrained)"]


def test_constants_go_into_the_caption():
    frame, common = tables.fold_constants(tables.to_frame([ROW, {**ROW, "precision": "w8a8"}]))
    assert common == "resnet18, imagenet weights, batch 1"
    assert "precision" in frame.columns
    assert "model" not in frame.columns


def test_html_is_escaped_and_the_same_every_time():
    frame = pd.DataFrame({"a<b": ["<script>"], "x (%)": [94.05]})
    page = tables.styled(frame, "a & b").to_html()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a&lt;b" in page
    assert "a &amp; b" in page
    assert "94.05" in page
    assert page == tables.styled(frame, "a & b").to_html()
