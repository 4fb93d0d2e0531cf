"""Intervals against published values, and against what they promise: coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from relaxquant.errors import InputError
from relaxquant.measure import bootstrap_median, newcombe_paired, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_the_published_intervals(successes, n, low, high):
    share = wilson(successes, n)
    assert (share.low, share.high) == pytest.approx((low, high), abs=5e-5)
    assert share.value == successes / n


def test_wilson_is_symmetric_and_keeps_its_ends():
    right, wrong = wilson(3, 40), wilson(37, 40)
    assert (right.low, right.high) == pytest.approx((1 - wrong.high, 1 - wrong.low))
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0
    assert str(wilson(1, 2)).startswith("50.00 % (")


def test_wilson_widens_with_confidence():
    narrow, wide = wilson(30, 100, 0.80), wilson(30, 100, 0.99)
    assert wide.low < narrow.low < 0.3 < narrow.high < wide.high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "at least one trial"),
        ((5, 4), r"0\.\.4, got 5"),
        ((-1, 4), r"0\.\.4, got -1"),
        ((1, 2, 1.0), "between 0 and 1"),
    ],
)
def test_wilson_refuses_nonsense(arguments, message):
    with pytest.raises(InputError, match=message):
        wilson(*arguments)


def test_newcombe_equals_the_worked_example():
    # Altman et al. 2000, "Statistics with confidence", table 6.2, after Newcombe 1998.
    low, high = newcombe_paired(both=14, only_a=5, only_b=0, neither=22)
    assert (low, high) == pytest.approx((0.01, 0.23), abs=0.005)


def test_newcombe_changes_sign_when_the_two_are_swapped():
    low, high = newcombe_paired(70, 12, 5, 13)
    swapped = newcombe_paired(70, 5, 12, 13)
    assert swapped == pytest.approx((-high, -low))


def test_newcombe_never_collapses():
    low, high = newcombe_paired(80, 0, 0, 20)
    assert low < 0 < high


def test_newcombe_covers_the_truth():
    # Exact coverage: every table of n pairs, weighted with its multinomial probability.
    n, cells = 25, (0.60, 0.15, 0.10, 0.15)
    true = cells[1] - cells[2]
    covered = total = 0.0
    for both, only_a, only_b in itertools.product(range(n + 1), repeat=3):
        neither = n - both - only_a - only_b
        if neither < 0:
            continue
        counts = (both, only_a, only_b, neither)
        ways = math.factorial(n) // math.prod(math.factorial(c) for c in counts)
        chance = ways * math.prod(p**c for p, c in zip(cells, counts, strict=True))
        low, high = newcombe_paired(*counts)
        total += chance
        covered += chance * (low <= true <= high)
    assert total == pytest.approx(1.0)
    assert 0.93 < covered < 0.99


@pytest.mark.parametrize("n", [10, 15])
def test_bootstrap_covers_the_median_about_as_often_as_it_says(n):
    rng = np.random.default_rng(0)
    trials = 400
    hits = 0
    for trial in range(trials):
        low, high = bootstrap_median(np.exp(rng.normal(0, 0.05, n)), seed=trial)
        hits += low <= 1.0 <= high
    assert 0.91 < hits / trials < 0.98


def test_bootstrap_stays_within_the_samples_and_follows_its_seed():
    samples = np.random.default_rng(1).random(12)
    low, high = bootstrap_median(samples, seed=4)
    assert samples.min() <= low <= np.median(samples) <= high <= samples.max()
    assert (low, high) == bootstrap_median(samples, seed=4)


def test_bootstrap_gives_no_interval_that_the_samples_cannot_carry():
    assert all(math.isnan(bound) for bound in bootstrap_median(np.ones(5)))
    assert bootstrap_median(np.ones(6)) == (1.0, 1.0)
    assert bootstrap_median(np.ones(5), confidence=0.90) == (1.0, 1.0)
    assert all(math.isnan(bound) for bound in bootstrap_median(np.array([])))


def test_bootstrap_refuses_nonsense():
    with pytest.raises(InputError, match="one-dimensional"):
        bootstrap_median(np.ones((3, 4)))
    with pytest.raises(InputError, match="between 0 and 1"):
        bootstrap_median(np.ones(10), confidence=0)
