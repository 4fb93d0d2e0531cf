"""Figures shared by notebooks: the data that is drawn, not the pixels."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot

from relaxquant.executors.library import LayerTime
from relaxquant.lower import KernelRecord
from workbook import plots


def layer(name, macs, seconds):
    record = KernelRecord(name, name, "conv2d", f"{name} -> y, 3x3", "", "", "", macs=macs)
    return LayerTime(record, seconds)


def test_layer_rates_match_layers_by_name_whatever_their_order():
    profiles = {
        "a": [layer("p", 10**9, 1.0), layer("q", 2 * 10**9, 1.0), layer("pool", 0, 1.0)],
        "b": [layer("q", 2 * 10**9, 0.5), layer("p", 10**9, 0.5)],
    }
    figure = plots.layer_rates(profiles, {"a": "fp32", "b": "int8 graph"}, batch=3)
    axes = figure.axes[0]
    heights = [[bar.get_height() for bar in group] for group in axes.containers]
    np.testing.assert_allclose(heights, [[3, 6], [6, 12]])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["p, 3x3", "q, 3x3"]
    pyplot.close(figure)


def test_share_of_time_ranks_operators_and_sums_calls():
    profile = [layer("a", 0, 3.0), layer("b", 0, 1.0)]
    figure = plots.share_of_time(profile, "fp32")
    widths = [bar.get_width() for bar in figure.axes[0].containers[0]]
    np.testing.assert_allclose(widths, [100.0])  # both are conv2d
    pyplot.close(figure)
