from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbook import store
from workbook.errors import WorkbookError

ROW = {"notebook": "01", "metric": "latency", "value": 8.27, "unit": "ms", "machine": "toy"}


def test_row_has_every_column_in_order():
    assert list(store.check_row(ROW)) == list(store.COLUMNS)
    assert store.check_row(ROW)["batch"] is None


def test_columns_are_those_of_the_design():
    assert ",".join(store.COLUMNS) == (
        "notebook,model,weights,trained,batch,layout,schedule,precision,executor,"
        "metric,value,unit,ci_low,ci_high,n,machine"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"btach": 8}, "unknown result column 'btach': did you mean 'batch'"),
        ({"value": math.nan}, "'value' must be a finite number"),
        ({"value": math.inf}, "'value' must be a finite number"),
        ({"value": "8.27"}, "'value' must be a finite number"),
        ({"value": True}, "'value' must be a finite number"),
        ({"value": None}, "lacks value"),
        ({"unit": ""}, "lacks unit"),
        ({"batch": 1.5}, "'batch' must be a whole number"),
        ({"batch": 0}, "'batch' must be at least 1"),
        ({"n": -1}, "'n' must be at least 1"),
        ({"ci_low": 1.0}, "half an interval"),
        ({"ci_low": 2.0, "ci_high": 1.0}, "wrong way round"),
        ({"ci_low": 2.0, "ci_high": math.inf}, "'ci_high' must be a finite number"),
        ({"model": "resnet18"}, "lacks trained"),
        ({"model": "resnet18", "trained": "yes"}, "'trained' must be True or False"),
    ],
)
def test_bad_row_is_refused(change, message):
    with pytest.raises(WorkbookError, match=message):
        store.check_row({**ROW, **change})


def test_numpy_scalars_are_brought_to_python():
    row = store.check_row(
        {**ROW, "value": np.float32(1.5), "n": np.int64(10), "model": "m", "trained": np.True_}
    )
    assert (row["value"], row["n"], row["trained"]) == (1.5, 10, True)
    assert (type(row["value"]), type(row["n"]), type(row["trained"])) == (float, int, bool)


@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    model=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    trained=st.booleans(),
    n=st.integers(1, 10**9),
)
def test_rows_come_back_as_they_went_in(tmp_path_factory, value, model, trained, n):
    path = tmp_path_factory.mktemp("rows") / "01.csv"
    store.start(path)
    kept = store.append(path, {**ROW, "value": value, "model": model, "trained": trained, "n": n})
    assert store.read(path) == [kept]


def test_start_empties_and_append_adds(tmp_path):
    path = tmp_path / "rows" / "01.csv"
    store.start(path)
    store.append(path, ROW)
    store.append(path, {**ROW, "value": 9})
    assert [row["value"] for row in store.read(path)] == [8.27, 9.0]
    store.start(path)
    assert store.read(path) == []


def test_refused_row_leaves_no_trace(tmp_path):
    path = tmp_path / "01.csv"
    store.start(path)
    with pytest.raises(WorkbookError):
        store.append(path, {**ROW, "value": math.nan})
    assert store.read(path) == []


def test_merge_keeps_the_order_of_the_files(tmp_path):
    files = [tmp_path / f"{name}.csv" for name in ("02", "01")]
    for path in files:
        store.start(path)
        store.append(path, {**ROW, "notebook": path.stem})
    assert store.merge(files, tmp_path / "results.csv") == 2
    assert [row["notebook"] for row in store.read(tmp_path / "results.csv")] == ["02", "01"]


def test_foreign_or_missing_file_is_named(tmp_path):
    (tmp_path / "foreign.csv").write_text("a,b\n1,2\n")
    with pytest.raises(WorkbookError, match=r"foreign\.csv is no result file"):
        store.read(tmp_path / "foreign.csv")
    with pytest.raises(WorkbookError, match="no result rows"):
        store.read(tmp_path / "missing.csv")


def test_hand_edited_row_is_refused(tmp_path):
    path = tmp_path / "01.csv"
    store.start(path)
    store.append(path, ROW)
    path.write_text(path.read_text().replace("8.27", "fast"))
    with pytest.raises(WorkbookError, match="'value' must be a finite number, not 'fast'"):
        store.read(path)
