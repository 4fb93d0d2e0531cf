"""Sums in int16 over whole blocks: how long they are is proven, and the proof is needed."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import implement_conv2d
from relaxquant.kernels import short_nchw_spatial_pack as short
from relaxquant.kernels.choose import preferences
from relaxquant.kernels.epilogue import conv_arguments
from relaxquant.kernels.intrinsics import AVX2, AVX512, AVX512_VNNI
from relaxquant.kernels.pack import pack_conv
from relaxquant.kernels.short_sums import longest_run
from relaxquant.kernels.tile import Tile
from relaxquant.kernels.weight_store import bits_of_panels, stored
from tests.kernels import reference
from tests.kernels.harness import (
    Layer,
    build,
    conv_layer,
    examples,
    implement,
    run_implementation,
    target_of,
)
from tests.kernels.test_packed_weights import low_bit_layer

INT16 = np.iinfo(np.int16)


def narrow(layer: Layer, bits: int, extremes: bool = True) -> Layer:
    """The layer with activations of n bits, near their ends if so asked."""
    largest = (1 << bits) - 1
    data = np.where(layer.data < 80, 0, largest) if extremes else layer.data & largest
    spec = replace(layer.spec, data=replace(layer.spec.data, largest=largest))
    return replace(layer, spec=spec, data=data.astype(np.uint8))


def check(layer: Layer, tile: Tile | None = None) -> None:
    """Compare with the NumPy model, bit for bit."""
    target = target_of("avx2")
    implementation = implement(layer, AVX2, short.short_spatial_pack, tile)
    actual = run_implementation(build(implementation.build(), target), implementation, layer)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(actual, expected)


@given(
    widths=st.sampled_from([(1, 8), (2, 8), (4, 4), (3, 6), (7, 2), (8, 1)]),
    batch=st.integers(1, 2),
    symbolic=st.booleans(),
    channels=st.integers(1, 70),
    out_channels=st.integers(1, 40),
    size=st.tuples(st.integers(6, 12), st.integers(6, 17)),
    kernel=st.sampled_from([(3, 3), (2, 3)]),
    strides=st.sampled_from([(1, 1), (2, 2), (2, 1)]),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    has_zero=st.booleans(),
    residual=st.sampled_from([None, "uint8"]),
    seed=st.integers(0, 2**32 - 1),
)
@examples(30)
def test_bit_for_bit(widths, has_zero, **layer):
    weight_bits, activation_bits = widths
    zero_point = (1 << activation_bits - 1) if has_zero else 0
    build_layer = conv_layer if weight_bits == 8 else low_bit_layer
    layer |= {} if weight_bits == 8 else {"bits": weight_bits}
    check(narrow(build_layer(zero_point=zero_point, **layer), activation_bits))


@pytest.mark.parametrize("tile", [Tile(1, 4), Tile(2, 3), Tile(2, 4)])
@pytest.mark.parametrize("groups", [1, 2])
def test_pointwise_with_runs_that_do_not_divide_the_blocks(groups, tile):
    layer = low_bit_layer(
        4, channels=16 * 23 * groups, out_channels=32 * groups, kernel=(1, 1), groups=groups, seed=3
    )
    layer = narrow(layer, 7)
    run = longest_run(layer.spec, layer.weights.weight)
    assert 6 <= run < 23 and 23 % run
    check(layer, tile)


def sums_of_runs(layer: Layer, run: int) -> tuple[int, int]:
    """The lowest and highest int16 lane, by the activations that are worst for it."""
    weight, block = layer.weights.weight.astype(np.int64), 16
    lowest = highest = 0
    for first in range(0, weight.shape[1], run * block):
        part = weight[:, first : first + run * block]
        for lane in (0, 1):
            pick = np.arange(part.shape[1]) // 2 % 2 == lane
            highest = max(highest, np.maximum(part[:, pick], 0).sum(axis=(1, 2, 3)).max())
            lowest = min(lowest, np.minimum(part[:, pick], 0).sum(axis=(1, 2, 3)).min())
    return lowest * layer.spec.data.largest, highest * layer.spec.data.largest


@given(
    st.integers(1, 5),
    st.sampled_from([(1, 1), (3, 3)]),
    st.sampled_from([3, 7, 20, 60, 127]),
    st.sampled_from([1, 4, 6, 8]),
    st.integers(0, 2**32 - 1),
)
@examples(60)
def test_the_longest_run_is_the_longest_that_fits(blocks, kernel, weight_max, bits, seed):
    layer = conv_layer(channels=16 * blocks, kernel=kernel, weight_max=weight_max, seed=seed)
    layer = narrow(layer, bits)
    run = longest_run(layer.spec, layer.weights.weight)
    fits = {
        length
        for length in {-(-blocks // parts) for parts in range(1, blocks + 1)}
        if sums_of_runs(layer, length)[0] >= INT16.min
        and sums_of_runs(layer, length)[1] <= INT16.max
    }
    assert run == max(fits, default=0)


def at_the_limit(excess: int) -> Layer:
    """Eight blocks of 1 x 1, one output channel of large weights whose sum is int16's and more."""
    layer = conv_layer(
        channels=128, out_channels=16, kernel=(1, 1), size=(3, 8), out_dtype="float32"
    )
    layer = narrow(layer, 8)
    weight = np.zeros_like(layer.weights.weight)
    weight[5, 0::4] = 4  # 32 fours of one lane: 128 in all, 32640 with 255
    weight[5, 4] += excess
    return replace(
        layer,
        weights=replace(layer.weights, weight=weight),
        data=np.full_like(layer.data, 255),
    )


def test_the_bound_is_attained():
    for excess, run in [(0, 8), (1, 4)]:
        layer = at_the_limit(excess)
        assert longest_run(layer.spec, layer.weights.weight) == run
    check(at_the_limit(0))


def test_without_the_proof_the_layer_is_wrong():
    """The run that is proven for less gives what int16 makes of more: 32895 is -32641."""
    layer = at_the_limit(1)
    implementation = implement(at_the_limit(0), AVX2, short.short_spatial_pack)
    tile = implementation.tile
    proven = implement(layer, AVX2, short.short_spatial_pack, tile)
    assert proven is None, "runs of 16 fours are left to chains"
    panels = pack_conv(layer.spec, layer.weights.weight, tile.vectors * AVX2.lanes)
    bits = bits_of_panels(panels, layer.spec)
    function = short.build(layer.spec, AVX2, tile, bits, 8)
    arguments = conv_arguments(layer.spec, layer.weights, [stored(panels, bits, AVX2)])
    unproven = replace(implementation, arguments=arguments)
    actual = run_implementation(build(function, target_of("avx2")), unproven, layer)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    others = np.arange(16) != 5
    np.testing.assert_array_equal(actual[:, others], expected[:, others])
    assert (actual[:, 5] != expected[:, 5]).all()


def test_which_layers_it_takes():
    layers = {
        "w4a8": narrow(low_bit_layer(2, channels=32), 8),
        "w8a8": conv_layer(channels=32),
        "one pixel": narrow(low_bit_layer(2, channels=256, size=(1, 1), kernel=(1, 1)), 4),
        "short": narrow(low_bit_layer(2, channels=64, kernel=(1, 1)), 4),
    }
    taken = [n for n, layer in layers.items() if implement(layer, AVX2, short.short_spatial_pack)]
    assert taken == ["w4a8"]
    layer = layers["w4a8"]
    assert implement_conv2d(layer.spec, layer.weights, AVX2, short.NAME).key[0] == "short"
    for isa in (AVX512, AVX512_VNNI):
        assert implement_conv2d(layer.spec, layer.weights, isa, short.NAME).key[0] == "direct"


def test_auto_leaves_int16_winograd_for_it():
    """Which is as fast and would read seven times the bytes of 4-bit weights."""
    size = {"channels": 32, "out_channels": 32, "size": (12, 12), "padding": (1, 1, 1, 1)}
    for layer, asked in [
        (conv_layer(**size), True),
        (narrow(low_bit_layer(4, **size), 4), False),
    ]:
        rules = preferences(layer.spec, layer.weights, AVX2)
        assert ("nchw_winograd_int" in [rule.schedule for rule in rules]) == asked


def test_one_widening_for_a_run():
    """As many additions in int16 as products, and few widenings even in the loops' text."""
    layer = narrow(low_bit_layer(4, channels=64, out_channels=32, size=(9, 12)), 4)
    implementation = implement(layer, AVX2, short.short_spatial_pack)
    assert implementation.instructions == "144 x vpmaddubsw"
    code = build(implementation.build(), target_of("avx2")).inspect_source("asm")
    names = ("vpmaddubsw", "vpmaddwd", "vpaddw", "vpaddsw")
    products, widened, added, saturating = (len(re.findall(rf"\b{n}\b", code)) for n in names)
    assert products == added > 0 and saturating == 0
    assert 0 < 3 * widened < products
