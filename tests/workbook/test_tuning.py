"""The tuning notebook's lines and figure, from curves made by hand."""

from __future__ import annotations

import pytest
from matplotlib import pyplot

import relaxquant as rq
from relaxquant.tune.study import OURS, STOCK, Curve
from tests.networks import make
from workbook import tuning
from workbook.errors import WorkbookError

CURVES = {
    ("fp32", STOCK): Curve([1.0, 2.0, 3.0], [9.0, None, 3.0]),
    ("fp32", OURS): Curve([1.0, 2.0, 3.0], [4.0, 2.0, 2.5]),
    ("int8", STOCK): Curve([1.0, 2.0], [None, None]),
}


def test_lines_have_the_best_after_so_many_trials():
    first, second, third = tuning.curve_lines(CURVES, (1, 3))
    assert first == {
        "precision": "fp32", "search": STOCK, "best of 1 (ms)": 9.0, "best of 3 (ms)": 3.0,
        "trials": 3, "failed": 1, "tuning (s)": 3.0,
    }  # fmt: skip
    assert second["best of 3 (ms)"] == 2.0
    assert (third["best of 3 (ms)"], third["failed"]) == (None, 2)


def test_the_figure_draws_what_was_found_and_our_schedules():
    figure = tuning.curves_figure(CURVES, {"fp32": {"direct": 1.5}})
    left, right = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in left.lines}
    assert drawn == {STOCK: [9.0, 3.0, 3.0], OURS: [4.0, 2.0, 2.0], "direct": [1.5, 1.5]}
    assert not right.lines, "a search that found nothing has no curve"
    pyplot.close(figure)


def test_the_share_that_is_searched_names_the_others():
    network, x = make("residual")
    share, others = tuning.searched_share(rq.frontends.from_torch(network, x))
    assert others == "1 layer (an image)"
    assert share == pytest.approx(229696 / 831808)  # the 7x7 layer has the rest
    network, x = make("inverted_residual")
    _, others = tuning.searched_share(rq.frontends.from_torch(network, x))
    assert "(depthwise)" in others


def test_the_layer_is_the_one_named_or_the_smallest_3x3():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    assert tuning.pick_layer(module).shape == "16x8x8 -> 32x4x4, 3x3/2"
    shape = "32x4x4 -> 32x4x4, 3x3"
    assert tuning.pick_layer(module, shape).shape == shape
    with pytest.raises(WorkbookError, match="no layer to tune is called"):
        tuning.pick_layer(module, "32x4x4 -> 32x4x4, 3x4")
