"""int8 convolutions against the NumPy model, bit for bit, on every schedule and instruction set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import depthwise_nchw_spatial_pack as depthwise
from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from relaxquant.kernels.conv2d_reference import plain_loops
from relaxquant.kernels.depthwise_nchw_spatial_pack import depthwise_spatial_pack
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.spec import Window
from relaxquant.kernels.tile import Tile
from tests.kernels import reference
from tests.kernels.harness import (
    RUNNABLE,
    TARGETS,
    Layer,
    build,
    conv_layer,
    examples,
    implement,
    run_implementation,
    run_layer,
    target_of,
)

RULES = {
    "direct": spatial_pack,
    "depthwise": depthwise_spatial_pack,
    "reference": plain_loops,
}
PIXELS = (1, 2, 3, 4, 5, 7)


def check(layer: Layer, target: str, rule: str, tile: Tile | None = None) -> None:
    """The kernel's output is the model's."""
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(run_layer(layer, target, RULES[rule], tile), expected)


# Layers chosen to hurt: for each, what a careless kernel would get wrong.
DIRECT = {
    "one pixel": dict(size=(1, 1), kernel=(1, 1)),
    "last tile narrower": dict(size=(3, 30), padding=(1, 1, 1, 1)),
    "channels in a part of a block": dict(channels=3, out_channels=5, padding=(1, 1, 1, 1)),
    "channels over two blocks": dict(channels=17, out_channels=33, kernel=(1, 1)),
    "borders count as zero point": dict(zero_point=128, padding=(1, 1, 1, 1)),
    "odd zero points, residual": dict(
        zero_point=77,
        out_zero_point=3,
        residual="uint8",
        residual_zero_point=131,
        padding=(1, 1, 1, 1),
    ),
    "float residual into uint8": dict(residual="float32", out_zero_point=128, clip=True),
    "uint8 residual into float": dict(
        out_dtype="float32", residual="uint8", residual_zero_point=9, clip=True
    ),
    "float residual into float": dict(out_dtype="float32", residual="float32"),
    "asymmetric border": dict(
        zero_point=5, padding=(0, 2, 1, 0), kernel=(3, 2), strides=(2, 1), size=(8, 9)
    ),
    "border wider than the image": dict(
        zero_point=200, size=(2, 3), padding=(7, 6, 5, 9), kernel=(3, 5), strides=(2, 3)
    ),
    "dilation skips the image": dict(
        zero_point=1, size=(4, 4), padding=(4, 4, 4, 4), dilation=(4, 5), kernel=(3, 2)
    ),
    "stride skips a tap": dict(zero_point=9, kernel=(1, 1), strides=(3, 2), padding=(1, 2, 0, 1)),
    "image of four channels": dict(
        channels=3,
        block=4,
        zero_point=128,
        kernel=(7, 7),
        strides=(2, 2),
        padding=(3, 3, 3, 3),
        size=(15, 18),
    ),
    "groups of blocks": dict(
        channels=32, out_channels=64, groups=2, zero_point=7, padding=(1, 0, 1, 0)
    ),
    "groups of fours": dict(channels=8, out_channels=32, groups=2, block=4, kernel=(2, 3)),
    "symbolic batch": dict(batch=3, symbolic=True, zero_point=128, padding=(1, 1, 1, 1)),
    "feature vector": dict(batch=2, size=(1, 1), kernel=(1, 1), channels=40, out_channels=10),
    "sums saturate at int8": dict(narrow=8, zero_point=128, padding=(1, 1, 1, 1)),
    "sums saturate at int16": dict(narrow=16, channels=80, residual="uint8", zero_point=3),
}
DEPTHWISE = {
    "one block": dict(zero_point=128, padding=(1, 1, 1, 1)),
    "one channel": dict(channels=1, size=(5, 4)),
    "last block in part": dict(channels=21, strides=(2, 2), padding=(0, 1, 1, 0), zero_point=3),
    "large kernel, residual": dict(
        channels=19, kernel=(5, 7), padding=(2, 9, 1, 0), residual="uint8", residual_zero_point=4
    ),
    "dilation": dict(channels=32, dilation=(3, 2), padding=(4, 4, 4, 4), zero_point=255, batch=2),
    "symbolic batch": dict(batch=2, symbolic=True, out_dtype="float32", residual="float32"),
}
REFERENCE = {
    "groups inside a block": dict(channels=6, out_channels=9, groups=3, zero_point=5),
    "channel multiplier": dict(channels=5, out_channels=10, groups=5, padding=(1, 1, 0, 2)),
    "plain layout": dict(channels=5, block=1, zero_point=128, padding=(2, 0, 0, 3), batch=2),
    "symbolic batch, residual": dict(batch=2, symbolic=True, residual="float32", clip=True),
}


def with_depthwise_groups(layer: dict) -> dict:
    """The layer with one group a channel."""
    channels = layer.get("channels", 16)
    return layer | {"channels": channels, "out_channels": channels, "groups": channels}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", DIRECT)
def test_direct_on_nasty_layers(name, target):
    check(conv_layer(**DIRECT[name]), target, "direct")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise_on_nasty_layers(name, target):
    check(conv_layer(**with_depthwise_groups(DEPTHWISE[name])), target, "depthwise")


@pytest.mark.parametrize("target", ["generic", "native"])
@pytest.mark.parametrize("name", REFERENCE)
def test_reference_on_nasty_layers(name, target):
    check(conv_layer(**REFERENCE[name]), target, "reference")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("pixels", PIXELS)
def test_every_width_of_a_register_tile(pixels, target):
    layer = conv_layer(size=(3, 19), padding=(1, 1, 1, 1), zero_point=33, strides=(1, 2))
    check(layer, target, "direct", Tile(1, pixels))


@st.composite
def windows(draw, largest: int = 7):
    """A window and an image size that gives at least one pixel."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    sizes = st.sampled_from([k for k in (1, 2, 3, 5, 7) if k <= largest])
    window = Window(
        kernel=draw(st.tuples(sizes, sizes)),
        strides=draw(pair),
        padding=draw(st.tuples(*[st.integers(0, 4)] * 4)),
        dilation=draw(pair),
    )
    top, left, bottom, right = window.padding
    least = [
        max(1, step * (kernel - 1) + 1 - padding)
        for step, kernel, padding in zip(
            window.dilation, window.kernel, (top + bottom, left + right), strict=True
        )
    ]
    size = draw(st.integers(least[0], least[0] + 7)), draw(st.integers(least[1], least[1] + 29))
    return {
        "kernel": window.kernel,
        "strides": window.strides,
        "padding": window.padding,
        "dilation": window.dilation,
        "size": size,
    }


@st.composite
def epilogues(draw):
    """Everything about a layer but its window and channels."""
    zero_points = st.one_of(st.sampled_from([0, 128]), st.integers(0, 255))
    return {
        "batch": draw(st.integers(1, 3)),
        "symbolic": draw(st.booleans()),
        "zero_point": draw(zero_points),
        "out_dtype": draw(st.sampled_from(["uint8", "float32"])),
        "out_zero_point": draw(zero_points),
        "residual": draw(st.sampled_from([None, "uint8", "float32"])),
        "residual_zero_point": draw(zero_points),
        "clip": draw(st.booleans()),
        "narrow": draw(st.sampled_from([None, None, 8, 16])),
        "weight_max": draw(st.sampled_from([7, 25, 64, 127])),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@st.composite
def direct_channels(draw):
    """Channels, groups and block that the direct schedule takes."""
    block = draw(st.sampled_from([4, 16]))
    groups = draw(st.integers(1, 3))
    if groups == 1:
        channels = {"channels": draw(st.integers(1, 40)), "out_channels": draw(st.integers(1, 70))}
    else:
        channels = {
            "channels": groups * block * draw(st.integers(1, 2)),
            "out_channels": groups * 16 * draw(st.integers(1, 3)),
        }
    return channels | {"block": block, "groups": groups}


def draw_tile(draw, layer: Layer, target: str) -> Tile:
    """A register tile whose vectors divide the output channels of a group."""
    spec = layer.spec
    channels = spec.out.padded_channels // spec.groups
    vectors = channels // instruction_set(target_of(target)).lanes
    counts = [count for count in (1, 2, 3, 4, 6) if vectors % count == 0]
    return Tile(draw(st.sampled_from(counts)), draw(st.sampled_from(PIXELS)))


@given(windows(), direct_channels(), epilogues(), st.sampled_from(RUNNABLE), st.data())
@examples(50)
def test_direct(window, channels, epilogue, target, data):
    layer = conv_layer(**window, **channels, **epilogue)
    check(layer, target, "direct", draw_tile(data.draw, layer, target))


@given(windows(), st.integers(1, 40), epilogues(), st.sampled_from(RUNNABLE))
@examples(30)
def test_depthwise(window, channels, epilogue, target):
    layer = conv_layer(**with_depthwise_groups(window | epilogue | {"channels": channels}))
    check(layer, target, "depthwise")


@st.composite
def any_groups(draw):
    """Channels of the reference schedule: groups of every size, every layout."""
    groups = draw(st.integers(1, 6))
    return {
        "groups": groups,
        "channels": groups * draw(st.integers(1, 5)),
        "out_channels": groups * draw(st.integers(1, 5)),
        "block": draw(st.sampled_from([1, 4, 16])),
    }


@given(windows(largest=5), any_groups(), epilogues(), st.sampled_from(RUNNABLE))
@examples(30)
def test_reference(window, channels, epilogue, target):
    check(conv_layer(**window, **channels, **epilogue), target, "reference")


def test_one_kernel_runs_every_batch():
    target = target_of("native")
    layer = conv_layer(symbolic=True, residual="uint8", zero_point=128, padding=(1, 1, 1, 1))
    rule = spatial_pack
    library = build(implement(layer, instruction_set(target), rule).build(), target)
    for batch in (1, 2, 5):
        larger = conv_layer(
            symbolic=True, residual="uint8", zero_point=128, padding=(1, 1, 1, 1), batch=batch
        )
        assert larger.spec == layer.spec
        implementation = implement(larger, instruction_set(target), rule)
        expected = reference.conv2d_int8(larger.spec, larger.weights, larger.data, larger.residual)
        np.testing.assert_array_equal(run_implementation(library, implementation, larger), expected)


@pytest.mark.parametrize("rule", ["direct", "reference"])
@pytest.mark.parametrize("bias", [-(2**31), 2**31 - 1])
def test_bias_next_to_the_end_of_int32(bias, rule):
    """The zero-point correction leaves int32 on its own; the whole sum does not."""
    layer = conv_layer(zero_point=128, out_dtype="float32")
    sign = -1 if bias > 0 else 1
    data = np.where(layer.data < 128, 255, layer.data).astype(np.uint8)
    weights = replace(
        layer.weights,
        weight=np.full_like(layer.weights.weight, sign * 100),
        bias=np.full_like(layer.weights.bias, bias),
    )
    check(replace(layer, data=data, weights=weights), "native", rule)


@pytest.mark.parametrize("target", TARGETS)
def test_ties_round_to_even(target):
    """A multiplier of exactly one half puts every odd accumulator on a tie."""
    layer = conv_layer(kernel=(1, 1), channels=1, out_channels=1, size=(16, 16))
    weights = replace(
        layer.weights,
        weight=np.ones_like(layer.weights.weight),
        bias=np.zeros_like(layer.weights.bias),
        multiplier=np.array([0.5], np.float32),
    )
    data = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    layer = replace(layer, weights=weights, data=data)
    outputs = run_layer(layer, target, spatial_pack).ravel()
    assert outputs[[1, 3, 5, 7]].tolist() == [0, 2, 2, 4]
    np.testing.assert_array_equal(outputs, np.rint(np.arange(256) / 2))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("zero_point", [0, 131, 255])
def test_the_ends_of_int32_saturate(zero_point, target):
    """Half of the largest accumulators there are, rounded and with the zero point, fit int32."""
    layer = conv_layer(
        kernel=(1, 1), channels=1, out_channels=4, size=(3, 5), out_zero_point=zero_point
    )
    weights = replace(
        layer.weights,
        weight=np.zeros_like(layer.weights.weight),
        bias=np.array([-(2**31), 2**31 - 1, -300, 300], np.int32),
        multiplier=np.full(4, 0.5, np.float32),
    )
    layer = replace(layer, weights=weights)
    assert layer.spec.epilogue.saturates
    check(layer, target, "direct")
    outputs = run_layer(layer, target, spatial_pack)[0, :, 0, 0]
    assert outputs.tolist()[:2] == [0, 255]


def test_depthwise_takes_one_kernel_a_channel_only():
    """Channel multipliers and groups go to other schedules instead of being computed wrongly."""
    one_each = conv_layer(channels=20, out_channels=20, groups=20).spec
    assert depthwise.applies(one_each)
    assert not depthwise.applies(conv_layer(channels=20, out_channels=40, groups=20).spec)
    assert not depthwise.applies(conv_layer(channels=20, out_channels=20, groups=10).spec)
    assert not depthwise.applies(conv_layer(channels=4, out_channels=4, groups=4, block=4).spec)
