"""Tables of the batch notebook: from made-up figures, and once from a real network."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot

import relaxquant as rq
from relaxquant import measure
from relaxquant.inspect import LayerBound
from relaxquant.measure import Peak, PeakMemory, Timings, peak
from tests.networks import make
from workbook import batch_plots, batches, fresh, paths, store

MIB = batches.MIB
PEAK = Peak("some", (1,), {(peak.FP32, 1): 50.0, ("dot", 1): 200.0}, {1: 10.0})


@pytest.fixture
def published() -> pd.DataFrame:
    return pd.read_csv(paths.published_dir() / "table3.csv")


def made(size: int, fp32_s: float, int8_s: float) -> batches.Batch:
    """A batch with round figures: 40 and 10 MiB of weights, 8 and 2 MiB of activations."""
    used = {
        "fp32": SimpleNamespace(weight_bytes=40 * MIB, activations=8 * MIB),
        "int8": SimpleNamespace(weight_bytes=10 * MIB, activations=2 * MIB),
    }
    peaks = {"fp32": 160 * MIB, "int8": 120 * MIB}
    return batches.Batch(
        size=size,
        libraries={p: SimpleNamespace(memory=memory) for p, memory in used.items()},
        timings=Timings({"fp32": np.full(10, fp32_s), "int8": np.full(10, int8_s)}),
        memory={p: PeakMemory(90 * MIB, value, value, "VmHWM") for p, value in peaks.items()},
        empty=100 * MIB,
        speedup="",
    )


def bound(macs: int, moved: int, fits: bool) -> LayerBound:
    return LayerBound("l", "s", "fp32", macs, moved, macs / 50e9, moved / 10e9, fits)


def test_lines_by_hand():
    fp32, int8 = made(8, 0.4, 0.1).lines()
    assert (fp32["batch"], fp32["precision"], int8["precision"]) == (8, "fp32", "w8a8")
    assert fp32["batch (ms)"] == pytest.approx(400)
    assert fp32["image (ms)"] == pytest.approx(50)
    assert int8["images/s"] == pytest.approx(80)
    assert (fp32["peak memory (MiB)"], fp32["of it the network (MiB)"]) == (160, 60)
    assert (int8["weights (MiB)"], int8["planned activations (MiB)"]) == (10, 2)


def test_published_times_and_the_rates_they_need(published):
    lines = batches.published_lines(published, 2 * 10**9, PEAK)
    by_key = {(line["batch"], line["precision"]): line for line in lines}
    assert len(lines) == 6
    fp32 = by_key[256, "fp32"]
    assert fp32["GMAC/s if for one image"] == pytest.approx(2 / 22.15e-3)
    assert fp32["GMAC/s if for the batch"] == pytest.approx(256 * 2 / 22.15e-3)
    assert fp32["batch, times those 8 cores"] == pytest.approx(256 * 2 / 22.15e-3 / 400)
    assert by_key[1, "w8a8"]["8 cores of this machine (GMAC/s)"] == 1600


def test_ratios_stand_beside_the_published_ones(published):
    lines = batches.ratio_lines(published, [made(1, 0.4, 0.1), made(8, 0.4, 0.1)])
    assert [line["batch"] for line in lines] == [1, 8, 64, 256]
    first, second, third = lines[:3]
    assert first["published, time"] == pytest.approx(8.27 / 13.29)
    assert first["ours, time"] == pytest.approx(0.25)
    assert first["ours, memory"] == pytest.approx(120 / 160)
    assert first["ours, memory of the network"] == pytest.approx(20 / 60)
    assert first["ours, weights"] == second["ours, planned activations"] == pytest.approx(0.25)
    assert "published, time" not in second
    assert "ours, time" not in third


def test_where_memory_takes_over():
    compute, memory = bound(10**9, 10**6, False), bound(10**6, 10**9, False)
    held = bound(10**6, 10**9, True)
    found = {
        1: [batches.Bound(1, "fp32", [compute, held])],
        8: [batches.Bound(8, "fp32", [compute, memory])],
    }
    assert batches.turning_point(found, "fp32") == "from batch 8 on (1 layers, 83 % of the limit)"
    assert batches.turning_point({1: found[1]}, "fp32") == "at no batch size up to 1"
    assert found[8][0].limit_ms == pytest.approx(20 + 100)
    (line,) = batches.bound_lines(found, [made(8, 0.24, 0.1)])
    assert line["reached (%)"] == pytest.approx(50)
    assert (line["layers beyond the cache"], line["layers bound by memory"]) == (2, 1)


def test_limits_are_recorded_and_shown():
    rows = []
    table = batches.limits(SimpleNamespace(record=lambda **row: rows.append(row)), PEAK)
    assert [line["instructions"] for line in table] == [peak.FP32, "dot"]
    assert table[1]["MACs a byte at balance"] == pytest.approx(20)
    assert [row["value"] for row in rows] == [50, 200, 10]
    for row in rows:
        store.check_row({"notebook": "n", "machine": "m", **row})


def test_the_figure_holds_times_limits_and_all_of_the_memory():
    results = [made(1, 0.4, 0.1), made(8, 2.0, 0.5)]
    found = {
        b.size: [batches.Bound(b.size, p, [bound(10**9, 1, True)]) for p in ("fp32", "int8")]
        for b in results
    }
    figure = batch_plots.time_and_memory(results, found)
    times, memory = figure.axes
    curves = {line.get_label(): line.get_ydata() for line in times.get_lines()}
    np.testing.assert_allclose(curves["fp32, roofline"], [20, 20 / 8])
    heights = [[bar.get_height() for bar in group] for group in memory.containers]
    np.testing.assert_allclose(np.sum(heights, axis=0), [60, 20, 60, 20])
    pyplot.close(figure)


def test_a_real_network_is_timed_checked_and_weighed(monkeypatch):
    quick = partial(measure.interleaved, warmup=0, min_sample_s=0)
    monkeypatch.setattr(batches.measure, "interleaved", quick)
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x, dynamic_batch=True)
    modules = {
        "fp32": module,
        "int8": rq.quantize(module, rq.QConfig.best(), calibration=[x.numpy()]),
    }
    rows = []
    net = SimpleNamespace(
        name="residual", weights="random", trained=False,
        example_input=lambda size, seed: torch.randn(
            size, 3, 32, 32, generator=torch.manual_seed(seed)
        ),
    )  # fmt: skip
    run = SimpleNamespace(record=lambda **row: rows.append(row))
    found = batches.measured(run, net, modules, 3, {"threads": 1}, 10, 0, batches.empty_process())
    assert set(found.timings.names) == {"fp32", "int8"}
    kept = {(row["metric"], row["precision"]) for row in rows}
    wanted = ("latency", "throughput", "peak_memory", "network_memory", "weights", "activations")
    assert kept == {(m, p) for m in wanted for p in ("fp32", "w8a8")} | {("speedup", "w8a8")}
    memory = found.memory["fp32"]
    assert memory.peak_bytes > found.libraries["fp32"].memory.activations
    for row in rows:
        store.check_row({"notebook": "n", "machine": "m", **row})


def test_an_image_that_depends_on_its_place_is_refused():
    def by_place(x):
        return x + np.arange(len(x))[:, None]

    x = np.zeros((2, 3), np.float32)
    with pytest.raises(AssertionError):
        batches._same_for_every_image(x, {"v": partial(by_place, x)}, "v", by_place(x))


def test_fresh_runs_import_no_notebook_code():
    assert fresh.load.__module__ == "workbook.fresh"
    assert not {"np", "pd", "rq"} & set(vars(fresh))
