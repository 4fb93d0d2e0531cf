"""Layers whose weights have zero points, against the NumPy model, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from relaxquant.kernels.conv2d_reference import plain_loops
from relaxquant.kernels.dense_nchw_spatial_pack import dense_spatial_pack
from relaxquant.kernels.depthwise_nchw_spatial_pack import depthwise_spatial_pack
from relaxquant.kernels.image_nchw_spatial_pack import image_spatial_pack
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.registry import SCHEDULES, implement_conv2d
from tests.kernels import reference
from tests.kernels.harness import (
    RUNNABLE,
    TARGETS,
    Layer,
    build,
    conv_layer,
    examples,
    run_implementation,
    run_layer,
    target_of,
)
from tests.kernels.test_conv2d_int8 import direct_channels, epilogues, windows


def layer_of(**fields) -> Layer:
    """A random layer with a zero point for each output channel, or for all of them."""
    return conv_layer(**{"weight_zero_points": "each"} | fields)


def check(layer: Layer, target: str, rule) -> None:
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(run_layer(layer, target, rule), expected)


DIRECT = {
    "1x1 on one pixel": dict(size=(1, 1), kernel=(1, 1), zero_point=3),
    "1x1 on a long row": dict(size=(2, 37), kernel=(1, 1), channels=48, zero_point=128),
    "padded channels hold anything": dict(channels=19, kernel=(1, 1), size=(3, 9)),
    "padded columns and rows": dict(zero_point=77, padding=(2, 1, 1, 3), size=(5, 9)),
    "border wider than the image": dict(
        zero_point=200, size=(2, 3), padding=(7, 6, 5, 9), kernel=(3, 5), strides=(2, 3)
    ),
    "dilation skips the image": dict(
        zero_point=1, size=(4, 4), padding=(4, 4, 4, 4), dilation=(4, 5), kernel=(3, 2)
    ),
    "strided 1x1": dict(zero_point=9, kernel=(1, 1), strides=(2, 2), size=(9, 11)),
    "image of four channels": dict(
        channels=3, block=4, zero_point=128, strides=(2, 2), padding=(0, 0, 1, 1), size=(10, 12)
    ),
    "groups of blocks": dict(
        channels=32, out_channels=64, groups=2, zero_point=7, padding=(1, 0, 1, 0)
    ),
    "nhwc": dict(channels=40, nhwc=True, zero_point=7, padding=(1, 1, 1, 1)),
    "sums saturate": dict(narrow=16, zero_point=3, residual="uint8"),
    "few bits": dict(weight_max=3, zero_point=3, size=(17, 9)),
    "one zero point": dict(weight_zero_points="common", zero_point=7, padding=(1, 1, 1, 1)),
    "one for an image": dict(
        weight_zero_points="common", channels=3, block=4, zero_point=9, size=(9, 40)
    ),
    "one in nhwc": dict(weight_zero_points="common", nhwc=True, zero_point=7, kernel=(1, 1)),
    "symbolic batch": dict(batch=3, symbolic=True, zero_point=128, out_dtype="float32"),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", DIRECT)
def test_direct(name, target):
    check(layer_of(**DIRECT[name]), target, spatial_pack)


@pytest.mark.parametrize("target", TARGETS)
def test_image_with_its_border_in_memory(target):
    layer = layer_of(
        channels=3,
        halo=True,
        zero_point=131,
        kernel=(7, 7),
        strides=(2, 2),
        padding=(3, 2, 3, 4),
        size=(15, 18),
    )
    check(layer, target, image_spatial_pack)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("nhwc", [False, True])
def test_dense_on_several_images(target, nhwc):
    fields = dict(batch=5, size=(1, 1), kernel=(1, 1), channels=40, out_channels=20, zero_point=11)
    check(layer_of(nhwc=nhwc, **fields), target, dense_spatial_pack)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rule", [depthwise_spatial_pack, plain_loops])
def test_one_kernel_a_channel(rule, target):
    fields = dict(channels=21, out_channels=21, groups=21, padding=(1, 1, 1, 1), zero_point=3)
    check(layer_of(**fields), target, rule)


@given(
    windows(),
    direct_channels(),
    epilogues(),
    st.sampled_from(["common", "each"]),
    st.sampled_from(RUNNABLE),
)
@examples(8)
def test_any_direct_layer(window, channels, epilogue, zero_points, target):
    fields = window | channels | epilogue | {"weight_zero_points": zero_points}
    check(layer_of(**fields), target, spatial_pack)


def test_sums_of_the_extremes_are_exact():
    """255 * 255 for every tap: products of weights that need nine bits."""
    layer = layer_of(channels=64, kernel=(1, 1), out_dtype="float32")
    weights = replace(
        layer.weights,
        weight=np.full_like(layer.weights.weight, 127),
        zero_point=np.full_like(layer.weights.zero_point, -128),
        bias=np.zeros_like(layer.weights.bias),
        multiplier=np.ones_like(layer.weights.multiplier),
    )
    layer = replace(layer, weights=weights, data=np.full_like(layer.data, 255))
    assert (run_layer(layer, "native", spatial_pack) == 255 * 255 * 64).all()


@pytest.mark.parametrize("schedule", ["auto", *dict.fromkeys(row.name for row in SCHEDULES)])
def test_whatever_schedule_is_asked_for(schedule):
    """Schedules that know nothing of such zero points leave the layer to one that does."""
    target = target_of("native")
    for fields in (dict(channels=32, out_channels=32, size=(9, 9)), dict(kernel=(1, 1))):
        layer = layer_of(zero_point=5, **fields)
        arguments = layer.spec, layer.weights, instruction_set(target), schedule
        implementation = implement_conv2d(*arguments)
        assert implementation.schedule in ("nchw_spatial_pack", "reference")
        library = build(implementation.build(), target)
        expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
        np.testing.assert_array_equal(run_implementation(library, implementation, layer), expected)


def test_vnni_adds_four_bytes_at_once():
    target = target_of("native")
    isa = instruction_set(target)
    if "vnni" not in isa.name and "vbmi" not in isa.name:
        pytest.skip("this CPU has no VNNI")
    layer = layer_of(channels=64, out_channels=32, kernel=(1, 1), size=(4, 16))
    plain = conv_layer(channels=64, out_channels=32, kernel=(1, 1), size=(4, 16))

    def dots(layer: Layer) -> int:
        implementation = spatial_pack(layer.spec, layer.weights, isa)
        return build(implementation.build(), target).inspect_source("asm").count("vpdpbusd")

    assert dots(layer) > dots(plain)
