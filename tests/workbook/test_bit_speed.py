"""Time and bytes by width, on a tiny network; the fronts by hand."""

from __future__ import annotations

from functools import partial

import pytest
from matplotlib import pyplot

from relaxquant import measure
from tests.workbook.subjects import recording_run, small_subject
from workbook import bit_plots, bit_speed, bit_sweep, pareto, store
from workbook.widths import Width


@pytest.fixture(scope="module")
def subject():
    return small_subject()


@pytest.fixture(scope="module")
def timed(subject):
    run, rows = recording_run()
    quick = partial(measure.interleaved, warmup=0, min_sample_s=0)
    noise = subject.seen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bit_speed.measure, "interleaved", quick)
        patch.setattr(bit_speed.experiment.zoo, "evaluation_images", lambda *_: noise)
        found = bit_speed.measured(run, subject, [Width(4, 8)], rounds=10, seed=0, images=4)
    return *found, rows


def test_8_bits_are_always_timed_both_ways(timed):
    speeds, table, _ = timed
    assert list(speeds.libraries) == ["fp32", "w8a8 direct", "w8a8", "w4a8"]
    assert [line["precision"] for line in table] == list(speeds.libraries)
    assert speeds.timings.rounds == 10


def test_rows_are_the_stores(timed):
    _, _, rows = timed
    for row in rows:
        store.check_row({"notebook": "n", "machine": "m", **row})
    found = {(row["metric"], row["precision"], row["schedule"]) for row in rows}
    for metric in ("latency", "weights", "file", "agreement"):
        assert {m for m in found if m[0] == metric} == {
            (metric, "fp32", "auto"),
            (metric, "w8a8", "nchw_spatial_pack"),
            (metric, "w8a8", "auto"),
            (metric, "w4a8", "auto"),
        }
    assert ("speedup", "w8a8", "nchw_spatial_pack") not in found


def test_bytes_are_those_of_the_library_and_of_its_file(timed):
    speeds, table, _ = timed
    for line in table:
        name = line["precision"]
        weights = speeds.libraries[name].memory.weight_bytes
        assert line["weights (MiB)"] == weights / bit_speed.MIB
        assert line["exported file (MiB)"] * bit_speed.MIB > weights
    assert table[1]["of w8a8 direct"] == 1


def test_every_layer_has_its_kernel_at_every_width(timed):
    speeds, _, _ = timed
    lines = bit_speed.kernel_lines(speeds)
    layers = {r.shape for r in speeds.libraries["w8a8"].kernels if r.macs}
    assert {line["layer"] for line in lines} == layers
    assert all(set(line) == {"layer", "w8a8", "w4a8"} for line in lines)
    shares = bit_speed.instruction_lines(speeds)
    for name in speeds.libraries:
        own = [s["share of the multiply-accumulates (%)"] for s in shares if s["precision"] == name]
        assert sum(own) == pytest.approx(100)


def test_the_fronts_hold_what_no_other_point_beats():
    points = [
        {"name": "slow and good", "ms": 4.0, "top1": 90.0},
        {"name": "beaten in both", "ms": 3.0, "top1": 70.0},
        {"name": "middle", "ms": 2.0, "top1": 80.0},
        {"name": "as quick, worse", "ms": 2.0, "top1": 60.0},
        {"name": "as good, slower", "ms": 5.0, "top1": 90.0},
        {"name": "quick and bad", "ms": 1.0, "top1": 10.0},
    ]
    best = [point["name"] for point in pareto.front(points, "ms", "top1")]
    assert best == ["quick and bad", "middle", "slow and good"]


def test_points_join_time_and_the_presets_accuracy(timed, subject):
    speeds, _, _ = timed
    run, _ = recording_run()
    wanted = bit_sweep.settings([Width(8, 8)], ["min_max"], ["per_tensor"])
    points = pareto.points(speeds, bit_sweep.sweep(run, subject, wanted))
    assert [point["precision"] for point in points] == ["fp32", "w8a8"]
    preset = subject.logits(Width(8, 8).config()).argmax(1) == subject.labels
    assert points[1][pareto.TOP1] == pytest.approx(100 * preset.mean())
    figure = bit_plots.fronts(points)
    assert {text.get_text() for text in figure.axes[0].texts} == {"fp32", "w8a8"}
    pyplot.close(figure)
    assert [line["precision"] for line in pareto.marked(points)] == ["fp32", "w8a8"]
