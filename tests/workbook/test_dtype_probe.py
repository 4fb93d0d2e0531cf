"""The probe of stock TVM's data types: for real with two of them, and with a child that dies."""

from __future__ import annotations

import pandas as pd
import pytest

from workbook import dtype_probe, dtype_stages, paths
from workbook.dtype_probe import Outcome

DYING = """
import json, os, signal, sys
from workbook.dtype_stages import STAGES
for index, stage in enumerate(STAGES):
    if index < int(sys.argv[2]):
        continue
    if index == 2:
        print('{"stage": "half a li', end="", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if index == 4:
        raise SystemExit("no such thing")
    print(json.dumps({"stage": stage, "error": "", "file": ""}), flush=True)
"""


@pytest.fixture(scope="module")
def found():
    return dtype_probe.probe(("int8", "int4"))


def test_every_stage_is_tried_with_every_type(found):
    assert [o.dtype for o in found] == ["int8"] * len(dtype_stages.STAGES) + ["int4"] * len(
        dtype_stages.STAGES
    )
    assert [o.stage for o in found] == 2 * list(dtype_stages.STAGES)


def test_int8_passes_and_int4_fails_first_in_quantize(found):
    eight, four = dtype_probe.first_failures(found)
    assert (eight["first stage that fails"], eight["error"]) == ("none", "")
    assert four["first stage that fails"] == "R.quantize"
    assert "Unsupported output datatype" in four["error"]
    assert four["raised in"] == "src/relax/op/tensor/qdq.cc"


def test_int4_is_written_beyond_its_tensor_and_comes_back_wrong(found):
    errors = {o.stage: o.error for o in found if o.dtype == "int4"}
    assert errors["bytes written"] == (
        "WrongResult: a tensor has 500 bytes, the kernel writes 1000"
    )
    assert "come back wrong" in errors["copy out"]
    assert not any(o.error for o in found if o.dtype == "int8")


def test_a_child_that_dies_is_a_result(tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    outcomes = dtype_probe.probe(("int8",), module="dying")
    assert [o.stage for o in outcomes] == list(dtype_stages.STAGES)
    assert outcomes[2].error == "the process died: SIGSEGV"
    assert outcomes[4].error == "the process ended: no such thing"
    assert [bool(o.error) for o in outcomes].count(True) == 2


def test_a_child_that_hangs_is_a_result(tmp_path, monkeypatch):
    (tmp_path / "hanging.py").write_text("import time\ntime.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(dtype_probe, "TIMEOUT_S", 0.2)
    outcomes = dtype_probe.probe(("int8",), module="hanging")
    assert {o.error for o in outcomes} == {"no end within 0.2 s"}


def test_tables_put_the_study_beside_and_join_equal_messages():
    outcomes = [
        Outcome("int8", "TE", "", ""),
        Outcome("int4", "TE", "Error: int4 has 4 bits", "src/a.cc"),
        Outcome("int2", "TE", "Error: int2 has 2 bits", "src/a.cc"),
        Outcome("uint4", "TE", "Error: nothing alike", "src/a.cc"),
    ]
    published = pd.read_csv(paths.published_dir() / "data_types.csv")
    lines = {line["type"]: line for line in dtype_probe.first_failures(outcomes, published)}
    assert lines["int8"]["in the study (Relay)"] == "works"
    assert lines["int4"]["in the study (Relay)"] == 'fails: "unknown data type"'
    assert lines["uint4"]["in the study (Relay)"] == "not tried"
    joined = dtype_probe.all_failures(outcomes)
    assert [line["types"] for line in joined] == ["int4, int2", "uint4"]
    assert dtype_probe.stage_table(outcomes)[1] == {"type": "int4", "TE": "fails"}


def test_the_file_of_an_error_is_the_deepest_one_known():
    def inner():
        raise ValueError("x")

    with pytest.raises(ValueError) as caught:
        inner()
    assert dtype_stages.origin(caught.value).endswith("test_dtype_probe.py")
