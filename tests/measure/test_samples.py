"""What is read from raw samples: medians, ratios, verdicts, noise floor."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from relaxquant.errors import InputError
from relaxquant.measure import NoiseFloor, Ratio, Timings, Warmup, noise_floor


def noisy(rng, seconds, rounds=20, noise=0.03):
    return seconds * np.exp(rng.normal(0, noise, rounds))


def test_median_and_quartiles_are_numpys():
    values = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    timings = Timings({"a": values})
    assert timings.median("a") == 3.0
    assert timings.quartiles("a") == (2.0, 4.0)
    assert timings.iqr("a") == 2.0


def test_summary_has_a_row_a_variant():
    values = noisy(np.random.default_rng(0), 0.01)
    timings = Timings({"a": values}, {"a": 3}, {"a": Warmup(12, True)})
    (row,) = timings.summary()
    assert row["variant"] == "a"
    assert row["median"] == pytest.approx(np.median(values))
    assert row["ci_low"] < row["median"] < row["ci_high"]
    assert (row["n"], row["inner"], row["warmup_calls"], row["stable"]) == (20, 3, 12, True)
    assert row["unit"] == "s"


def test_ratio_is_paired_by_round():
    # The machine gets ten times slower on the way: medians are useless, pairs are not.
    drift = np.geomspace(1, 10, 20)
    timings = Timings({"a": 0.5 * drift, "b": 1.0 * drift})
    ratio = timings.ratio("a", "b")
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    assert ratio.verdict == "faster"


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.8, "faster"), (1.25, "slower"), (1.0, "inconclusive")]
)
def test_verdict_follows_the_known_ratio(factor, verdict):
    rng = np.random.default_rng(7)
    timings = Timings({"a": noisy(rng, factor), "b": noisy(rng, 1.0)})
    ratio = timings.ratio("a", "b")
    assert ratio.verdict == verdict
    assert ratio.low < factor < ratio.high
    assert ratio.n == 20


def test_swapping_the_variants_flips_the_verdict():
    rng = np.random.default_rng(3)
    timings = Timings({"a": noisy(rng, 1.0), "b": noisy(rng, 2.0)})
    there, back = timings.ratio("a", "b"), timings.ratio("b", "a")
    assert (there.verdict, back.verdict) == ("faster", "slower")
    assert there.value == pytest.approx(1 / back.value, rel=0.01)


def test_ratio_follows_from_its_seed():
    rng = np.random.default_rng(5)
    # Many rounds: with few, most seeds end at the very same two samples.
    timings = Timings({"a": noisy(rng, 1.0, 201), "b": noisy(rng, 1.0, 201)})
    assert timings.ratio("a", "b", seed=1) == timings.ratio("a", "b", seed=1)
    assert len({timings.ratio("a", "b", seed=seed) for seed in range(5)}) > 1


def test_too_few_rounds_are_inconclusive_however_clear_they_look():
    timings = Timings({"a": np.full(5, 1.0), "b": np.full(5, 9.0)})
    ratio = timings.ratio("a", "b")
    assert math.isnan(ratio.low) and math.isnan(ratio.high)
    assert ratio.verdict == "inconclusive"
    assert "no interval" in str(ratio)
    six = Timings({"a": np.full(6, 1.0), "b": np.full(6, 9.0)})
    assert six.ratio("a", "b").verdict == "faster"


def test_aa_is_inconclusive_as_often_as_the_confidence_says():
    verdicts = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        timings = Timings({"a": noisy(rng, 1.0, 10), "a (A/A)": noisy(rng, 1.0, 10)})
        verdicts.append(noise_floor(timings, "a").ratio.verdict)
    assert 0.90 < verdicts.count("inconclusive") / 300 < 0.99


def test_aa_control_gives_the_noise_floor():
    # As often faster as slower, by up to 3 percent: inconclusive by construction.
    wobble = np.exp(np.linspace(-0.03, 0.03, 20))
    timings = Timings({"a": wobble, "a (A/A)": np.ones(20), "b": 0.5 * wobble})
    noise = noise_floor(timings, "a")
    assert noise.ratio.verdict == "inconclusive"
    assert 0 < noise.floor < 0.03
    assert noise.floor == pytest.approx(max(noise.ratio.high, 1 / noise.ratio.low) - 1)
    assert noise.exceeded_by(timings.ratio("b", "a"))
    assert not noise.exceeded_by(noise.ratio)


@pytest.mark.parametrize(
    ("low", "high", "exceeds"),
    [
        (0.5, 0.6, True),
        (1.7, 2.0, True),
        (0.92, 0.95, False),
        (1.02, 1.3, False),
        (math.nan, math.nan, False),
    ],
)
def test_a_difference_within_the_noise_does_not_exceed_it(low, high, exceeds):
    noise = NoiseFloor(Ratio(1.0, 0.95, 1.1, 10, 0.95), floor=0.10)
    assert noise.exceeded_by(Ratio(1.0, low, high, 10, 0.95)) is exceeds


def test_a_control_against_itself_is_refused():
    timings = Timings({"a": np.ones(10)})
    with pytest.raises(InputError, match="two builds under two names"):
        noise_floor(timings, "a", "a")


def test_an_unknown_variant_gets_the_near_name():
    timings = Timings({"int8 graph": np.ones(10), "fp32": np.ones(10)})
    with pytest.raises(InputError, match="did you mean 'fp32'"):
        timings.median("fp23")
    with pytest.raises(InputError, match="timed were"):
        timings.ratio("fp32", "zzz")


def test_confidence_must_be_a_probability():
    timings = Timings({"a": np.ones(10), "b": np.ones(10)})
    with pytest.raises(InputError, match="95 percent"):
        timings.ratio("a", "b", confidence=95)


def test_raw_samples_survive_json():
    rng = np.random.default_rng(0)
    timings = Timings(
        {"a": noisy(rng, 1.0, 3)}, {"a": 2}, {"a": Warmup(5, None)}, (("a",), ("a",), ("a",))
    )
    back = Timings.from_dict(json.loads(json.dumps(timings.to_dict())))
    np.testing.assert_array_equal(back.samples["a"], timings.samples["a"])
    assert (back.inner, back.warmup, back.order) == (
        timings.inner,
        timings.warmup,
        timings.order,
    )
