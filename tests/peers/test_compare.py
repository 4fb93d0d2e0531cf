"""Goals and verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib import pyplot

from relaxquant.measure import Ratio, Timings
from relaxquant.measure.intervals import wilson
from workbook.peers import compare, figure, plan
from workbook.peers.compare import DIRECT, INCONCLUSIVE, MET, MISSED
from workbook.peers.job import Job
from workbook.peers.scenario import Found


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.70, 0.79, MET),
        (0.70, 0.80, MET),
        (0.79, 0.81, INCONCLUSIVE),
        (0.80, 0.81, INCONCLUSIVE),
        (0.81, 0.90, MISSED),
        (math.nan, math.nan, INCONCLUSIVE),
    ],
)
def test_the_interval_decides_and_not_the_median(low, high, verdict):
    assert compare.judge(Ratio(0.75, low, high, 12, 0.95), 0.80) == verdict


def test_goals_name_settings_that_the_standard_benchmark_measures():
    assert compare.targets()
    for model, batch, precision, first, second in compare.targets():
        assert batch in plan.STANDARD[model]
        assert precision in (plan.FEW_BITS if batch == 1 else ()) + plan.PRECISIONS
        assert first in ("ours", "ours direct")
        assert second in (*plan.STANDARD_PEERS, "ours direct fp32", "ours direct w8a8")


def found(*variants):
    jobs = {
        label: Job(label, peer, precision, "resnet18", schedule=schedule)
        for label, peer, precision, schedule, _ in variants
    }
    samples = {label: np.full(10, seconds) for label, *_, seconds in variants}
    return Found(jobs, Timings(samples))


BEST = [("ours fp32", "ours", "fp32", "", 8.0), ("ours int8", "ours", "w8a8", "", 5.0)]
DIRECTS = [
    ("ours fp32, direct", "ours", "fp32", DIRECT, 10.0),
    ("ours int8, direct", "ours", "w8a8", DIRECT, 5.5),
]


FEW = ("ours w4a4", "ours", "w4a4", "", 4.0)


@pytest.mark.parametrize(
    ("variants", "default", "base"),
    [([*BEST, *DIRECTS, FEW], "auto", "ours int8, direct"), ([*BEST, FEW], DIRECT, "ours int8")],
)
def test_few_bits_are_judged_against_direct_int8(variants, default, base):
    (judged,) = [c for c in compare.comparisons(found(*variants), default) if c.first == FEW[0]]
    assert judged.second == base
    assert judged.at_most == compare.targets()["resnet18", 1, "w4a4", "ours", "ours direct w8a8"]
    assert judged.verdict == MET


def test_every_precision_of_the_plan_has_its_bar():
    scene = found(*BEST, FEW)
    scene.agreement = {name: wilson(9, 10) for name in scene.jobs}
    drawn = figure.bars(scene)
    bars = [bar.get_facecolor() for bar in drawn.axes[0].patches]
    pyplot.close(drawn)
    assert len(bars) == len(set(bars)) == 3


def test_direct_is_judged_against_direct_and_best_against_best_is_not():
    result = compare.comparisons(found(*BEST, *DIRECTS), "auto")
    assert [(c.first, c.second, c.at_most, c.verdict) for c in result] == [
        ("ours int8", "ours fp32", None, ""),
        ("ours int8, direct", "ours fp32, direct", 0.5, MISSED),
    ]
    assert [c.ratio.value for c in result] == pytest.approx([0.625, 0.55])


def test_one_measurement_serves_both_where_the_default_is_direct():
    (comparison,) = compare.comparisons(found(*BEST), DIRECT)
    assert (comparison.second, comparison.at_most) == ("ours fp32", 0.5)


def test_peers_are_compared_in_their_own_precision():
    peers = [("ORT fp32", "onnxruntime", "fp32", "", 8.0), ("OV int8", "openvino", "w8a8", "", 6.0)]
    result = {c.second: c for c in compare.comparisons(found(*BEST, *peers), "auto")}
    assert (result["ORT fp32"].first, result["ORT fp32"].verdict) == ("ours fp32", MET)
    assert (result["OV int8"].first, result["OV int8"].verdict) == ("ours int8", MET)
