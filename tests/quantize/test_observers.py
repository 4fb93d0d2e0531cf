"""Observers against NumPy on everything at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relaxquant.quantize import QuantizeError
from relaxquant.quantize.histogram import Ends, Histogram

BATCHES = st.lists(
    arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e6, 1e6, width=32))
    | arrays(np.float32, st.integers(1, 40), elements=st.floats(-1, 1, width=32)),
    min_size=1,
    max_size=6,
)


def seen(observer, batches):
    for batch in batches:
        observer.update(batch)
    return observer


@given(BATCHES, st.sampled_from([Ends, Histogram]))
def test_ends_are_exact_and_include_0(batches, kind):
    observer, values = seen(kind(), batches), np.concatenate(batches)
    assert observer.low == min(values.min(), 0) and observer.high == max(values.max(), 0)
    assert observer.largest == np.abs(values).max() and observer.is_signed == (values.min() < 0)


@given(BATCHES, st.sampled_from([16, 8192]))
def test_every_value_is_counted_in_its_bin(batches, bins):
    histogram, values = seen(Histogram(bins), batches), np.concatenate(batches)
    assert histogram.counts.sum() == values.size
    width = (histogram.reach or 1) / bins
    edges = np.arange(-bins, bins + 1) * width
    below = np.concatenate([[0], np.cumsum(histogram.counts)])
    # Only values within float32 rounding of an edge may fall to the other side of it.
    slack = np.abs(edges) * 1e-6 + 1e-37  # and denormal numbers to 0
    for edge, count, near in zip(edges[1:-1], below[1:-1], slack[1:-1], strict=True):
        if bins == 16 or edge in (0, width, -width):
            assert np.sum(values < edge - near) <= count <= np.sum(values < edge + near)


def test_the_order_of_batches_hardly_matters():
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=4000).astype("float32") * 10.0**k for k in range(-3, 3)]
    up, down = seen(Histogram(), batches), seen(Histogram(), batches[::-1])
    places = np.array([-50, -20, -5, 5, 20, 50])
    shares = [
        np.interp(places, np.arange(1 - h.bins, h.bins + 1) * h.reach / h.bins, np.cumsum(h.counts))
        for h in (up, down)
    ]
    assert shares[0] == pytest.approx(shares[1], rel=2e-3)


def test_zeros_before_there_is_any_range_are_counted():
    histogram = seen(Histogram(), [np.zeros(90, np.float32), np.ones(10, np.float32)])
    centres, counts = histogram.seen()
    assert centres[0] == 0 and counts.tolist() == [90, 10]
    assert centres[1] == pytest.approx(1, rel=1e-3)


def test_memory_is_bounded():
    histogram = Histogram()
    for exponent in range(-45, 38):
        histogram.update(np.full(10, (-10.0) ** exponent, np.float32))
    assert len(histogram.counts) == 2 * histogram.bins and histogram.counts.sum() == 830


@pytest.mark.parametrize("kind", [Ends, Histogram])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(kind, bad):
    with pytest.raises(QuantizeError, match="NaN or infinity"):
        kind().update(np.array([5, bad, 1, -1], np.float32))
