"""The first convolution: images with their border in memory, and the conversion that makes them."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import convert
from relaxquant.kernels import image_nchw_spatial_pack as image
from relaxquant.kernels.conv2d_reference import plain_loops
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.registry import SCHEDULES
from relaxquant.kernels.spec import TensorSpec, Window
from tests.kernels import reference
from tests.kernels.harness import (
    RUNNABLE,
    build,
    conv_layer,
    examples,
    run_layer,
    target_of,
    to_memory,
)

STEM = {"kernel": (7, 7), "strides": (2, 2), "padding": (3, 3, 3, 3), "halo": True}


def check(layer, target: str, rule=image.image_spatial_pack) -> None:
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(run_layer(layer, target, rule), expected)


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("weight_max", [64, 127])
def test_stem_of_a_resnet(target, weight_max):
    layer = conv_layer(channels=3, size=(19, 23), zero_point=114, weight_max=weight_max, **STEM)
    check(layer, target)


def test_reference_schedule_reads_the_same_image():
    check(conv_layer(channels=3, size=(9, 8), zero_point=5, **STEM), "native", plain_loops)


@pytest.mark.parametrize("row", SCHEDULES, ids=lambda row: f"{row.name}-{row.rule.__name__}")
def test_no_schedule_mistakes_an_image_with_a_border(row):
    """Each row of the table leaves the layer to others, or computes it."""
    layer = conv_layer(channels=3, size=(9, 8), zero_point=5, **STEM)
    isa = instruction_set(target_of("native"))
    if "int8" in row.precisions and row.rule(layer.spec, layer.weights, isa) is not None:
        check(layer, "native", row.rule)


@given(
    channels=st.integers(1, 3),
    width=st.integers(5, 7),
    height=st.integers(1, 3),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 3)] * 4),
    size=st.tuples(st.integers(7, 11), st.integers(7, 20)),
    zero_point=st.sampled_from([0, 3, 255]),
    out_channels=st.sampled_from([5, 16, 32]),
    target=st.sampled_from(RUNNABLE),
    batch=st.sampled_from([1, 2]),
)
@examples(25)
def test_windows_and_borders(channels, width, height, size, target, **layer):
    built = conv_layer(channels=channels, kernel=(height, width), size=size, halo=True, **layer)
    check(built, target)


def test_halo_holds_what_the_last_four_of_the_last_pixel_reads():
    data = TensorSpec(3, 224, 224, "uint8", 4)
    window = Window((7, 7), (2, 2), (3, 3, 3, 3))
    top, left, bottom, right = image.halo(data, window)
    assert (top, left, bottom) == (3, 3, 3)
    assert (left + 224 + right) * 3 >= 111 * 2 * 3 + 4 * 6


@pytest.mark.parametrize(
    "channels, window",
    [(3, Window((3, 3))), (4, Window((7, 7))), (3, Window((7, 7), dilation=(1, 2)))],
)
def test_no_halo_where_nothing_is_saved(channels, window):
    assert image.halo(TensorSpec(channels, 32, 32, "uint8", 4), window) is None


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("width", [3, 16, 37])
def test_conversion_writes_the_border_and_every_pixel(target, channels, width):
    plain = TensorSpec(channels, 6, width, "float32", 1)
    out = TensorSpec(channels, 6, width, "uint8", channels, zero_point=7, halo=(2, 1, 1, 3))
    isa = instruction_set(target_of(target))
    library = build(convert.build(convert.ConvertSpec(2, plain, out), isa), target_of(target))
    data = np.random.default_rng(width).normal(0, 60, (2, channels, 6, width)).astype(np.float32)
    bounds = np.array([-7, 248, 1.5], np.float32)
    memory = np.full(out.physical_shape(2), 255, np.uint8)
    output = tvm.runtime.tensor(memory)
    library["main"](*map(tvm.runtime.tensor, (data, bounds)), output)
    stored = reference.from_float(data * np.float32(1.5), -7, 248, out)
    np.testing.assert_array_equal(output.numpy(), to_memory(stored, out))
