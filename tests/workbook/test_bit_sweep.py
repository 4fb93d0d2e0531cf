"""The accuracy sweep: which settings there are, and what is recorded of them."""

from __future__ import annotations

import pytest
from matplotlib import pyplot

import relaxquant as rq
from tests.workbook.subjects import recording_run, small_subject
from workbook import bit_plots, bit_sweep, store
from workbook.widths import Width

EIGHT = Width(8, 8)


@pytest.fixture(scope="module")
def swept():
    run, rows = recording_run()
    wanted = bit_sweep.settings([EIGHT], ["min_max"], ["per_channel", "per_tensor"])
    return bit_sweep.sweep(run, small_subject(), wanted), rows


def test_every_setting_is_there_once():
    wanted = bit_sweep.settings(
        [EIGHT, Width(4, 8)], ["min_max", "percentile"], ["per_channel", "per_tensor"]
    )
    configs = [s.config for s in wanted]
    assert len(set(configs)) == len(configs)
    assert configs[:2] == [None, rq.QConfig.relay_default()]
    assert [s.calibrator for s in wanted].count(bit_sweep.PRESET) == 2
    # Nothing differs but what a setting is called by.
    for setting in wanted[2:]:
        if setting.calibrator != bit_sweep.PRESET:
            assert setting.config.calibrate_mode == setting.calibrator
            assert setting.config.weight_granularity == setting.granularity


def test_only_the_swept_widths_go_by_every_calibrator():
    wanted = bit_sweep.settings(
        [EIGHT, Width(4, 8)], ["min_max"], ["per_channel", "per_tensor"], [EIGHT]
    )
    named = [(s.precision, s.calibrator) for s in wanted[2:]]
    assert named == [("w8a8", "preset"), ("w8a8", "min_max"), ("w8a8", "min_max"),
                     ("w4a8", "preset")]  # fmt: skip


def test_rows_are_the_stores_and_their_metrics_differ(swept):
    _, rows = swept
    for row in rows:
        store.check_row({"notebook": "n", "machine": "m", **row})
    top1 = {row["metric"] for row in rows if row["precision"] == "w8a8"}
    assert {"top1", "top1_difference", "top1, relay's defaults, per_tensor"} <= top1
    assert {"top1, min_max, per_channel", "top1, min_max, per_tensor"} <= top1
    keys = [(row["metric"], row["precision"]) for row in rows]
    assert len(set(keys)) == len(keys)


def test_fp32_is_what_it_is_compared_with(swept):
    results, _ = swept
    fp32 = results[0]
    assert fp32.setting.config is None
    # The labels are fp32's own answers.
    assert (fp32.top1.value, fp32.change.points) == (1.0, 0.0)
    for result in results[1:]:
        assert result.change.points == pytest.approx(100 * (result.top1.value - 1))


def test_the_figure_has_a_point_for_each_result(swept):
    results, _ = swept
    figure = bit_plots.accuracy(results)
    points = sum(len(c.lines[0].get_xdata()) for c in figure.axes[0].containers)
    assert points == len(results) - 1  # fp32 is a line
    pyplot.close(figure)


def test_without_labels_it_is_no_accuracy():
    run, rows = recording_run()
    bit_sweep.sweep(run, small_subject(labelled=False), [bit_sweep.preset(EIGHT)])
    assert {row["metric"] for row in rows} == {"agreement", "agreement_difference"}
