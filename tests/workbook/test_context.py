from __future__ import annotations

import sys
from types import SimpleNamespace

import matplotlib as mpl
import pandas as pd
import pytest

import helpers as h
from workbook import context, notes, paths, store
from workbook.errors import WorkbookError

mpl.use("Agg")


@pytest.fixture
def run(tmp_path, monkeypatch):
    # Other tests of the same process may have imported TVM; what is tested here needs none.
    monkeypatch.delitem(sys.modules, "tvm", raising=False)
    for name in ("TVM_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv(paths.RUN_VARIABLE, str(tmp_path / "run"))
    with mpl.rc_context():
        yield h.start("03_toy", rounds=10, threads=1, profile="full")


def latency(run, **change):
    run.record(**{"model": "toy", "trained": True, "metric": "latency", "value": 2.0,
                  "unit": "ms", **change})  # fmt: skip


def said(run):
    return notes.read(context.notes_file(run.dir, "03_toy"))


def figure():
    from matplotlib import pyplot

    made, axes = pyplot.subplots()
    axes.bar(["a"], [1.0], color=h.colour("fp32"))
    return made


def test_run_knows_what_was_asked(run, tmp_path):
    assert run.dir == tmp_path / "run"
    assert (run.profile, run.quick, run.threads) == ("full", False, 1)
    assert run.pick(quick=1, full=2) == 2
    assert run.parameters["rounds"] == 10


def test_row_gets_notebook_and_machine(run):
    latency(run)
    (row,) = run.rows()
    assert row["notebook"] == "03_toy"
    assert row["machine"] == run.machine
    assert run.rows(metric="top1") == []
    assert store.read(run.dir / "rows" / "03_toy.csv") == [row]


def test_starting_again_empties_the_rows(run):
    latency(run)
    run.headline("Done.")
    again = h.start("03_toy", threads=1)
    assert again.rows() == []
    assert said(again) == notes.empty()


def test_figure_is_kept_with_machine_n_and_protocol(run):
    run.figure(figure(), "bars", caption="What it is.", n=10)
    folder = run.dir / "figures"
    assert (folder / "03_toy-bars.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "03_toy-bars.svg").read_text()
    (kept,) = said(run)["figures"]
    expected = f"What it is. {run.machine}; n = 10; median of 10 interleaved rounds, 1 thread."
    assert kept["caption"] == expected


def test_figure_of_the_same_name_takes_the_place(run):
    run.figure(figure(), "bars", caption="First")
    run.figure(figure(), "bars", caption="Second", protocol="")
    (kept,) = said(run)["figures"]
    assert kept["caption"] == f"Second. {run.machine}."


def test_svg_is_the_same_every_time(run):
    run.figure(figure(), "one", caption="c")
    run.figure(figure(), "two", caption="c")
    one, two = ((run.dir / "figures" / f"03_toy-{n}.svg").read_bytes() for n in ("one", "two"))
    assert one == two


def test_no_figure_and_no_file_name_are_refused(run):
    with pytest.raises(WorkbookError, match=r"pass ax\.figure"):
        run.figure("no", "bars", caption="c")
    with pytest.raises(WorkbookError, match="makes no file name"):
        run.figure(figure(), "../bars", caption="c")


def test_table_is_shown_and_kept(run, capsys):
    latency(run, value=1.23456)
    run.table(run.rows(), "Time of the toy")
    assert "latency (ms)" in capsys.readouterr().out
    kept = pd.read_csv(run.dir / "tables" / "03_toy-time-of-the-toy.csv")
    assert kept["latency (ms)"][0] == 1.23456


def test_empty_table_is_refused(run):
    with pytest.raises(WorkbookError, match="has no rows"):
        run.table([], "Nothing")


def test_headline_is_filled_and_flags_rows(run):
    latency(run)
    run.headline("It is {x:.1f} times faster.", metrics=["latency"], x=2.04)
    (kept,) = said(run)["headlines"]
    assert kept["text"] == "It is 2.0 times faster."
    assert kept["metrics"] == ["latency"]
    assert kept["label"] == ""


def test_captions_of_untrained_weights_say_so(run):
    random, trained = SimpleNamespace(trained=False), SimpleNamespace(trained=True)
    for i, (of, words) in enumerate([
        (random, "Time (untrained weights)"), (trained, "Time"), ((), "Time"),
        ([random, trained], "Time (partly untrained weights)"),
    ]):  # fmt: skip
        run.table([{"x": 1}], "Time", of=of, name=f"t{i}")
        run.figure(figure(), f"f{i}", caption="Time", of=of)
        assert said(run)["tables"][i]["caption"] == words
        assert said(run)["figures"][i]["caption"].startswith(f"{words}. ")


def test_headline_on_untrained_weights_says_so(run):
    latency(run, trained=False)
    run.headline("Fast.", metrics=["latency"])
    latency(run, model="other")
    run.headline("Faster.", metrics=["latency"])
    assert [h["label"] for h in said(run)["headlines"]] == ["untrained", "partly untrained"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("{x}", {}, "'x' has no value"),
        ("{speed}", {"sped": 1, "speed": 1}, "no field 'sped': did you mean 'speed'"),
        ("{x:.2f}", {"x": "fast"}, "does not take"),
        ("t", {"metrics": ["latncy"]}, "no row of metric 'latncy': did you mean 'latency'"),
        ("t", {"metrics": ["latency"], "where": {"batch": 8}}, r"where \{'batch': 8\}"),
        ("t", {"metrics": ["latency"], "where": {"btach": 8}}, "did you mean 'batch'"),
    ],
)
def test_bad_headline_is_refused(run, text, options, message):
    latency(run)
    with pytest.raises(WorkbookError, match=message):
        run.headline(text, **options)


def test_without_a_runner_results_go_to_the_interactive_folder(run, monkeypatch, tmp_path):
    monkeypatch.delenv(paths.RUN_VARIABLE)
    assert h.start("03_toy", threads=1).dir == tmp_path / "outputs" / "interactive"


def test_wrong_name_and_profile_are_refused(run, monkeypatch):
    with pytest.raises(WorkbookError, match="unknown profile 'fast'"):
        h.start("03_toy", profile="fast")
    with pytest.raises(WorkbookError, match="is no notebook name"):
        h.start("../03")
    monkeypatch.setenv(paths.NOTEBOOK_VARIABLE, "04_other")
    with pytest.raises(WorkbookError, match="run as '04_other' but starts as '03_toy'"):
        h.start("03_toy")


def test_unknown_colour_is_refused():
    with pytest.raises(WorkbookError, match="did you mean 'int8 graph'"):
        h.colour("int8 grph")


def test_published_table_needs_its_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "published_dir", lambda: tmp_path)
    (tmp_path / "table1.csv").write_text("value,source\n13.29,Guo 2023\n")
    (tmp_path / "table2.csv").write_text("value,source\n13.29,\n")
    assert list(h.published("table1")["value"]) == [13.29]
    with pytest.raises(WorkbookError, match="needs its source"):
        h.published("table2")
    with pytest.raises(WorkbookError, match="no published table 'tabel1': did you mean 'table1'"):
        h.published("tabel1")


def test_importing_helpers_imports_no_compiler():
    import subprocess

    code = "import sys, helpers; sys.exit(bool({'tvm', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.root()).returncode == 0
