"""Calibrators against their definitions, computed by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relaxquant.quantize import QConfig
from relaxquant.quantize.calibrators import calibrator
from relaxquant.quantize.divergence import divergence, kl_divergence
from relaxquant.quantize.histogram import Histogram
from relaxquant.quantize.thresholds import Form, min_max, mse, percentile

UNSIGNED = Form("uint8")
SYMMETRIC = Form("int8", signed=True)
ASYMMETRIC = Form("uint8", signed=True, asymmetric=True)
FORMS = [UNSIGNED, SYMMETRIC, ASYMMETRIC]

VALUES = arrays(np.float32, st.integers(1, 99), elements=st.floats(-1e6, 1e6, width=32))


def histogram(*batches, bins=8192):
    seen = Histogram(bins)
    for batch in batches:
        seen.update(np.asarray(batch, np.float32))
    return seen


@given(VALUES)
def test_min_max(values):
    seen = histogram(values)
    largest = np.abs(values).max()
    assert min_max(seen, UNSIGNED).high == largest and min_max(seen, UNSIGNED).low == 0
    assert min_max(seen, SYMMETRIC).high == -min_max(seen, SYMMETRIC).low == largest
    found = min_max(seen, ASYMMETRIC)
    assert (found.low, found.high) == (min(values.min(), 0), max(values.max(), 0))


@given(st.lists(VALUES, min_size=1, max_size=4), st.floats(1, 100), st.sampled_from([64, 8192]))
def test_percentile_is_close_above_the_true_one(batches, percent, bins):
    found = percentile(histogram(*batches, bins=bins), SYMMETRIC, percent).threshold
    magnitudes = np.abs(np.concatenate(batches)).astype(np.float64)
    # A hair below the percentage, against its rounding where it falls on a sample exactly.
    true = np.percentile(magnitudes, percent * (1 - 1e-12), method="inverted_cdf")
    assert true * (1 - 1e-6) <= found <= magnitudes.max()
    upper = np.percentile(magnitudes, min(100, percent + 1e-9), method="inverted_cdf")
    assert found <= upper + 2 / bins * magnitudes.max() * (1 + 1e-6)


@given(VALUES)
def test_percentile_100_is_min_max(values):
    seen = histogram(values)
    for form in FORMS:
        assert percentile(seen, form, 100) == min_max(seen, form)


def test_an_asymmetric_percentile_cuts_each_side():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.uniform(-1, 4, 100_000), [-50, 90]]).astype(np.float32)
    found = percentile(histogram(values), ASYMMETRIC, 99)
    assert found.low == pytest.approx(np.percentile(values, 0.5), abs=0.03)
    assert found.high == pytest.approx(np.percentile(values, 99.5), abs=0.03)


def test_percentile_cuts_an_outlier_min_max_does_not():
    seen = histogram(np.append(np.linspace(0, 1, 99_999), 100))
    assert min_max(seen, UNSIGNED).threshold == 100
    assert percentile(seen, UNSIGNED, 99.99).threshold == pytest.approx(1, abs=0.02)


def test_zeros_count():
    seen = histogram(np.zeros(90), np.ones(10))
    assert percentile(seen, UNSIGNED, 85).threshold < 0.001
    assert percentile(seen, UNSIGNED, 95).threshold == 1


@pytest.mark.parametrize("mode", ["min_max", "percentile", "kl_divergence", "mse"])
@pytest.mark.parametrize("form", FORMS)
def test_dead_tensors_have_threshold_0(mode, form):
    observer, find = calibrator(QConfig(calibrate_mode=mode))
    dead = observer()
    dead.update(np.zeros(9, np.float32))
    assert find(dead, form).threshold == 0


def rounding_error(values, form, found):
    """Squared error, from the definition of quantization."""
    codes = form.codes(found)
    integers = np.clip(
        np.rint(values / codes.scale) + codes.zero_point, codes.lowest, codes.highest
    )
    return np.sum((values - (integers - codes.zero_point) * float(codes.scale)) ** 2)


@pytest.mark.parametrize("nbit", [8, 4, 2])
@pytest.mark.parametrize("unsigned", [True, False])
def test_mse_is_the_best_threshold_there_is(nbit, unsigned):
    rng = np.random.default_rng(nbit)
    values = rng.laplace(size=20_000) ** 3
    values = (np.maximum(values, 0) if unsigned else values).astype(np.float32)
    form = Form("uint8", nbit, signed=not unsigned)
    found = mse(histogram(values), form)
    largest = float(np.abs(values).max())
    trials = [form.range(-t, t) for t in np.linspace(0.002, 1, 500) * largest]
    best = min(rounding_error(values, form, trial) for trial in trials)
    assert rounding_error(values, form, found) <= best * 1.01
    assert found.threshold < largest


@pytest.mark.parametrize("nbit", [4, 3])
def test_asymmetric_mse_is_the_best_pair_of_ends(nbit):
    rng = np.random.default_rng(nbit)
    values = np.concatenate([rng.normal(1, 1, 4000), -rng.exponential(0.2, 1000), [30, -4]])
    values = values.astype(np.float32)
    form = Form("uint8", nbit, signed=True, asymmetric=True)
    found = mse(histogram(values), form)
    lows, highs = np.linspace(0, values.min(), 33)[1:], np.linspace(0, values.max(), 129)[1:]
    best = min(
        rounding_error(values, form, form.range(low, high)) for low in lows for high in highs
    )
    # One end after the other finds a point that no single end improves: near the best, not it.
    assert rounding_error(values, form, found) <= best * 1.1
    assert form.codes(found).zero_point == np.rint(-found.low / form.codes(found).scale)


def kl_by_definition(counts, size, levels):
    """TVM's _find_scale_by_kl for one threshold of a one-sided histogram, bin by bin."""
    reference = [float(count) for count in counts[:size]]
    reference[-1] += counts[size:].sum()
    merged, candidate = size // levels, [0.0] * size
    for level in range(levels):
        start = level * merged
        stop = size if level == levels - 1 else start + merged
        filled = [k for k in range(start, stop) if reference[k] != 0]
        for k in filled:
            candidate[k] = sum(counts[start:stop]) / len(filled)

    def smooth(parts):
        empty = sum(part == 0 for part in parts)
        taken = 1e-4 * empty / (size - empty)
        parts = [1e-4 if part == 0 else part - taken for part in parts]
        return [part / sum(parts) for part in parts]

    pairs = zip(smooth(reference), smooth(candidate), strict=True)
    return sum(p * np.log(p / q) for p, q in pairs)


@pytest.mark.parametrize("size", [16, 23, 40, 64])
def test_divergence_is_that_of_the_definition(size):
    rng = np.random.default_rng(1)
    counts = rng.poisson(200 * np.exp(-np.arange(64) / 9)) + (np.arange(64) % 7 == 0)
    expected = kl_by_definition(counts, size, 16)
    assert divergence(counts, 0, size, 16) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_kl_divergence_takes_the_least(form):
    rng = np.random.default_rng(2)
    values = np.append(rng.laplace(size=50_000), 60.0)
    values = np.abs(values) if form is UNSIGNED else values
    seen = histogram(values, bins=2048)
    threshold = kl_divergence(seen, form).high
    size = round(threshold / seen.reach * seen.bins)
    start = 256 if form is UNSIGNED else 127
    levels = 256 if form is UNSIGNED else 255

    def at(size):
        low = seen.bins if form is UNSIGNED else seen.bins - size
        return divergence(seen.counts, low, seen.bins + size, levels)

    assert at(size) <= min(at(trial) for trial in range(start, seen.bins + 1, 16))
    assert 3 < threshold < 30  # the outlier does not stretch it


def test_ranges_are_those_of_their_form():
    values = np.random.default_rng(3).normal(0.5, 1, 5000)
    seen = histogram(values)
    for find in (min_max, percentile, mse, kl_divergence):
        assert find(seen, UNSIGNED).low == 0
        assert find(seen, SYMMETRIC).low == -find(seen, SYMMETRIC).high
        found = find(seen, ASYMMETRIC)
        assert seen.low <= found.low < 0 < found.high <= seen.high
        assert find is kl_divergence or -found.low != found.high
