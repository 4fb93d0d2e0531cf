"""int16 chains of ``vpmaddubsw``: taken where the weights prove them exact, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from relaxquant.kernels.intrinsics import instruction_set, proven_free_of_saturation
from relaxquant.kernels.pack import channel_quads
from tests.kernels import reference
from tests.kernels.harness import (
    RUNNABLE,
    Layer,
    conv_layer,
    examples,
    implement,
    run_layer,
    target_of,
)
from tests.kernels.test_saturation import INT16, SATURATING, extreme_layer, run_with

# Largest weight with which a chain is always exact: 255 * 2 * chain * weight fits int16.
SAFE = {2: ["32", "-32", "signs of 32"], 4: ["16", "-16"]}
UNSAFE = {2: ["64", "-64", "signs of 64"], 4: ["32", "-32", "signs of 32"]}
CHAINS = [(chain, weights) for chain in SAFE for weights in SAFE[chain]]
BROKEN = [(chain, weights) for chain in UNSAFE for weights in UNSAFE[chain]]


def dot_of(isa, chain: int):
    """The dot product with a chain of that length."""
    return next(dot for dot in isa.dots if dot.chain == chain)


def chosen(layer: Layer, isa) -> str:
    """The instructions that the direct schedule takes for a layer."""
    return implement(layer, isa, spatial_pack).instructions


def wrapped(layer: Layer, chain: int) -> np.ndarray:
    """What a chain makes of a layer of one block: pairs saturate, their sum wraps around int16."""
    spec, total = layer.spec, 0
    channels = np.arange(spec.data.channels)
    quad, pair = channels // 4, channels // 2 % 2
    for tap in np.ndindex(*spec.window.kernel):
        for link in range(4 // chain):
            for lane in (0, 1):
                lane_sum = 0
                for step in range(link * chain, (link + 1) * chain):
                    weight = np.zeros_like(layer.weights.weight)
                    pick = (quad == step) & (pair == lane)
                    weight[:, pick, *tap] = layer.weights.weight[:, pick, *tap]
                    data = layer.data.astype(np.int64)
                    products = reference.convolve(data, weight, spec.window, spec.groups)
                    lane_sum = lane_sum + np.clip(products, INT16.min, INT16.max)
                total = total + lane_sum.astype(np.int16).astype(np.int64)
    acc = total + layer.weights.bias[:, None, None]
    return acc.astype(np.float32) * layer.weights.multiplier[:, None, None]


def one_block(layer: Layer) -> Layer:
    """The layer without the channels of its second block."""
    weights = replace(layer.weights, weight=np.ascontiguousarray(layer.weights.weight[:, :16]))
    spec = replace(layer.spec, data=replace(layer.spec.data, channels=16))
    return replace(layer, spec=spec, weights=weights, data=layer.data[:, :16])


@pytest.mark.parametrize("target", ["avx2", "avx512"])
@pytest.mark.parametrize("chain, weights", BROKEN)
def test_without_the_guard_a_chain_is_wrong(chain, weights, target):
    """Exactly as wrong as int16 makes it; with the guard another is taken and all is right."""
    layer = one_block(extreme_layer(weights))
    isa = instruction_set(target_of(target))
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    unguarded = run_with(dot_of(isa, chain), layer, target)
    assert (unguarded != expected).any()
    np.testing.assert_array_equal(unguarded, wrapped(layer, chain))
    assert chosen(layer, isa) == dot_of(isa, chain // 2).name
    np.testing.assert_array_equal(run_layer(layer, target, spatial_pack), expected)


@pytest.mark.parametrize("target", ["avx2", "avx512"])
@pytest.mark.parametrize("chain, weights", CHAINS)
def test_chains_are_exact_at_their_limit(chain, weights, target):
    layer = one_block(extreme_layer(weights))
    assert chosen(layer, instruction_set(target_of(target))) == f"{chain} x vpmaddubsw+vpmaddwd"
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    np.testing.assert_array_equal(run_layer(layer, target, spatial_pack), expected)


@pytest.mark.parametrize("isa", SATURATING, ids=lambda isa: isa.name)
def test_the_sum_of_a_chain_counts_not_its_largest_weight(isa):
    """Weights of 100 do not rule a chain out where their neighbours are small or of other sign."""
    layer = conv_layer(channels=16, out_channels=16, kernel=(1, 1))
    for values, chain in [
        ([100, -100, 28, -28, 0, 0, 0, 0], 4),
        ([100, 28, 0, 0, 0, 0, 0, 0, 29], 2),  # the ninth is in the second chain of two
        ([100, 28, 0, 0, 1], 1),
        ([100, 29], None),
        ([-100, -28], 4),
        ([-100, -29], None),
    ]:
        weight = np.zeros((16, 16, 1, 1), np.int8)
        weight[3, : len(values), 0, 0] = values
        dot = isa.dot_for(channel_quads(weight, 16), steps=4)
        assert (dot.chain if dot.pairs_saturate else None) == chain, values
        changed = replace(layer, weights=replace(layer.weights, weight=weight))
        assert chosen(changed, isa).split(", ")[-1] == dot.name, "for all weights"


@pytest.mark.parametrize("isa", SATURATING, ids=lambda isa: isa.name)
def test_who_does_not_ask_for_steps_gets_no_chain(isa):
    assert isa.dot_for(np.ones((8, 4), np.int8)).chain == 1
    assert isa.dot_for(np.ones((8, 4), np.int8), steps=2).chain == 2


def test_an_image_of_four_channels_has_one_four_a_tap():
    layer = conv_layer(channels=3, block=4, weight_max=7, kernel=(3, 3))
    for isa in SATURATING:
        assert chosen(layer, isa) == "vpmaddubsw+vpmaddwd"


def test_small_activations_allow_longer_chains():
    """With 7 bits of activations a chain holds weights twice as large."""
    quads = np.full((1, 4, 4), 32, np.int8)
    assert proven_free_of_saturation(quads, 255, chain=2)
    assert not proven_free_of_saturation(quads, 255, chain=4)
    assert proven_free_of_saturation(quads, 127, chain=4)
    isa = SATURATING[0]
    assert isa.dot_for(quads, activation_max=127, steps=4).chain == 4


@st.composite
def chains_of_fours(draw):
    """(chain, fours as (chains, chain, 4)), near the limit more often than not."""
    chain = draw(st.sampled_from([1, 2, 4]))
    limit = 64 // chain
    weight = st.one_of(
        st.integers(-128, 127), st.sampled_from([-limit - 1, -limit, 0, limit, limit + 1])
    )
    count = draw(st.integers(1, 3))
    flat = draw(st.lists(weight, min_size=count * chain * 4, max_size=count * chain * 4))
    return chain, np.array(flat, np.int8).reshape(count, chain, 4)


@given(chains_of_fours(), st.sampled_from([1, 63, 100, 127, 128, 254, 255]))
def test_proof_is_brute_force_over_a_chain(case, activation_max):
    """Every choice of 0 or the largest activation, which hold the extremes of a linear sum."""
    chain, quads = case
    picks = np.array(list(np.ndindex(*[2] * (2 * chain)))) * activation_max
    lanes = quads.astype(np.int64).reshape(-1, chain, 2, 2).transpose(0, 2, 1, 3)
    sums = lanes.reshape(-1, 2 * chain) @ picks.T
    fits = bool(sums.min() >= INT16.min and sums.max() <= INT16.max)
    assert proven_free_of_saturation(quads, activation_max, chain) == fits


@given(
    st.integers(1, 40),
    st.sampled_from([3, 16, 24, 32, 40, 64]),
    st.sampled_from([(1, 1), (3, 3), (2, 3)]),
    st.integers(0, 2**32 - 1),
    st.sampled_from(RUNNABLE),
)
@examples(12)
def test_any_narrow_weights(channels, weight_max, kernel, seed, target):
    """Whatever chain the weights are proven for, with activations at the extremes."""
    layer = conv_layer(
        channels=channels,
        out_channels=32,
        kernel=kernel,
        padding=(1, 0, 1, 1),
        zero_point=seed % 256,
        weight_max=weight_max,
        seed=seed,
    )
    data = np.where(layer.data < 100, 0, 255).astype(np.uint8)
    layer = replace(layer, data=data)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    np.testing.assert_array_equal(run_layer(layer, target, spatial_pack), expected)
