"""What stands between TFLite's convolutions, against NumPy models in int64, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from relaxquant.kernels import elementwise, integer_elementwise, pool2d, resize, softmax, table
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.spec import TensorSpec, Window
from relaxquant.lower.fixed_point import quantize_multiplier
from tests.kernels import reference
from tests.kernels.harness import TARGETS, build, random_tensor, run, target_of, to_memory

on_targets = pytest.mark.parametrize("target", TARGETS)


def tensor(channels=20, size=(3, 5), zero_point=77, **fields) -> TensorSpec:
    return TensorSpec(channels, *size, "uint8", zero_point=zero_point, **fields)


def computed(build_kernel, spec, stored, inputs, parameters, target_name) -> np.ndarray:
    """What the kernel makes of stored inputs."""
    target = target_of(target_name)
    library = build(build_kernel(spec, instruction_set(target)), target)
    arguments = [to_memory(a, s) for a, s in zip(stored, inputs, strict=True)]
    return run(library, [*arguments, *parameters], spec.out)


def drawn(*specs: TensorSpec, batch=1, seed=0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [random_tensor(rng, spec, batch) for spec in specs]


def scaled(x: np.ndarray, factor: float) -> np.ndarray:
    """MultiplyByQuantizedMultiplier by a real factor, in int64."""
    multiplier, shift = quantize_multiplier(factor)
    full = np.broadcast_to(multiplier, x.shape), np.broadcast_to(shift, x.shape)
    return reference.multiply_by_quantized_multiplier(x.astype(np.int64), *full)


def integers(factor: float) -> tuple[int, int]:
    return tuple(int(part) for part in quantize_multiplier(factor))


# Scales of the inputs over the output's, up to both ends of what sums and products use.
SCALES = [(0.7, 0.31), (1.0, 1.0), (0.02, 3.0), (2.0, 0.5)]


@on_targets
@pytest.mark.parametrize("scales", SCALES)
def test_add(scales, target):
    a, b, out = tensor(zero_point=3), tensor(zero_point=255), tensor(zero_point=128)
    x, y = drawn(a, b, batch=2)
    common = 2 * max(scales)
    factors = [scales[0] / common, scales[1] / common, common / 2**20]
    spec = integer_elementwise.BinarySpec("add", 2, a, b, out)
    parameters = integer_elementwise.parameters(-100, 127, [integers(f) for f in factors])
    actual = computed(integer_elementwise.build, spec, (x, y), (a, b), [parameters], target)
    parts = [
        scaled((each.astype(np.int64) - zero) << 20, factor)
        for each, zero, factor in zip((x, y), (3, 255), factors, strict=False)
    ]
    expected = np.clip(scaled(sum(parts), factors[2]), -100, 127) + 128
    np.testing.assert_array_equal(actual, expected)


@on_targets
@pytest.mark.parametrize("factor", [0.004, 0.03, 1.0, 1.7])
@pytest.mark.parametrize("shared", [False, True])
def test_mul(factor, shared, target):
    a, out = tensor(zero_point=3), tensor(zero_point=9)
    b = tensor(size=(1, 1) if shared else (3, 5), zero_point=130)
    x, y = drawn(a, b)
    spec = integer_elementwise.BinarySpec("mul", 1, a, b, out)
    parameters = integer_elementwise.parameters(-9, 246, [integers(factor)])
    actual = computed(integer_elementwise.build, spec, (x, y), (a, b), [parameters], target)
    product = (x.astype(np.int64) - 3) * (y.astype(np.int64) - 130)
    np.testing.assert_array_equal(actual, np.clip(scaled(product, factor), -9, 246) + 9)


@on_targets
@pytest.mark.parametrize("shared", [False, True])
def test_mul_in_float(shared, target):
    a, out = tensor(zero_point=3), tensor(zero_point=9)
    b = tensor(size=(1, 1) if shared else (3, 5), zero_point=130)
    x, y = drawn(a, b)
    spec = elementwise.MulSpec(1, a, b, out)
    bounds = elementwise.scales_and_bounds([0.013], -9, 246)
    actual = computed(elementwise.build_mul, spec, (x, y), (a, b), [bounds], target)
    product = ((x.astype(np.int64) - 3) * (y.astype(np.int64) - 130)).astype(np.float32)
    expected = np.rint(np.clip(product * np.float32(0.013), -9, 246)) + 9
    np.testing.assert_array_equal(actual, expected)


@on_targets
@pytest.mark.parametrize("channels", [(16, 20), (7, 9, 18)])
def test_concat_of_scales(channels, target):
    inputs = tuple(tensor(count, zero_point=40 * i) for i, count in enumerate(channels))
    out = tensor(sum(channels), zero_point=117)
    stored = drawn(*inputs, batch=2)
    scales = [(0.05 - 0.013 * i, spec.zero_point) for i, spec in enumerate(inputs)]
    spec = elementwise.ConcatSpec(2, inputs, out, "tflite")
    parameters = elementwise.tflite_concat_parameters(scales, 0.04, -117, 138)
    actual = computed(elementwise.build_concat, spec, stored, inputs, [parameters], target)
    parts = []
    for x, (scale, zero) in zip(stored, scales, strict=True):
        factor = np.float32(scale) * (np.float32(1) / np.float32(0.04))
        value = x.astype(np.float32) * factor + -np.float32(zero) * factor
        parts.append(np.copysign(np.floor(np.abs(value) + np.float32(0.5)), value))
    expected = np.clip(np.concatenate(parts, axis=1), -117, 138) + 117
    np.testing.assert_array_equal(actual, expected)


def average_layer(window: Window, **fields):
    data = tensor(size=(7, 9))
    out = tensor(size=window.output_size(7, 9))
    return pool2d.PoolSpec("avg", 1, data, out, window, requantize="tflite", **fields)


@on_targets
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "window", [Window((3, 3), (2, 2), (1, 1, 1, 1)), Window((7, 9)), Window((2, 2), (1, 1))]
)
def test_average(window, signed, target):
    spec = average_layer(window, signed=signed)
    (x,) = drawn(spec.data)
    bounds = np.array([-77, 178, 1], np.float32)
    actual = computed(pool2d.build, spec, (x,), (spec.data,), [bounds], target)
    shift = 128 if signed else 0
    padded = reference.pad_image(x.astype(np.int64) - shift, window)
    counted = reference.pad_image(np.ones_like(x, np.int64), window)
    size = (spec.out.height, spec.out.width)
    total, count = (
        sum(taps for _, _, taps in reference.window_taps(each, window, size))
        for each in (padded, counted)
    )
    expected = np.sign(total) * ((np.abs(total) + count // 2) // count) + shift
    np.testing.assert_array_equal(actual, expected)


@on_targets
def test_mean(target):
    window = Window((7, 9))
    spec = average_layer(window, mean=True)
    (x,) = drawn(spec.data)
    parameters = integer_elementwise.parameters(-77, 178, [integers(1.3 / 63)])
    actual = computed(pool2d.build, spec, (x,), (spec.data,), [parameters], target)
    total = (x.astype(np.int64) - 77).sum(axis=(2, 3), keepdims=True)
    np.testing.assert_array_equal(actual, np.clip(scaled(total, 1.3 / 63), -77, 178) + 77)


@on_targets
@pytest.mark.parametrize("block", [16, 1])
def test_table(block, target):
    data, out = tensor(block=block), tensor()
    entries = np.random.default_rng(5).permutation(256).astype(np.uint8)
    (x,) = drawn(data, batch=2)
    spec = table.TableSpec(2, data, out)
    actual = computed(table.build, spec, (x,), (data,), [entries], target)
    np.testing.assert_array_equal(actual, entries[x])


@on_targets
def test_softmax(target):
    data = TensorSpec(37, 1, 1, "uint8", zero_point=9, rank=2)
    out = TensorSpec(37, 1, 1, "uint8", zero_point=0, rank=2)
    (x,) = drawn(data, batch=3)
    entries = softmax.exponentials(0.07)
    spec = softmax.SoftmaxSpec(3, data, out)
    bounds = np.array([0, 255, 256], np.float32)
    actual = computed(softmax.build, spec, (x,), (data,), [entries, bounds], target)
    values = entries[x.max(axis=1, keepdims=True).astype(int) - x]
    total = np.cumsum(values, axis=1, dtype=np.float32)[:, -1:]
    expected = np.clip(np.rint(values * (np.float32(256) / total)), 0, 255)
    np.testing.assert_array_equal(actual.reshape(x.shape), expected)
    probability = np.exp(0.07 * x) / np.exp(0.07 * x).sum(axis=1, keepdims=True)
    assert np.abs(expected - 256 * probability).max() < 0.51


@on_targets
def test_pad(target):
    data, out = tensor(size=(4, 5)), tensor(size=(7, 8))
    (x,) = drawn(data, batch=2)
    spec = resize.PadSpec(2, data, out, (1, 0, 2, 3))
    actual = computed(resize.build_pad, spec, (x,), (data,), [], target)
    expected = np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 3)), constant_values=77)
    np.testing.assert_array_equal(actual, expected)


@on_targets
@pytest.mark.parametrize("mode", ["asymmetric", "half_pixel", "align_corners"])
def test_resize_nearest(mode, target):
    data, out = tensor(size=(4, 5)), tensor(size=(9, 3))
    (x,) = drawn(data)
    places = resize.nearest(4, 9, mode) + resize.nearest(5, 3, mode)
    spec = resize.ResizeSpec(1, data, out, linear=False)
    actual = computed(resize.build_resize, spec, (x,), (data,), places, target)
    np.testing.assert_array_equal(actual, x[:, :, places[0]][:, :, :, places[1]])


@on_targets
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("mode", ["asymmetric", "half_pixel", "align_corners"])
def test_resize_bilinear(mode, signed, target):
    data, out = tensor(size=(4, 5)), tensor(size=(9, 13))
    (x,) = drawn(data)
    rows, down = resize.between(4, 9, mode, signed)
    columns, right = resize.between(5, 13, mode, signed)
    spec = resize.ResizeSpec(1, data, out, linear=True, signed=signed)
    parameters = [rows, down, columns, right]
    actual = computed(resize.build_resize, spec, (x,), (data,), parameters, target)
    one, shift = (1024, 128) if signed else (1.0, 0)
    exact = np.zeros((1, 20, 9, 13))
    for i, vertical in enumerate((one - down, down)):
        for j, horizontal in enumerate((one - right, right)):
            pixels = x[:, :, rows[:, i]][:, :, :, columns[:, j]].astype(np.float64) - shift
            exact += pixels * np.multiply.outer(vertical, horizontal.astype(np.float64))
    exact = exact / one**2
    if signed:
        expected = np.copysign(np.floor(np.abs(exact) + 0.5), exact) + 128
        np.testing.assert_array_equal(actual, expected)
    else:
        assert np.abs(actual - exact).max() < 0.501
