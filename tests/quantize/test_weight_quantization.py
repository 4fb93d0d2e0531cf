"""Weights: bounds that hold for any weights, extreme ones included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from relaxquant.quantize import QConfig, QuantizeError
from relaxquant.quantize.scales import MIN_SCALE, scale_of
from relaxquant.quantize.weights import (
    BIAS_LIMIT,
    Levels,
    bias_safe_scale,
    quantize_weight,
    weight_levels,
)

SEVEN_BITS = Levels(-64, 64)
WEIGHTS = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=4, max_side=4),
    elements=st.floats(-(2.0**99), 2.0**99, width=32) | st.sampled_from([0.0, 1e-45, -1e-20, 1.0]),
)


@given(WEIGHTS, st.sampled_from([64, 127]), st.sampled_from([None, 0, 1]))
def test_error_range_and_scale(weight, qmax, axis):
    quantized, scale = quantize_weight(weight, axis, Levels(-qmax, qmax))
    assert quantized.dtype == np.int8 and quantized.shape == weight.shape
    assert np.abs(quantized.astype(int)).max() <= qmax
    assert scale.dtype == np.float32 and scale.shape == (
        () if axis is None else weight.shape[axis:][:1]
    )
    assert np.isfinite(scale).all() and (scale > 0).all()
    spread = scale if axis is None else scale.reshape([-1] + [1] * (weight.ndim - 1 - axis))
    error = np.abs(weight.astype(np.float64) - quantized * spread.astype(np.float64))
    # Half a step, plus the float32 rounding of the scale and of the division.
    dead = np.abs(weight) < MIN_SCALE * qmax
    assert (error <= np.where(dead, np.abs(weight), spread * 0.5 * (1 + 1e-4))).all()


@given(WEIGHTS, st.sampled_from([64, 127]))
def test_channels_use_the_whole_range(weight, qmax):
    quantized, _ = quantize_weight(weight, 0, Levels(-qmax, qmax))
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    reached = np.abs(quantized.astype(int)).reshape(len(weight), -1).max(axis=1)
    assert (reached == np.where(largest / qmax < MIN_SCALE, 0, qmax)).all()


def test_channel_axis_of_conv_and_dense():
    weight = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 2, 2)
    assert quantize_weight(weight, 0, SEVEN_BITS)[1] == pytest.approx([12 / 64, 24 / 64])
    matrix = np.array([[1, -10], [2, 4]], np.float32)
    assert quantize_weight(matrix, 1, SEVEN_BITS)[1] == pytest.approx([2 / 64, 10 / 64])
    assert quantize_weight(matrix, None, SEVEN_BITS)[1] == pytest.approx(10 / 64)


def test_rounds_ties_to_even():
    weight = np.array([[64, 0.5, 1.5, -2.5]], np.float32)
    assert quantize_weight(weight, 0, SEVEN_BITS)[0].tolist() == [[64, 0, 2, -2]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite(bad):
    with pytest.raises(QuantizeError, match="NaN or infinity"):
        quantize_weight(np.array([[1, bad]], np.float32), 0, SEVEN_BITS)


@given(
    arrays(np.float32, 5, elements=st.floats(-100, 100, width=32)),
    arrays(np.float32, (5, 7), elements=st.floats(-(2.0**-40), 2.0**-40, width=32)),
    st.sampled_from([2.0**-20, 0.01, 1.0]),
    st.sampled_from([None, 0]),
)
def test_bias_fits_int32_however_small_the_weights(bias, weight, data_scale, axis):
    quantized, scale = quantize_weight(weight, axis, SEVEN_BITS, bias_safe_scale(bias, data_scale))
    assert (np.abs(bias / (data_scale * scale.astype(np.float64))) <= BIAS_LIMIT * (1 + 1e-5)).all()
    assert np.abs(quantized.astype(int)).max() <= 64


def test_normal_weights_are_not_touched_by_the_bias():
    weight = np.array([[0.5, -0.25], [0.1, 0.2]], np.float32)
    floor = bias_safe_scale(np.array([3.0, -5.0], np.float32), 0.02)
    for plain, guarded in zip(
        quantize_weight(weight, 0, SEVEN_BITS),
        quantize_weight(weight, 0, SEVEN_BITS, floor),
        strict=True,
    ):
        np.testing.assert_array_equal(plain, guarded)


def test_dead_tensors_get_a_scale():
    assert scale_of(0.0, 255) == np.float32(1 / 255)
    assert scale_of(np.array([0, 2.55]), 255) == pytest.approx([1 / 255, 0.01])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"nbit_weight": 1}, [-1, 1]),
        ({"nbit_weight": 2}, [-2, -1, 0, 1]),
        ({"nbit_weight": 2, "ternary": True}, [-1, 0, 1]),
        ({"nbit_weight": 3}, list(range(-3, 4))),
        ({"nbit_weight": 5}, list(range(-15, 16))),
        ({"nbit_weight": 7, "reduce_range": True}, list(range(-63, 64))),
        ({"nbit_weight": 8, "reduce_range": True}, list(range(-64, 65))),
        ({"nbit_weight": 8, "reduce_range": False}, list(range(-127, 128))),
    ],
)
def test_every_level_is_used_and_no_other(settings, expected):
    levels = weight_levels(QConfig.best(**settings))
    weight = np.linspace(-1, 1, 2001, dtype=np.float32).reshape(1, -1)
    weight = weight if levels.lowest == -levels.highest else weight * [[0.5]] - 0.25
    quantized, scale = quantize_weight(weight.astype(np.float32), 0, levels)
    assert np.unique(quantized).tolist() == expected
    if levels.zero:
        assert np.abs(weight - quantized * scale[:, None]).max() <= scale[0] / 2 * (1 + 1e-5)
    else:
        assert scale == pytest.approx([np.abs(weight).mean()])


def test_one_bit_leaves_a_dead_channel_dead():
    weight = np.stack([np.zeros(9), np.ones(9)]).astype(np.float32)
    quantized, scale = quantize_weight(weight, 0, Levels(-1, 1, zero=False))
    assert np.abs(quantized * scale[:, None] - weight).max() <= MIN_SCALE


@given(WEIGHTS, st.sampled_from([1, 2, 4, 8]), st.sampled_from([None, 0]))
def test_powers_of_two_clip_nothing_and_are_the_smallest_that_do_not(weight, nbit, axis):
    levels = weight_levels(QConfig.best(nbit_weight=nbit))
    _, plain = quantize_weight(weight, axis, levels)
    _, scale = quantize_weight(weight, axis, levels, method="power2")
    assert (np.frexp(scale)[0] == 0.5).all()
    assert (scale >= plain).all() and (scale < 2 * plain.astype(np.float64)).all()


def test_powers_of_two_stay_so_above_the_bias():
    weight, bias = np.array([[0.5], [1e-9]], np.float32), np.array([3.0, -5.0], np.float32)
    smallest = bias_safe_scale(bias, 0.02)
    _, scale = quantize_weight(weight, 0, SEVEN_BITS, smallest, "power2")
    assert (np.frexp(scale)[0] == 0.5).all() and (scale >= smallest).all()
