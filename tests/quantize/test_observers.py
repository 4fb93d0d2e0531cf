"""Observers against NumPy on everything at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.observers import MinMaxObserver, PercentileObserver, observer_factory

BATCHES = st.lists(
    arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32))
    | arrays(np.float32, st.integers(1, 40), elements=st.floats(-1, 1, width=32)),
    min_size=1,
    max_size=6,
)


def threshold(observer, batches):
    for batch in batches:
        observer.update(batch)
    return observer.threshold


@given(BATCHES)
def test_min_max_is_the_largest_magnitude(batches):
    assert threshold(MinMaxObserver(), batches) == np.abs(np.concatenate(batches)).max()


@given(BATCHES, st.floats(1, 100), st.sampled_from([64, 8192]))
def test_percentile_is_close_above_the_true_one(batches, percentile, bins):
    found = threshold(PercentileObserver(percentile, bins), batches)
    magnitudes = np.abs(np.concatenate(batches)).astype(np.float64)
    # A hair below the percentage, against its rounding where it falls on a sample exactly.
    true = np.percentile(magnitudes, percentile * (1 - 1e-12), method="inverted_cdf")
    assert true * (1 - 1e-6) <= found <= magnitudes.max()
    upper = np.percentile(magnitudes, min(100, percentile + 1e-9), method="inverted_cdf")
    assert found <= upper + 2 / bins * magnitudes.max() * (1 + 1e-6)


@given(BATCHES)
def test_percentile_100_is_min_max(batches):
    assert threshold(PercentileObserver(100), batches) == threshold(MinMaxObserver(), batches)


def test_the_order_of_batches_hardly_matters():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=4000).astype("float32") * 10.0**k for k in range(-3, 3)]
    up = threshold(PercentileObserver(99.0), batches)
    down = threshold(PercentileObserver(99.0), batches[::-1])
    assert up == pytest.approx(down, rel=2e-3)


def test_percentile_cuts_an_outlier_min_max_does_not():
    values = np.append(np.linspace(0, 1, 99_999, dtype=np.float32), np.float32(100))
    assert threshold(MinMaxObserver(), [values]) == 100
    assert threshold(PercentileObserver(99.99), [values]) == pytest.approx(1, abs=0.02)


def test_zeros_count_and_dead_tensors_have_threshold_0():
    dead = np.zeros(90, np.float32)
    assert threshold(PercentileObserver(99), [dead]) == 0
    live = np.ones(10, np.float32)
    assert threshold(PercentileObserver(85), [dead, live]) < 0.001
    assert threshold(PercentileObserver(95), [dead, live]) == 1


def test_memory_is_bounded():
    observer = PercentileObserver(99.9)
    for exponent in range(-45, 38):
        observer.update(np.full(10, 10.0**exponent, np.float32))
    assert len(observer.counts) == observer.bins and observer.counts.sum() + observer._zeros == 830


@pytest.mark.parametrize("mode", ["min_max", "percentile"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(mode, bad):
    observer = observer_factory(QConfig.best(calibrate_mode=mode))()
    with pytest.raises(QuantizeError, match="NaN or infinity"):
        observer.update(np.array([5, bad, 1, -1], np.float32))
