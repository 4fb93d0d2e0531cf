"""The explorer on a tiny network: what it measures, and that its panel follows what is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from relaxquant import measure
from tests.workbook.subjects import recording_run, small_subject
from workbook import context, explore, explore_panel, paths, store
from workbook.explore import Choice, Explorer

MODEL = "residual"


@pytest.fixture(scope="module")
def explorer():
    subject = small_subject(MODEL)
    thumbnails = np.zeros((len(subject.seen), 8, 8, 3), np.uint8)
    subject.seen = replace(subject.seen, thumbnails=thumbnails)
    return Explorer({"target": "native", "threads": 1}, load=lambda _: subject)


@pytest.fixture(scope="module")
def panel(explorer):
    return explore_panel.Panel(explorer, Choice(MODEL), models=[MODEL])


def test_what_was_found_is_kept_and_measured_again_on_request(explorer):
    first = explorer.find(Choice(MODEL))
    assert explorer.find(Choice(MODEL)) is first
    again = explorer.find(Choice(MODEL), again=True)
    assert again is not first
    assert again.library is first.library


def test_rates_are_those_of_the_layers_and_the_whole(explorer):
    found = explorer.find(Choice(MODEL, batch=4))
    counted = [record for record in found.library.kernels if record.macs]
    assert [layer.time.record for layer in found.layers] == counted
    for layer in found.layers:
        assert layer.bound.macs == 4 * layer.time.record.macs
        assert layer.rate == pytest.approx(layer.bound.macs / layer.time.seconds / 1e9)
    macs = 4 * sum(record.macs for record in counted)
    assert found.rate == pytest.approx(macs / found.milliseconds / 1e6)


def test_limits_that_a_layer_passes_are_measured_again_and_the_best_is_kept(explorer, monkeypatch):
    high = explorer.peak
    gmacs = {key: rate * 1e3 for key, rate in high.gmacs.items()}
    reads = {key: rate * 1e3 for key, rate in high.read_gbs.items()}
    high = replace(high, gmacs=gmacs, read_gbs=reads)  # beyond any layer
    low = replace(high, gmacs=dict.fromkeys(gmacs, 1e-6), read_gbs=dict.fromkeys(reads, 1e-6))
    for coming, asked in (([low, high], 2), ([low] * 9, explore.PEAKS)):
        measured = list(coming)
        monkeypatch.setattr(measure, "machine_peak", lambda *_, left=measured: left.pop(0))
        explorer = replace(explorer, _peaks=[])
        for _ in range(explore.PEAKS + 1):
            found = explorer.find(Choice(MODEL), again=True)
        assert len(coming) - len(measured) == asked
        assert any(layer.passes for layer in found.layers) == (explorer.peak == low)


def test_fp32_is_compared_with_itself_by_answers_alone(explorer):
    found = explorer.find(Choice(MODEL, "fp32"))
    assert found.timings.names == ["fp32"]
    assert found.same.value == found.right.value == 1
    assert "as fast" not in found.sentence()


def test_batch_does_not_change_the_answers(explorer):
    one, four = (explorer.find(Choice(MODEL, batch=batch)) for batch in (1, 4))
    assert one.captions == four.captions
    assert one.same == four.same


def test_rows_are_kept_with_what_the_sentence_says(explorer):
    run, rows = recording_run()
    found = explorer.find(Choice(MODEL))
    explore.keep(run, found)
    by_metric = {row["metric"]: row for row in rows}
    assert by_metric["latency"]["value"] == pytest.approx(found.milliseconds)
    assert by_metric["agreement"]["value"] == pytest.approx(100 * found.same.value)
    assert all(row["trained"] is False and row["precision"] == "w8a8" for row in rows)
    assert "(untrained)" in found.sentence()


def test_slider_changes_figure_table_and_sentence(panel):
    before = panel.rates.value, panel.kernels.value, panel.sentence.value
    panel.width.value = "w4a4"
    assert panel.explorer.find(Choice(MODEL, "w4a4")).sentence() in panel.sentence.value
    panel.width.value = "fp32"
    assert "fp32 multiply-add" in panel.kernels.value
    after = panel.rates.value, panel.kernels.value, panel.sentence.value
    assert all(old != new for old, new in zip(before, after, strict=True))
    panel.width.value = "w8a8"


def test_layer_is_shown_alone_and_stays_chosen_at_another_batch(panel):
    whole = panel.rates.value
    name, layer = panel.layer.options[2]
    panel.layer.value = layer
    assert panel.rates.value != whole
    assert panel.sentence.value.count("µs") == 1
    assert name.split(": ")[0] in panel.sentence.value
    panel.batch.value = 2
    assert panel.layer.value == layer
    panel.batch.value, panel.layer.value = 1, ""


def test_refusal_is_said_and_the_next_choice_works(panel, monkeypatch):
    wanted = panel.explorer.find(Choice(MODEL)).sentence()
    panel.schedule.options = [*panel.schedule.options, "no_such_schedule"]
    panel.schedule.value = "no_such_schedule"
    assert "no_such_schedule" in panel.status.value
    panel.schedule.value = "auto"
    assert wanted in panel.sentence.value
    assert "no_such" not in panel.status.value


def test_proof_is_read_on_request(panel):
    panel.prove.click()
    assert "in integers" in panel.proof.value
    panel.width.value = "fp32"
    assert panel.proof.value == ""
    panel.width.value = "w8a8"


def test_without_a_screen_figures_and_table_are_kept(explorer, tmp_path, monkeypatch):
    monkeypatch.setenv(paths.RUN_VARIABLE, str(tmp_path))
    run = context.Run("explore", tmp_path, {"threads": None})
    assert explore_panel.show(run, explorer, Choice(MODEL)) is None
    kept = {path.name for path in tmp_path.rglob("explore-*")}
    assert {"explore-rates.png", "explore-pictures.svg", "explore-kernels.csv"} <= kept
    assert store.read(context.rows_file(tmp_path, "explore")) == []


def test_schedules_to_choose_from_are_those_of_cpus():
    names = explore.schedules()
    assert names[0] == "auto" and "nchw_spatial_pack" in names
    assert not [name for name in names if name.startswith("cuda") or name == "reference"]
