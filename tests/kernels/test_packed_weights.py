"""Direct convolution and dense layers with weights of 1 to 7 bits: exact, and as small as said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import implement_conv2d
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.pack import pack_conv
from relaxquant.kernels.weight_store import bits_of_panels, rows_of_task
from tests.kernels import reference
from tests.kernels.harness import (
    RUNNABLE,
    Layer,
    build,
    conv_layer,
    examples,
    run_implementation,
    target_of,
)
from tests.kernels.test_weight_bits import BITS, random_weights

DENSE = {"size": (1, 1), "kernel": (1, 1)}
SCHEDULE = "nchw_spatial_pack"


def low_bit_layer(bits: int, seed: int = 0, **layer) -> Layer:
    """A layer whose weights use all codes of n bits."""
    built = conv_layer(**layer, weight_max=max((1 << bits - 1) - 1, 1), seed=seed)
    weight = random_weights(bits, built.weights.weight.shape, seed)
    return replace(built, weights=replace(built.weights, weight=weight))


def implementation_of(layer: Layer, target: str):
    """What the schedule table gives for a layer by the direct schedule."""
    return implement_conv2d(layer.spec, layer.weights, instruction_set(target_of(target)), SCHEDULE)


def check(layer: Layer, target: str) -> None:
    """Compare with the NumPy model, bit for bit."""
    implementation = implementation_of(layer, target)
    assert implementation.schedule == SCHEDULE
    library = build(implementation.build(), target_of(target))
    actual = run_implementation(library, implementation, layer)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(actual, expected)


@given(
    bits=st.sampled_from(BITS),
    batch=st.integers(1, 2),
    symbolic=st.booleans(),
    channels=st.integers(1, 50),
    out_channels=st.integers(1, 50),
    size=st.tuples(st.integers(3, 20), st.integers(3, 20)),
    kernel=st.sampled_from([(1, 1), (3, 3), (1, 3), (2, 2)]),
    strides=st.sampled_from([(1, 1), (2, 2), (2, 1)]),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    zero_point=st.sampled_from([0, 8, 128]),
    out_zero_point=st.sampled_from([0, 3]),
    residual=st.sampled_from([None, "uint8", "float32"]),
    clip=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    target=st.sampled_from(RUNNABLE),
)
@examples(40)
def test_convolutions_bit_for_bit(target, **layer):
    check(low_bit_layer(**layer), target)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("groups, channels", [(1, 48), (2, 64)])
def test_every_width_in_tasks_of_several_rows(bits, groups, channels):
    """13 rows of 21 pixels: two tasks, of which the last is shorter."""
    assert rows_of_task(13, 21, bits) == 7
    layer = low_bit_layer(
        bits,
        channels=channels,
        out_channels=32 * groups,
        groups=groups,
        size=(13, 21),
        padding=(1, 1, 1, 1),
        zero_point=128,
    )
    check(layer, "native")


@given(
    bits=st.sampled_from(BITS),
    batch=st.integers(1, 9),
    symbolic=st.booleans(),
    channels=st.sampled_from([1, 16, 40, 64, 80, 96]),
    out_channels=st.sampled_from([1, 16, 48, 64, 80]),
    zero_point=st.sampled_from([0, 9]),
    residual=st.sampled_from([None, "float32"]),
    out_dtype=st.sampled_from(["uint8", "float32"]),
    seed=st.integers(0, 2**32 - 1),
    target=st.sampled_from(RUNNABLE),
)
@examples(30)
def test_dense_bit_for_bit(target, **layer):
    check(low_bit_layer(**DENSE, **layer), target)


@pytest.mark.parametrize("bits", BITS)
def test_first_layer(bits):
    layer = low_bit_layer(
        bits, channels=3, kernel=(7, 7), strides=(2, 2), padding=(3, 3, 3, 3), size=(21, 20),
        out_channels=32, halo=True, zero_point=114,
    )  # fmt: skip
    assert implementation_of(layer, "native").key[0] == "image"
    check(layer, "native")


@pytest.mark.parametrize("bits", [1, 4])
def test_depthwise_stays_int8(bits):
    layer = low_bit_layer(bits, channels=32, out_channels=32, groups=32)
    weight = implementation_of(layer, "native").arguments[1]
    assert weight.dtype == np.int8
    check(layer, "native")


@pytest.mark.parametrize("target", RUNNABLE)
@pytest.mark.parametrize("layer", [{"padding": (1, 1, 1, 1)}, DENSE, DENSE | {"batch": 4}])
@pytest.mark.parametrize("bits", BITS)
def test_bytes_fall_with_the_bits(bits, layer, target):
    built = low_bit_layer(bits, channels=256, out_channels=32, **layer)
    weight = implementation_of(built, target).arguments[1]
    assert weight.dtype == np.uint8
    assert weight.nbytes * 8 == built.weights.weight.size * bits


def test_eight_bits_lie_as_they_are():
    weight = implementation_of(conv_layer(), "native").arguments[1]
    assert weight.dtype == np.int8 and weight.nbytes == 16 * 16 * 9


def test_padded_channels_have_a_zero_or_do_not_matter():
    """-1 and 1 take two bits where input channels are padded, whose activations may be anything."""
    for channels, out_channels, bits in [(20, 16, 2), (16, 20, 1), (32, 16, 1)]:
        layer = low_bit_layer(1, channels=channels, out_channels=out_channels)
        panels = pack_conv(layer.spec, layer.weights.weight, 16)
        assert bits_of_panels(panels, layer.spec) == bits
        check(layer, "native")


def test_layers_of_other_widths_do_not_share_a_kernel():
    keys = {
        implementation_of(low_bit_layer(bits, channels=32, out_channels=32), "native").key
        for bits in [*BITS, 8]
    }
    assert len(keys) == 8


def test_a_dense_layer_decodes_in_registers():
    """Nothing is allocated: every weight is used once."""
    for layer, allocates in [(DENSE, False), (DENSE | {"batch": 3}, True), ({}, True)]:
        built = low_bit_layer(4, channels=256, out_channels=32, **layer)
        implementation = implementation_of(built, "native")
        code = build(implementation.build(), target_of("native")).inspect_source("ll")
        assert ("AllocWorkspace" in code) == allocates, layer
