"""Figures shared by notebooks: the data that is drawn, not the pixels."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot

from relaxquant.executors.library import LayerTime
from relaxquant.lower import KernelRecord
from relaxquant.measure import Timings
from workbook import plots


def layer(name, macs, seconds, shape="p -> y, 3x3"):
    record = KernelRecord(name, name, "conv2d", shape, "", "", "", macs=macs)
    return LayerTime(record, seconds)


def test_layer_rates_match_layers_by_what_they_compute_whatever_their_names_and_order():
    profiles = {
        "a": [
            layer("lv", 10**9, 1.0),
            layer("lv2", 10**9, 0.5),
            layer("lv4", 2 * 10**9, 1.0, "q -> z, 1x1"),
            layer("pool", 0, 1.0),
            layer("lv6", 10**9, 1.0, "512x1x1 -> 10"),
        ],
        "b": [
            layer("lv41", 2 * 10**9, 0.5, "q -> z, 1x1"),
            layer("lv1", 10**9, 0.5),
            layer("lv21", 10**9, 0.25),
            layer("lv6", 10**9, 0.5, "512 -> 10"),
        ],
    }
    figure = plots.layer_rates(profiles, {"a": "fp32", "b": "int8 graph"}, batch=3)
    axes = figure.axes[0]
    heights = [[bar.get_height() for bar in group] for group in axes.containers]
    np.testing.assert_allclose(heights, [[3, 6, 6, 3], [6, 12, 12, 6]])
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert labels == ["p, 3x3", "p, 3x3", "q, 1x1", "512x1x1, dense"]
    pyplot.close(figure)


def test_share_of_time_ranks_operators_and_sums_calls():
    profile = [layer("a", 0, 3.0), layer("b", 0, 1.0)]
    figure = plots.share_of_time(profile, "fp32")
    widths = [bar.get_width() for bar in figure.axes[0].containers[0]]
    np.testing.assert_allclose(widths, [100.0])  # both are conv2d
    pyplot.close(figure)


def test_time_stands_beside_the_shares_that_there_are():
    timings = Timings({"a": np.array([1.0, 2.0, 3.0]), "b": np.array([0.1, 0.1, 0.1])})
    shares = {
        "right (%)": {"b": (90.0, 80.0, 95.0)},
        "integer (%)": {"a": (0, 0, 0), "b": (100,) * 3},
    }
    figure = plots.time_and_shares(timings, {"a": "fp32", "b": "int8 graph"}, shares)
    time, right, integer = figure.axes
    bars = {
        axes: [bar.get_width() for bar in axes.patches if bar.get_height() > 0]
        for axes in figure.axes
    }
    np.testing.assert_allclose(bars[time], [2000, 100])
    assert (bars[right], bars[integer]) == ([90], [0, 100])
    assert [text.get_text() for text in integer.texts] == ["0 %", "100 %"]
    assert [axes.get_xlabel() for axes in (right, integer)] == list(shares)
    (whisker,) = right.collections[0].get_segments()
    np.testing.assert_allclose(whisker[:, 0], [80, 95])
    pyplot.close(figure)
