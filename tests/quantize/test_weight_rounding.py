"""Compensated rounding and clipped scales: less error where they promise it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from relaxquant.quantize.clipping import least_error_scale
from relaxquant.quantize.compensate import (
    cholesky,
    feedback,
    output_error,
    refit_scale,
    round_compensated,
)
from relaxquant.quantize.weights import Levels, quantize_weight, round_to_levels

FOUR_BITS = Levels(-7, 7)


def layer(groups=1, channels=12, inputs=40, samples=400, seed=0):
    """Weights and the second moments of correlated inputs."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(groups, inputs, inputs)) / np.sqrt(inputs) + np.eye(inputs)
    x = rng.normal(size=(groups, samples, inputs)) @ mix
    weight = rng.normal(size=(groups, channels, inputs)).astype(np.float32)
    return weight, (x.transpose(0, 2, 1) @ x / samples).astype(np.float32)


def nearest(steps):
    return np.clip(np.rint(steps), -7, 7)


def scales_of(weight):
    return (np.abs(weight).max(axis=2) / 7).astype(np.float32)


@pytest.mark.parametrize(("groups", "channels", "inputs"), [(1, 12, 40), (5, 1, 9), (1, 3, 300)])
def test_compensation_lowers_the_error_of_outputs(groups, channels, inputs):
    weight, gram = layer(groups, channels, inputs, samples=4 * inputs)
    scale = scales_of(weight)
    plain = nearest(weight / scale[..., None])
    compensated = round_compensated(weight, scale, gram, nearest)
    assert np.array_equal(compensated, nearest(compensated))
    before, after = (output_error(weight, c, scale, gram).sum() for c in (plain, compensated))
    assert after < 0.8 * before
    # The weights themselves are farther off: that is not what is minimised.
    assert np.sum((weight / scale[..., None] - compensated) ** 2) > np.sum(
        (weight / scale[..., None] - plain) ** 2
    )


def test_of_uncorrelated_inputs_it_is_rounding_to_nearest():
    weight, _ = layer()
    gram = np.eye(40, dtype=np.float32)[None] * 3
    scale = scales_of(weight)
    found = round_compensated(weight, scale, gram, nearest)
    np.testing.assert_array_equal(found, nearest(weight / scale[..., None]))


def test_it_is_close_to_the_best_there_is():
    weight, gram = layer(channels=1, inputs=6, seed=3)
    scale = scales_of(weight)
    found = output_error(weight, round_compensated(weight, scale, gram, nearest), scale, gram)[0, 0]
    floor = np.floor(weight / scale[..., None])
    choices = [nearest(floor + np.array(up)) for up in itertools.product((0, 1), repeat=6)]
    best = min(output_error(weight, choice, scale, gram)[0, 0] for choice in choices)
    plain = output_error(weight, nearest(weight / scale[..., None]), scale, gram)[0, 0]
    assert found <= best * 2 and found <= plain


def test_feedback_is_the_factor_of_the_second_moments():
    _, gram = layer(groups=2, inputs=7)
    upper = feedback(gram).astype(np.float64)
    np.testing.assert_allclose(np.einsum("gii->gi", upper), 1)
    assert np.all(np.tril(upper, -1) == 0)
    inverse = np.linalg.inv(upper)
    damped = gram + 0.01 * np.trace(gram, axis1=1, axis2=2)[:, None, None] / 7 * np.eye(7)
    middle = inverse @ damped @ inverse.transpose(0, 2, 1)
    off = middle - np.einsum("gii->gi", middle)[..., None] * np.eye(7)
    assert np.abs(off).max() < 1e-4 * np.abs(middle).max()


@pytest.mark.parametrize("block", [1, 3, 7, 8])
def test_cholesky_by_blocks(block):
    _, gram = layer(inputs=7)
    matrix = gram[0].astype(np.float64) + np.eye(7)
    np.testing.assert_allclose(cholesky(matrix, block), np.linalg.cholesky(matrix), rtol=1e-9)
    with pytest.raises(np.linalg.LinAlgError):
        cholesky(matrix - 100 * np.eye(7), block)


@pytest.mark.parametrize("samples", [0, 1])
def test_inputs_that_were_hardly_seen(samples):
    weight, _ = layer(inputs=8)
    x = np.ones((1, samples, 8), np.float32)
    gram = (x.transpose(0, 2, 1) @ x).astype(np.float32)
    found = round_compensated(weight, scales_of(weight), gram, nearest)
    assert np.isfinite(found).all() and np.abs(found).max() <= 7


def test_refitting_the_scale_never_hurts():
    weight, gram = layer()
    scale = scales_of(weight)
    codes = nearest(weight / scale[..., None])
    codes[0, 3] = 0  # no scale is better than another
    refit = refit_scale(weight, codes, scale, gram)
    assert refit[0, 3] == scale[0, 3]
    before, after = (output_error(weight, codes, s, gram) for s in (scale, refit))
    assert np.all(after <= before * (1 + 1e-5)) and after.sum() < before.sum()
    for factor in (0.99, 1.01):
        assert np.all(output_error(weight, codes, refit * factor, gram) >= after * (1 - 1e-5))


@pytest.mark.parametrize("levels", [Levels(-7, 7), Levels(-2, 1), Levels(-1, 1)])
def test_the_clipped_scale_is_the_best_of_a_fine_grid(levels):
    weight = np.random.default_rng(1).standard_t(4, size=(5, 200)).astype(np.float32)
    widest = np.abs(weight).max(axis=1) / levels.highest

    def rounding(values, scale):
        return round_to_levels(values, scale, 0, levels)

    def error(scale):
        return np.sum((weight - rounding(weight, scale) * scale[:, None]) ** 2, axis=1)

    found = least_error_scale(weight, widest, rounding)
    best = np.min([error(widest * f) for f in np.linspace(0.01, 1, 400)], axis=0)
    assert np.all(error(found) <= best * 1.03) and np.all(found < widest)


def test_importance_counts():
    weight = np.array([[0.3, 0.31, 0.29, 1.0]], np.float32)
    levels, importance = Levels(-1, 1), np.array([1, 1, 1, 0], np.float32)
    plain = quantize_weight(weight, 0, levels, 0.0, "mse")[1]
    small = quantize_weight(weight, 0, levels, 0.0, "mse", importance)[1]
    assert small[0] == pytest.approx(0.3, abs=0.02)
    assert plain[0] > 0.4


def test_mse_of_one_scale_for_all_channels():
    weight = np.random.default_rng(2).standard_t(4, size=(5, 3, 3, 3)).astype(np.float32)
    found = {m: quantize_weight(weight, None, FOUR_BITS, 0.0, m) for m in ("max", "mse")}
    error = {m: np.sum((weight - q * s) ** 2) for m, (q, s) in found.items()}
    assert found["mse"][1].shape == () and error["mse"] < error["max"]
