"""The guard against int16 saturation: what it prevents, and that it is neither lax nor strict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import conv2d_nchw_spatial_pack as direct
from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from relaxquant.kernels.intrinsics import (
    INSTRUCTION_SETS,
    DotProduct,
    instruction_set,
    proven_free_of_saturation,
)
from relaxquant.kernels.pack import channel_quads
from relaxquant.kernels.tile import Tile
from tests.kernels import reference
from tests.kernels.harness import (
    TARGETS,
    Layer,
    build,
    conv_layer,
    implement,
    run_implementation,
    run_layer,
    stored_bits,
    target_of,
)

SATURATING = [isa for isa in INSTRUCTION_SETS if any(dot.pairs_saturate for dot in isa.dots)]
INT16 = np.iinfo(np.int16)


def extreme_layer(weights: str, activations: int = 255) -> Layer:
    """All activations alike, all weights at the ends of a range."""
    layer = conv_layer(channels=20, out_channels=16, padding=(1, 1, 1, 1), out_dtype="float32")
    shape = layer.weights.weight.shape
    signs = np.random.default_rng(0).choice([-1, 1], shape)
    filled = {
        "127": np.full(shape, 127),
        "-127": np.full(shape, -127),
        "-128": np.full(shape, -128),
        "signs of 127": 127 * signs,
        "-128 and 127": np.where(signs < 0, -128, 127),
        "64": np.full(shape, 64),
        "-64": np.full(shape, -64),
        "signs of 64": 64 * signs,
        "32": np.full(shape, 32),
        "-32": np.full(shape, -32),
        "signs of 32": 32 * signs,
        "16": np.full(shape, 16),
        "-16": np.full(shape, -16),
    }[weights]
    return replace(
        layer,
        weights=replace(layer.weights, weight=filled.astype(np.int8)),
        data=np.full_like(layer.data, activations),
    )


UNSAFE = ["127", "-127", "-128", "signs of 127", "-128 and 127"]
SAFE = ["64", "-64", "signs of 64"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weights", UNSAFE + SAFE)
def test_extreme_values_are_exact(weights, target):
    layer = extreme_layer(weights)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    np.testing.assert_array_equal(run_layer(layer, target, spatial_pack), expected)


def run_with(dot: DotProduct, layer: Layer, target: str) -> np.ndarray:
    """The layer by a dot product of the test's choice, whatever its weights."""
    isa = instruction_set(target_of(target))
    tile = Tile(1, 2)
    implementation = implement(layer, isa, spatial_pack, tile)
    bits = stored_bits(layer, tile.vectors * isa.lanes)
    library = build(direct.build(layer.spec, isa, dot, tile, bits=bits), target_of(target))
    return run_implementation(library, implementation, layer)


def saturated(layer: Layer) -> np.ndarray:
    """What ``vpmaddubsw`` makes of the layer: the sum of two products stops at int16."""
    spec, total = layer.spec, 0
    channels = np.arange(spec.data.channels)
    for first in channels[::2]:
        pair = np.isin(channels, [first, first + 1])
        for tap in np.ndindex(*spec.window.kernel):
            weight = np.zeros_like(layer.weights.weight)
            weight[:, pair, *tap] = layer.weights.weight[:, pair, *tap]
            data = layer.data.astype(np.int64)
            products = reference.convolve(data, weight, spec.window, spec.groups)
            total = total + np.clip(products, INT16.min, INT16.max)
    acc = total + layer.weights.bias[:, None, None]
    return acc.astype(np.float32) * layer.weights.multiplier[:, None, None]


@pytest.mark.parametrize("target", ["avx2", "avx512"])
@pytest.mark.parametrize("weights", UNSAFE)
def test_without_the_guard_such_weights_are_wrong(weights, target):
    """Exactly as wrong as the instruction's definition says, and exact by the other instruction."""
    *_, fast, exact = instruction_set(target_of(target)).dots
    layer = extreme_layer(weights)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    unguarded = run_with(fast, layer, target)
    assert (unguarded != expected).any()
    np.testing.assert_array_equal(unguarded, saturated(layer))
    np.testing.assert_array_equal(run_with(exact, layer, target), expected)


@pytest.mark.parametrize("isa", SATURATING, ids=lambda isa: isa.name)
def test_unsafe_weights_get_the_widening_dot_product(isa):
    for weights in UNSAFE:
        layer = extreme_layer(weights)
        dot = isa.dot_for(channel_quads(layer.weights.weight))
        assert (dot.name, dot.pairs_saturate) == ("vpmaddwd", False), weights


@pytest.mark.parametrize("isa", SATURATING, ids=lambda isa: isa.name)
def test_weights_within_64_get_the_fast_dot_product(isa):
    for weights in SAFE:
        layer = extreme_layer(weights)
        dot = isa.dot_for(channel_quads(layer.weights.weight))
        assert dot.name == "vpmaddubsw+vpmaddwd", weights


def test_every_instruction_set_ends_with_an_exact_dot_product():
    for isa in INSTRUCTION_SETS:
        assert not isa.dots[-1].pairs_saturate, isa.name


def test_one_unsafe_pair_is_found_wherever_it_is():
    """Only weights side by side in a pair add up: the same two elsewhere are safe."""
    layer = conv_layer(channels=20, weight_max=30)
    weight = layer.weights.weight
    assert proven_free_of_saturation(channel_quads(weight))
    for first, second, safe in [(18, 19, False), (0, 1, False), (1, 2, True), (0, 2, True)]:
        changed = weight.copy()
        changed[7, [first, second], 2, 1] = 70
        assert proven_free_of_saturation(channel_quads(changed)) == safe


def sums_fit_int16(quads: np.ndarray, activations: np.ndarray) -> bool:
    """Brute force: every pair of weights with every pair of the activations."""
    pairs = quads.reshape(-1, 2).astype(np.int64)
    x, y = np.meshgrid(activations, activations)
    sums = pairs[:, :1] * x.ravel() + pairs[:, 1:] * y.ravel()
    return bool(sums.min() >= INT16.min and sums.max() <= INT16.max)


@pytest.mark.parametrize("activation_max", [255, 127, 128])
def test_proof_is_brute_force_for_every_pair_of_weights(activation_max):
    extremes = np.array([0, activation_max])
    for first in range(-128, 128, 1 if activation_max == 255 else 5):
        for second in range(-128, 128):
            quads = np.array([[first, second, 0, 0]], np.int8)
            proven = proven_free_of_saturation(quads, activation_max)
            assert proven == sums_fit_int16(quads, extremes), (first, second)


weights_near_the_limit = st.one_of(
    st.integers(-128, 127), st.sampled_from([-128, -127, -65, -64, 63, 64, 65, 127])
)


@given(
    st.lists(st.lists(weights_near_the_limit, min_size=4, max_size=4), min_size=1, max_size=5),
    st.integers(1, 255),
)
def test_proof_is_brute_force_over_all_activations(quads, activation_max):
    quads = np.array(quads, np.int8)
    every = np.arange(activation_max + 1)
    assert proven_free_of_saturation(quads, activation_max) == sums_fit_int16(quads, every)
