"""Tables of the schedule notebook, from times made up here."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from relaxquant.errors import InputError
from relaxquant.inspect import LayerBound
from relaxquant.kernels.registry import SCHEDULES, layout_of
from relaxquant.kernels.tuned import Choice, Setting, Tuned
from relaxquant.measure import Peak, Timings, peak
from tests.workbook.test_plots import layer
from workbook import paths, schedule_plots
from workbook import schedules as table

PEAK = Peak("some", (1,), {(peak.FP32, 1): 50.0, ("dot", 1): 200.0}, {1: 10.0})


def timed(**seconds: float) -> Timings:
    """Ten rounds of a machine whose speed wanders, the same for all variants of a round."""
    drift = np.linspace(1, 1.5, 10)
    return Timings({name.replace("__", " "): value * drift for name, value in seconds.items()})


@pytest.fixture
def published() -> pd.DataFrame:
    return pd.read_csv(paths.published_dir() / "table2.csv")


def test_variants_are_the_table_of_schedules():
    found = table.variants()
    pairs = {(v.schedule, v.precision) for v in found if v.schedule != "auto"}
    # Those for GPUs are no choice on a CPU: asked for there, each layer would go by the rules.
    wanted = [r for r in SCHEDULES if r.name != "reference" and not r.name.startswith("cuda")]
    rows = {(row.name, p) for row in wanted for p in ("fp32", "int8") if p in row.precisions}
    assert pairs == rows
    assert found[0].name == table.BASE
    assert [v.name for v in found[-2:]] == ["auto fp32", "auto int8"]
    assert all(v.layout == layout_of(v.schedule) for v in found)


def test_some_variants_with_the_one_that_all_are_compared_with():
    names = [v.name for v in table.variants(["nchw_simd"])]
    assert names[:3] == [table.BASE, "nchw_spatial_pack int8", "nchw_simd int8"]
    with pytest.raises(InputError, match="did you mean 'nchw_simd'"):
        table.variants(["nchw_sim"])


def test_table2_by_hand(published):
    chosen = table.variants(["nchw_simd"])
    timings = timed(
        nchw_spatial_pack__fp32=0.010,
        nchw_spatial_pack__int8=0.004,
        nchw_simd__int8=0.005,
        auto__fp32=0.008,
        auto__int8=0.004,
    )
    lines = table.table2(published, chosen, timings, 10**9, PEAK, "x86-64-v3")
    first, second = lines[0], lines[1]
    assert (first["published (ms)"], first["published ideal (x)"]) == (13.29, 16)
    assert second["published, of the first"] == pytest.approx(8.27 / 13.29)
    assert second["ours, of the first"] == pytest.approx(0.4)
    assert first["ideal (x)"] == 8, "eight fp32 lanes of AVX2"
    seconds = np.median(0.010 * np.linspace(1, 1.5, 10))
    assert first["reached (x)"] == pytest.approx(1 / seconds / (50 / 8))
    assert first["reached (%)"] == pytest.approx(100 * first["reached (x)"] / 8)
    assert math.isnan(lines[-1]["ideal (x)"]), "auto is many schedules"


def test_effects_that_multiply_and_effects_that_do_not(published):
    even = timed(
        nchw_spatial_pack__fp32=0.010,
        nhwc_spatial_pack__fp32=0.020,
        nchw_spatial_pack__int8=0.005,
        nhwc_quantized_interleaved__int8=0.010,
    )
    lines = table.effect_lines(even, published)
    assert [line["whose"] for line in lines] == ["published", "ours"]
    assert lines[0]["measured / product"] == pytest.approx(12.09 * 13.29 / (35.15 * 8.27))
    ours = lines[1]
    assert ours["product"] == pytest.approx(1.0)
    assert ours["measured / product"] == pytest.approx(1.0)
    odd = Timings(even.samples | {"nhwc_quantized_interleaved int8": even.of(table.BASE) / 2})
    line = table.effect_lines(odd, published)[1]
    assert line["measured / product"] == pytest.approx(0.5)
    assert line["verdict"] == "they do not multiply"


def test_noise_hides_an_interaction(published):
    wander = np.array([0.8, 1.3] * 5)
    even = timed(
        nchw_spatial_pack__fp32=0.010, nhwc_spatial_pack__fp32=0.020, nchw_spatial_pack__int8=0.005
    )
    both = {"nhwc_quantized_interleaved int8": even.of(table.BASE) * wander}
    line = table.effect_lines(Timings(even.samples | both), published)[1]
    assert line["verdict"] == "they multiply, within noise"


def test_what_was_tuned_is_shown_for_this_network_only():
    chosen = [
        Choice(name, "a", "2x4", "tuned: 1.50x of the rule's choice (b)", True, 1.5, 1.4, 1.6, 7)
        for name in ("in it", "elsewhere")
    ]
    tuned = Tuned(Setting("t", "i", 1, "m", "v"), dict(zip("ab", chosen, strict=True)))
    library = SimpleNamespace(kernels=[SimpleNamespace(shape="in it", macs=5)])
    lines = table.tuned_lines(tuned, library)
    assert [line["layer"] for line in lines] == ["in it"]
    assert lines[0]["why"] == "1.50x of the rule's choice (b)"


def test_layers_of_one_shape_are_one_bar():
    profile = [layer("p", 10**9, 1.0), layer("q", 10**9, 1.0, "q -> y, 3x3"),
               layer("p", 10**9, 0.5)]  # fmt: skip
    rates = schedule_plots.distinct_rates(profile)
    assert list(rates) == ["p -> y, 3x3", "q -> y, 3x3"]
    np.testing.assert_allclose(list(rates.values()), [2 / 1.5, 1])


def test_rates_stand_under_the_limits():
    profiles = {"fp32": {"a": [layer("p", 10**9, 0.1)], "b": [layer("p", 10**9, 0.05)]}}
    bound = LayerBound("l", "p -> y, 3x3", "fp32", 10**9, 10**9, 0.02, 0.1, False)
    figure = schedule_plots.rates_by_layer(profiles, PEAK, {"fp32": [bound]})
    axes = figure.axes[0]
    np.testing.assert_allclose(
        [[bar.get_height() for bar in group] for group in axes.containers], [[10], [20]]
    )
    lines = {text.get_text() for text in axes.get_legend().get_texts()}
    assert {"a", "b", "peak of the multiply units", "if all from memory"} <= lines
    (ticks,) = [c for c in axes.collections if c.get_label() == "if all from memory"]
    np.testing.assert_allclose(ticks.get_segments()[0][:, 1], 10)
    pyplot.close(figure)
