"""int16 convolutions against the NumPy model, bit for bit, for int8 and int16 weights."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant import target as targets
from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from relaxquant.kernels.conv2d_reference import plain_loops
from relaxquant.kernels.dense_nchw_spatial_pack import dense_spatial_pack
from relaxquant.kernels.depthwise_nchw_spatial_pack import depthwise_spatial_pack
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.registry import implement_conv2d
from tests.kernels import reference
from tests.kernels.harness import (
    RUNNABLE,
    TARGETS,
    Layer,
    build,
    conv_layer,
    examples,
    implement,
    run_layer,
)
from tests.kernels.test_conv2d_int8 import (
    any_groups,
    direct_channels,
    draw_tile,
    epilogues,
    windows,
    with_depthwise_groups,
)

RULES = {
    "direct": spatial_pack,
    "dense": dense_spatial_pack,
    "depthwise": depthwise_spatial_pack,
    "reference": plain_loops,
}
WEIGHTS = {"int8": 127, "int16": 32767}


def int16_layer(weight_dtype: str, **layer) -> Layer:
    """A layer of int16 data, whose weights go as far as int32 sums allow."""
    settings = {"out_dtype": "int16", "dtype": "int16", "weight_dtype": weight_dtype}
    return conv_layer(**settings | {"weight_max": WEIGHTS[weight_dtype]} | layer)


def check(layer: Layer, target: str, rule: str, tile=None) -> None:
    """The kernel's output is the model's."""
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(run_layer(layer, target, RULES[rule], tile), expected)


LAYERS = {
    "3x3": ("direct", dict(channels=17, out_channels=33, padding=(1, 1, 1, 1), size=(5, 17))),
    "image": ("direct", dict(channels=3, block=4, kernel=(7, 7), strides=(2, 2), size=(15, 18))),
    "residual": ("direct", dict(kernel=(1, 1), residual="int16", clip=True, channels=40)),
    "into uint8": ("direct", dict(out_dtype="uint8", out_zero_point=3, residual="uint8")),
    "into float": ("direct", dict(out_dtype="float32", residual="int16")),
    "groups": ("direct", dict(channels=32, out_channels=64, groups=2, padding=(1, 0, 1, 0))),
    "symbolic batch": ("direct", dict(batch=3, symbolic=True, padding=(1, 1, 1, 1))),
    "dense": ("dense", dict(batch=5, size=(1, 1), kernel=(1, 1), channels=40, out_channels=50)),
    "depthwise": ("depthwise", with_depthwise_groups(dict(channels=21, padding=(0, 1, 1, 0)))),
    "odd groups": ("reference", dict(channels=6, out_channels=9, groups=3, residual="int16")),
    "plain layout": ("reference", dict(channels=5, block=1, padding=(2, 0, 0, 3), batch=2)),
}


@pytest.mark.parametrize("weight_dtype", WEIGHTS)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LAYERS)
def test_on_nasty_layers(name, target, weight_dtype):
    rule, settings = LAYERS[name]
    check(int16_layer(weight_dtype, **settings), target, rule)


@st.composite
def int16_epilogues(draw):
    """Everything about a layer but its window and channels."""
    dtypes = st.sampled_from(["int16", "uint8", "float32"])
    weight_dtype = draw(st.sampled_from(sorted(WEIGHTS)))
    return draw(epilogues()) | {
        "out_dtype": draw(dtypes),
        "residual": draw(st.none() | dtypes),
        "weight_dtype": weight_dtype,
        "weight_max": draw(st.sampled_from([3, WEIGHTS[weight_dtype]])),
    }


@given(windows(), direct_channels(), int16_epilogues(), st.sampled_from(RUNNABLE), st.data())
@examples(15)
def test_direct(window, channels, epilogue, target, data):
    layer = int16_layer(**window, **channels, **epilogue)
    check(layer, target, "direct", draw_tile(data.draw, layer, target))


@given(windows(), st.integers(1, 40), int16_epilogues(), st.sampled_from(RUNNABLE))
@examples(6)
def test_depthwise(window, channels, epilogue, target):
    layer = int16_layer(**with_depthwise_groups(window | epilogue | {"channels": channels}))
    check(layer, target, "depthwise")


@given(windows(largest=5), any_groups(), int16_epilogues(), st.sampled_from(RUNNABLE))
@examples(6)
def test_reference(window, channels, epilogue, target):
    check(int16_layer(**window, **channels, **epilogue), target, "reference")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_sums_at_the_end_of_int32(sign, target):
    """The largest magnitudes that the proof lets pass: one more would wrap around."""
    layer = int16_layer("int16", channels=2, out_channels=16, kernel=(1, 1), out_dtype="float32")
    data = np.full_like(layer.data, -(2**15))
    weights = replace(
        layer.weights,
        weight=np.full_like(layer.weights.weight, -sign * 2**14),
        bias=np.full_like(layer.weights.bias, sign * (2**30 - 1)),
    )
    assert 2 * 2**15 * 2**14 + 2**30 - 1 == 2**31 - 1
    check(replace(layer, data=data, weights=weights), target, "direct")


# Per CPU: what multiplies pairs of int16.
CODE = {
    "znver3": "vpmaddwd",
    "alderlake": "vpdpwssd",
    "skylake-avx512": "vpmaddwd",
    "znver4": "vpdpwssd",
}


@pytest.mark.parametrize("weight_dtype", WEIGHTS)
@pytest.mark.parametrize("cpu", CODE)
def test_instructions(cpu, weight_dtype):
    """One multiplication for each vector of the tile, one widening for all of its pixels."""
    target = targets.resolve(cpu)
    layer = int16_layer(weight_dtype, channels=32, out_channels=64, size=(1, 8), kernel=(1, 1))
    isa = instruction_set(target)
    implementation = implement(layer, isa, spatial_pack)
    code = build(implementation.build(), target).inspect_source("asm")
    assert CODE[cpu] in code
    # LLVM splits some vpdpwssd into the two instructions it stands for, to shorten a chain of them.
    multiplies = len(re.findall(r"\b(?:vpmaddwd|vpdpwssd)\b", code))
    tile = implementation.tile
    assert multiplies % (tile.vectors * tile.pixels) == 0 < multiplies
    widened = len(re.findall(r"\bvpmovsxbw\b", code))
    assert widened == (multiplies // tile.pixels if weight_dtype == "int8" else 0)
    assert CODE[cpu] in implementation.instructions


def test_weights_of_int8_stay_bytes_in_memory():
    """Widening is done in registers; layers of both kinds do not share a kernel."""
    isa = instruction_set(targets.resolve("x86-64-v3"))
    both = [
        implement_conv2d(layer.spec, layer.weights, isa)
        for layer in (int16_layer("int8"), int16_layer("int16"))
    ]
    assert [found.arguments[1].dtype for found in both] == [np.int8, np.int16]
    assert both[0].key != both[1].key
