"""One layer searched in two ways, for the notebook that compares them."""

from __future__ import annotations

import pytest

import relaxquant as rq
from relaxquant.lower import ConvLayer
from relaxquant.tune import metaschedule
from relaxquant.tune.study import DIRECT, OURS, RULES, STOCK, Curve, LayerStudy
from tests.kernels.harness import conv_layer


def test_a_curve_is_the_best_so_far():
    curve = Curve([1.0, 2.0, 3.0, 4.0], [None, 5.0, 6.0, 4.0])
    assert [curve.best_after(n) for n in (1, 2, 3, 4)] == [None, 5.0, 5.0, 4.0]
    assert curve.steps() == [(2.0, 5.0), (4.0, 4.0)]


def test_both_searches_give_kernels_beside_ours(tmp_path, monkeypatch):
    """fp32, where TVM's own rules need no intrinsic of the CPU."""
    monkeypatch.setattr(metaschedule, "POPULATION", 8)
    monkeypatch.setattr(metaschedule, "GENERATIONS", 1)
    layer = conv_layer(channels=16, size=(4, 4), dtype="float32", out_dtype="float32")
    given = ConvLayer("layer", "shape", layer.spec, layer.weights)
    study = LayerStudy(given, "native", 1, tmp_path)
    curves = {name: study.search(name, 2) for name in (OURS, STOCK)}
    assert all(len(curve.ms) == 2 for curve in curves.values())
    assert all(curve.best_after(2) for curve in curves.values())
    runners = study.runners()
    assert set(runners) == {DIRECT, RULES, OURS, STOCK}
    for run in runners.values():
        run()
    assert set(study.ours_ms()) == {DIRECT, RULES}
    again = LayerStudy(given, "native", 1, tmp_path).search(STOCK, 2)
    assert again == curves[STOCK], "the trials are kept"


def test_a_layer_that_is_not_searched_is_one_error(tmp_path):
    layer = conv_layer(channels=32, out_channels=32, groups=32)
    given = ConvLayer("layer", "32x9x9 -> 32x7x7", layer.spec, layer.weights)
    with pytest.raises(rq.InputError, match="32x9x9 -> 32x7x7 is no layer that MetaSchedule"):
        LayerStudy(given, "native", 1, tmp_path)
