"""Conversions of layout and precision against the NumPy model, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import convert
from relaxquant.kernels.convert import ConvertSpec
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.spec import TensorSpec
from tests.kernels import reference
from tests.kernels.harness import (
    RUNNABLE,
    TARGETS,
    build,
    examples,
    random_tensor,
    run,
    target_of,
    to_memory,
)


def check(
    data: TensorSpec, out: TensorSpec, target_name: str, *, scale=1.0, batch=2, symbolic=False
) -> None:
    """Compare the kernel with the model."""
    target = target_of(target_name)
    spec = ConvertSpec(None if symbolic else batch, data, out)
    stored = random_tensor(np.random.default_rng(data.channels), data, batch)
    low, high = -np.inf, 1.5
    if out.integers:
        low, high = (end - out.zero_point for end in out.integers)
    library = build(convert.build(spec, instruction_set(target)), target)
    bounds = np.array([low, high, scale], np.float32)
    actual = run(library, [to_memory(stored, data), bounds], out)
    expected = reference.convert(stored, data, out, scale, low, high)
    np.testing.assert_array_equal(actual, expected)


def image(channels, width, dtype, block, zero_point=0, height=3) -> TensorSpec:
    """A tensor of the given layout."""
    return TensorSpec(channels, height, width, dtype, block, zero_point)


CONVERSIONS = {
    "quantize": (image(20, 5, "float32", 16), image(20, 5, "uint8", 16, 128), 40.0),
    "dequantize": (image(20, 5, "uint8", 16, 77), image(20, 5, "float32", 16), 0.011),
    "requantize": (image(20, 5, "uint8", 16, 3), image(20, 5, "uint8", 16, 200), 0.83),
    "clip": (image(20, 5, "float32", 16), image(20, 5, "float32", 16), 1.0),
    "pack": (image(20, 5, "float32", 1), image(20, 5, "float32", 16), 1.0),
    "pack and quantize": (image(20, 5, "float32", 1), image(20, 5, "uint8", 16, 128), 40.0),
    "unpack": (image(20, 5, "float32", 16), image(20, 5, "float32", 1), 1.0),
    "unpack and dequantize": (image(20, 5, "uint8", 16, 9), image(20, 5, "float32", 1), 0.3),
    "quantize plain": (image(5, 4, "float32", 1), image(5, 4, "uint8", 1, 1), 60.0),
    "uint8 image to NCHW4c": (image(3, 20, "uint8", 1, 5), image(3, 20, "uint8", 4, 128), 0.9),
    "six channels to NCHW4c": (image(6, 20, "float32", 1), image(6, 20, "uint8", 4, 128), 40.0),
    "quantize to int16": (image(20, 5, "float32", 16), image(20, 5, "int16", 16), 9000.0),
    "dequantize int16": (image(20, 5, "int16", 16), image(20, 5, "float32", 1), 0.011),
    "int16 image to NCHW4c": (image(3, 20, "float32", 1), image(3, 20, "int16", 4), 9000.0),
    "NCHW4c to NCHW16c": (image(3, 5, "uint8", 4, 128), image(3, 5, "uint8", 16, 128), 1.0),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CONVERSIONS)
def test_conversions(name, target):
    data, out, scale = CONVERSIONS[name]
    check(data, out, target, scale=scale)


@pytest.mark.parametrize("name", ["quantize", "pack and quantize", "unpack"])
def test_symbolic_batch(name):
    data, out, scale = CONVERSIONS[name]
    check(data, out, "native", scale=scale, symbolic=True, batch=3)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("block_in, block_out", [(1, 16), (16, 1), (1, 1)])
def test_feature_vectors(block_in, block_out, target):
    """A vector of features is (batch, C) where it is not blocked."""
    data = TensorSpec(21, 1, 1, "float32", block_in, rank=2)
    out = TensorSpec(21, 1, 1, "uint8", block_out, zero_point=128, rank=2)
    check(data, out, target, scale=50.0)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "channels, width", [(3, 1), (3, 7), (3, 8), (3, 9), (3, 16), (1, 17), (4, 30)]
)
@pytest.mark.parametrize("dtype, zero_point, scale", [("uint8", 128, 45.0), ("int16", 0, 12000.0)])
def test_float_image_to_nchw4c(dtype, zero_point, scale, channels, width, target):
    """Widths below, at and above whole vectors."""
    data = image(channels, width, "float32", 1)
    check(data, image(channels, width, dtype, 4, zero_point), target, scale=scale)


def test_float_image_with_symbolic_batch():
    check(image(3, 33, "float32", 1), image(3, 33, "uint8", 4), "native", scale=90.0, symbolic=True)


layouts = st.tuples(st.sampled_from(["uint8", "int16", "float32"]), st.sampled_from([1, 4, 16]))


@given(
    st.integers(1, 35),
    st.integers(1, 33),
    st.tuples(layouts, layouts),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
    st.floats(2**-10, 100, width=32),
    st.sampled_from(RUNNABLE),
)
@examples(20)
def test_any_conversion(channels, width, pair, zero_points, scale, target):
    data, out = (
        image(channels, width, dtype, block, zero_point if dtype == "uint8" else 0)
        for (dtype, block), zero_point in zip(pair, zero_points, strict=True)
    )
    check(data, out, target, scale=scale)


def callers(dtype: str, channels=3, width=21) -> TensorSpec:
    """An image as a caller of a TFLite model has it."""
    zero_point = {"uint8": 128, "int8": 5}[dtype]
    return TensorSpec(channels, 4, width, dtype, 1, zero_point, channels_last=True)


PIXELS = {
    "in fours": {"block": 4},
    "with a border": {"block": 3, "halo": (1, 2, 1, 3)},
    "in sixteens": {"block": 16},
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("layout", PIXELS)
def test_bytes_of_a_caller_are_copied(layout, dtype, target):
    data = callers(dtype)
    shift = 128 if dtype == "int8" else 0
    zero_point = data.zero_point + shift
    out = TensorSpec(3, 4, 21, "uint8", zero_point=zero_point, **PIXELS[layout])
    isa, limits = instruction_set(target_of(target)), np.iinfo(dtype)
    generator = np.random.default_rng(3)
    x = generator.integers(limits.min, limits.max + 1, (2, 4, 21, 3)).astype(dtype)
    bounds = np.array([-zero_point, 255 - zero_point, 1], np.float32)
    library = build(convert.build(ConvertSpec(2, data, out, copies=True), isa), target_of(target))
    expected = (x.astype(int) + shift).transpose(0, 3, 1, 2)
    top, left, bottom, right = out.halo or (0, 0, 0, 0)
    border = ((0, 0), (0, 0), (top, bottom), (left, right))
    expected = np.pad(expected, border, constant_values=zero_point)
    np.testing.assert_array_equal(run(library, [x, bounds], out), expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_bytes_are_given_to_a_caller(dtype, target):
    out = callers(dtype, channels=20, width=5)
    shift = 128 if dtype == "int8" else 0
    data = TensorSpec(20, 4, 5, "uint8", zero_point=out.zero_point + shift)
    stored = random_tensor(np.random.default_rng(0), data, 2)
    bounds = np.array([-np.inf, np.inf, 1], np.float32)
    bounds[:2] = [end - out.zero_point for end in (np.iinfo(dtype).min, np.iinfo(dtype).max)]
    library = build(
        convert.build(ConvertSpec(2, data, out), instruction_set(target_of(target))),
        target_of(target),
    )
    given_back = np.empty((2, 4, 5, 20), dtype)
    tensors = [tvm.runtime.tensor(a) for a in (to_memory(stored, data), bounds, given_back)]
    library["main"](*tensors)
    expected = stored.transpose(0, 2, 3, 1).astype(int) - shift
    np.testing.assert_array_equal(tensors[-1].numpy(), expected)
