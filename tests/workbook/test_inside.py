"""What is read from `relaxquant.debug`, by hand and on a tiny network."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot

import relaxquant as rq
from relaxquant.quantize.debug_report import Histogram
from tests.workbook.subjects import small_subject
from workbook import inside, inside_plots

EDGES = np.linspace(-4, 4, 9)  # centres at -3.5, -2.5 ... 3.5


@pytest.fixture(scope="module")
def found():
    return inside.report(small_subject(), rq.QConfig.best(nbit_weight=4, nbit_input=4), 4)


def test_values_become_the_nearest_level_or_the_last():
    counts = np.array([1, 0, 2, 3, 4, 5, 0, 6])
    spread = inside.spread("x", Histogram(counts, EDGES, 0.0, 3.0), bits=2)
    np.testing.assert_allclose(spread.levels, [0, 1, 2, 3])
    # -3.5, -1.5, -0.5 and 0.5 become 0 (a tie goes to the even one), 1.5 becomes 2, 3.5 becomes 3.
    np.testing.assert_array_equal(spread.level_counts, [1 + 2 + 3 + 4, 0, 5, 6])
    assert (spread.low, spread.high, spread.span) == (0.0, 3.0, (3.0, 3.0))


def test_symmetric_thresholds_have_a_level_fewer():
    spread = inside.spread("x", Histogram(np.ones(8), EDGES, -3.0, 3.0), bits=2)
    np.testing.assert_allclose(spread.levels, [-3, 0, 3])
    assert spread.level_counts.sum() == 8


def test_a_scale_a_channel_gives_thresholds_but_no_levels():
    histogram = Histogram(np.ones(8), EDGES, np.array([-1.0, -2, -3]), np.array([1.0, 2, 3]))
    spread = inside.spread("w", histogram, bits=4)
    assert (spread.low, spread.high, spread.span) == (-2.0, 2.0, (1.0, 3.0))
    assert len(spread.levels) == 0


def test_worst_layers_come_first(found):
    lines = inside.layer_lines(found, count=3)
    own = [line["own signal to noise (dB)"] for line in lines]
    assert own == sorted(own) and own[0] == found.worst.own_sqnr
    assert lines[0]["tensor"] == found.worst.tensor


def test_first_and_last_layer_are_among_the_histograms(found):
    weights, activations = inside.spreads(found, count=3)
    assert [w.name for w in weights][::2] == [found.weights[0].layer, found.weights[-1].layer]
    quantized = [layer.tensor for layer in found.layers if layer.bits]
    assert [a.name for a in activations][::2] == [quantized[0], quantized[-1]]
    for activation in activations:
        assert activation.level_counts.sum() == activation.counts.sum() > 0


def test_the_ranking_has_every_layer_and_its_bars():
    config = rq.QConfig.best(nbit_weight=2)
    ranked = inside.ranking(small_subject(), config, images=4)
    lines = inside.ranking_lines(ranked, count=3)
    costs = [line["divergence of the answers (nats)"] for line in lines]
    assert costs == sorted(costs, reverse=True) and len(ranked) == 5
    assert {line["bits"] for line in lines} == {"w2a8"}
    shares = [line["share of the weights (%)"] for line in inside.ranking_lines(ranked, count=5)]
    assert sum(shares) == pytest.approx(100)
    figure = inside_plots.sensitivity(ranked)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert sorted(heights) == sorted(row.kl for row in ranked)
    pyplot.close(figure)


def test_figures_hold_every_layer_and_every_histogram(found):
    figure = inside_plots.noise_by_layer({"w4a4": found})
    total, own = figure.axes[0].get_lines()
    np.testing.assert_array_equal(total.get_ydata(), [layer.sqnr for layer in found.layers])
    np.testing.assert_array_equal(own.get_ydata(), [layer.own_sqnr for layer in found.layers])
    pyplot.close(figure)
    figure = inside_plots.histograms(*inside.spreads(found, count=2))
    assert len(figure.axes) == 4
    pyplot.close(figure)
