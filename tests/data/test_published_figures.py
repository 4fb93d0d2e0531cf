"""The published figures: every file parses, and its values are those of its source."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "data" / "published"
COLUMNS = [
    "framework", "model", "batch", "layout", "schedule", "precision", "executor", "variant",
    "hardware", "metric", "value", "unit", "source", "note",
]  # fmt: skip
ROWS = {
    "table1": 4,
    "table2": 10,
    "table3": 12,
    "quantization_story_accuracy": 24,
    "quantization_story_latency": 14,
    "resnet50_study_latency": 8,
    "resnet50_study_ir_counts": 8,
    "data_types": 5,
}
UNITS = {"latency": "ms", "memory": "MiB", "ideal_speedup": "x", "top1": "%", "top5": "%"}
UNITS["works"] = "1 yes; 0 no"


def read(name):
    with open(FOLDER / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def value(name, **where):
    """The one value of the row with these cells."""
    rows = [row for row in read(name) if all(row[key] == want for key, want in where.items())]
    assert len(rows) == 1, f"{len(rows)} rows in {name} with {where}"
    return float(rows[0]["value"])


def test_every_file_is_known_and_described():
    assert {path.stem for path in FOLDER.glob("*.csv")} == set(ROWS)
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}.csv`" in readme for name in ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_whole(name):
    rows = read(name)
    assert len(rows) == ROWS[name]
    for row in rows:
        assert list(row) == COLUMNS
        assert all(row[key] for key in ("framework", "model", "metric", "value", "unit", "source"))
        figure = float(row["value"])
        assert math.isfinite(figure) and (figure > 0 or row["metric"] == "works")
        assert row["unit"] == UNITS.get(row["metric"], "occurrences")


@pytest.mark.parametrize("name", ROWS)
def test_no_two_rows_say_the_same(name):
    keys = [tuple(row[c] for c in COLUMNS if c not in ("value", "note")) for row in read(name)]
    assert len(set(keys)) == len(keys)


def test_words_are_the_projects():
    schedules = {"", "nchw_spatial_pack", "nchw_simd", "nhwc_spatial_pack"}
    schedules.add("nhwc_quantized_interleaved")
    for name in ROWS:
        for row in read(name):
            assert row["schedule"] in schedules
            assert row["executor"] in {"", "vm", "graph"}
            assert row["precision"] in {"", "fp32", "w8a8", "w8a16", "w8a32"}


def test_table_1():
    assert value("table1", framework="pytorch") == 69.26
    assert value("table1", framework="tvm", precision="fp32") == 13.29
    assert value("table1", executor="vm") == 29.19
    assert value("table1", executor="graph") == 8.27


@pytest.mark.parametrize(
    ("schedule", "precision", "ms", "ideal"),
    [
        ("nchw_spatial_pack", "fp32", 13.29, 16),
        ("nchw_spatial_pack", "w8a8", 8.27, 16),
        ("nchw_simd", "w8a8", 11.36, 16),
        ("nhwc_spatial_pack", "fp32", 35.15, 4),
        ("nhwc_quantized_interleaved", "w8a8", 12.09, 16),
    ],
)
def test_table_2(schedule, precision, ms, ideal):
    where = {"schedule": schedule, "precision": precision}
    assert value("table2", metric="latency", **where) == ms
    assert value("table2", metric="ideal_speedup", **where) == ideal


@pytest.mark.parametrize(
    ("batch", "memory", "ms"),
    [
        ("1", (5279, 5331), (13.29, 8.27)),
        ("64", (5922, 6009), (19.65, 11.99)),
        ("256", (9643, 10061), (22.15, 11.36)),
    ],
)
def test_table_3(batch, memory, ms):
    for precision, mebibytes, milliseconds in zip(("fp32", "w8a8"), memory, ms, strict=True):
        where = {"batch": batch, "precision": precision}
        assert value("table3", metric="memory", **where) == mebibytes
        assert value("table3", metric="latency", **where) == milliseconds


def test_table_3_gives_the_abstracts_percentages():
    # The abstract's 163.88 % and 194.98 % are figures of their own, so they check the table.
    for batch, percent in (("64", 163.88), ("256", 194.98)):
        fp32 = value("table3", metric="latency", batch=batch, precision="fp32")
        int8 = value("table3", metric="latency", batch=batch, precision="w8a8")
        assert 100 * fp32 / int8 == pytest.approx(percent, abs=0.011)


def test_large_batches_carry_their_warning():
    for row in read("table3"):
        if row["metric"] == "latency" and row["batch"] != "1":
            assert "can only be per image" in row["note"]


@pytest.mark.parametrize(
    ("model", "through_tvm", "reported"),
    [
        ("inception_v1", (69.6, 89.5), (70.1, 89.8)),
        ("inception_v2", (73.3, 91.3), (73.5, 91.4)),
        ("inception_v3", (77.3, 93.6), (77.5, 93.7)),
        ("inception_v4", (79.6, 94.2), (79.5, 93.9)),
        ("mobilenet_v1", (70.1, 89.0), (70.0, 89.0)),
        ("mobilenet_v2", (70.9, 90.1), (70.8, 89.9)),
    ],
)
def test_quantization_story_accuracy(model, through_tvm, reported):
    for variant, pair in (("through TVM", through_tvm), ("reported", reported)):
        where = {"model": model, "variant": variant}
        found = [value("quantization_story_accuracy", metric=m, **where) for m in ("top1", "top5")]
        assert tuple(found) == pair


@pytest.mark.parametrize(
    ("model", "variant", "ms"),
    [
        ("inception_v1", "quantized", 2.143),
        ("inception_v2", "quantized", 8.919),
        ("inception_v3", "float", 10.373),
        ("inception_v3", "quantized", 6.115),
        ("inception_v4", "float", 21.233),
        ("inception_v4", "quantized", 12.315),
        ("mobilenet_v1", "float", 5.578),
        ("mobilenet_v1", "quantized", 7.328),
        ("mobilenet_v2", "float", 6.424),
        ("mobilenet_v2", "quantized", 8.798),
        ("inception_v1", "quantized, forced symmetric", 1.19),
        ("inception_v2", "quantized, forced symmetric", 8.25),
        ("inception_v3", "quantized, forced symmetric", 3.69),
        ("inception_v4", "quantized, forced symmetric", 7.5),
    ],
)
def test_quantization_story_latency(model, variant, ms):
    assert value("quantization_story_latency", model=model, variant=variant) == ms


@pytest.mark.parametrize(
    ("hardware", "ms"),
    [("CPU", (210.7, 388.0, 312.8, 423.7)), ("GPU", (15.3, 378.4, 379.4, 379.0))],
)
def test_resnet50_latency(hardware, ms):
    precisions = ("fp32", "w8a8", "w8a16", "w8a32")
    found = [value("resnet50_study_latency", hardware=hardware, precision=p) for p in precisions]
    assert tuple(found) == ms


@pytest.mark.parametrize(
    ("dtype", "counts"),
    [("float32", (110, 19)), ("int32", (1616, 3084)), ("int16", (220, 412)), ("int8", (440, 971))],
)
def test_resnet50_ir_counts(dtype, counts):
    metric = f"ir_count_{dtype}"
    variants = ("unquantized", "quantized")
    found = [value("resnet50_study_ir_counts", metric=metric, variant=v) for v in variants]
    assert tuple(found) == counts


def test_data_types():
    found = {row["variant"]: float(row["value"]) for row in read("data_types")}
    assert found == {"int8": 1, "int4": 0, "int2": 0, "int1": 0, "bool": 1}
