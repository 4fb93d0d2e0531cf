"""Two dot products in one kernel: the faster one in the pieces that are proven for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from relaxquant.kernels.dot_choice import choose_dots, dot_for_all
from relaxquant.kernels.intrinsics import (
    AVX2,
    AVX512_VNNI,
    NEON_DOTPROD,
    instruction_set,
    proven_free_of_saturation,
)
from relaxquant.kernels.pack import channel_quads, pack_conv
from relaxquant.kernels.tile import Tile
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
from tests.kernels.test_saturation import SATURATING


def layer_with(large: dict[tuple, int], small: int = 10, channels: int = 32) -> Layer:
    """All activations 255 and all weights ``small``, but for those at (o, i, kh, kw) given."""
    layer = conv_layer(
        channels=channels, out_channels=32, padding=(1, 1, 1, 1), zero_point=9, out_dtype="float32"
    )
    weight = np.full_like(layer.weights.weight, small)
    for at, value in large.items():
        weight[at] = value
    weights = replace(layer.weights, weight=weight)
    return replace(layer, weights=weights, data=np.full_like(layer.data, 255))


def choice(layer: Layer, isa, tile_channels: int = 16):
    """What `choose_dots` says of a layer."""
    packed = pack_conv(layer.spec, layer.weights.weight, tile_channels)
    everywhere = dot_for_all(layer.spec, layer.weights, isa)
    return choose_dots(layer.spec, everywhere, isa, packed)


# Two neighbours of 60 beside small ones: 60 + 60 + 10 + 10 > 128 denies one chain of two.
ONE_LARGE = {(17, 4, 2, 1): 60, (17, 5, 2, 1): 60}


@pytest.mark.parametrize("isa", SATURATING, ids=lambda isa: isa.name)
def test_one_large_pair_denies_one_piece_only(isa):
    dots = choice(layer_with(ONE_LARGE), isa)
    assert (dots.everywhere.chain, dots.often.chain) == (1, 4)
    assert dots.proven.shape == (2, 2, 3, 3)  # tiles, blocks, kernel
    assert [tuple(at) for at in np.argwhere(dots.proven == 0)] == [(1, 0, 2, 1)]
    assert str(dots) == "4 x vpmaddubsw+vpmaddwd in 97 %, vpmaddubsw+vpmaddwd"


def test_no_branch_where_nothing_is_gained():
    assert choice(layer_with({}), AVX2).often is None, "all is proven: the chain is everywhere"
    assert choice(layer_with({}, small=60), AVX2).often is None, "nothing is proven"
    few = {(o, 0, kh, kw): 127 for o in (0, 16) for kh in range(3) for kw in range(3)}
    mostly_large = layer_with(few, channels=16)
    assert choice(mostly_large, AVX2).often is None, "no piece is without a large one"
    for isa in (AVX512_VNNI, NEON_DOTPROD):
        assert choice(layer_with(ONE_LARGE), isa).often is None, "one exact dot product"
    fp32 = conv_layer(dtype="float32")
    assert choice(fp32, AVX2).everywhere is None and str(choice(fp32, AVX2)) == "fp32 multiply-add"


def test_full_range_weights_may_use_the_fast_instruction_here_and_there():
    dots = choice(layer_with({(0, 0, 0, 0): 127, (0, 1, 0, 0): 127}, small=20), AVX2)
    assert dots.everywhere.name == "vpmaddwd" and dots.often.name == "2 x vpmaddubsw+vpmaddwd"


@pytest.mark.parametrize("target", ["avx2", "avx512"])
def test_without_the_table_the_layer_is_wrong(target):
    """The table is the guard: with all pieces marked as proven the large pair overflows."""
    layer = layer_with(ONE_LARGE)
    isa = instruction_set(target_of(target))
    implementation = implement(layer, isa, spatial_pack, Tile(16 // isa.lanes, 3))
    assert "4 x" in implementation.instructions and "%" in implementation.instructions
    library = build(implementation.build(), target_of(target))
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    actual = run_implementation(library, implementation, layer)
    np.testing.assert_array_equal(actual, expected)
    after_weights = implementation.arguments[2:]
    tables = [a for a in after_weights if getattr(a, "dtype", None) == np.uint8]
    assert len(tables) == 1
    unguarded = [
        np.ones_like(a) if any(a is table for table in tables) else a
        for a in implementation.arguments
    ]
    wrong = run_implementation(library, replace(implementation, arguments=unguarded), layer)
    assert (wrong[:, 17] != expected[:, 17]).any()
    others = np.arange(32) != 17
    np.testing.assert_array_equal(wrong[:, others], expected[:, others])


@st.composite
def spread_layers(draw):
    """Bell-shaped weights, as networks have them: large ones are rare."""
    layer = conv_layer(
        channels=draw(st.integers(1, 50)),
        out_channels=draw(st.integers(1, 40)),
        size=(draw(st.integers(3, 7)), draw(st.integers(3, 12))),
        kernel=draw(st.sampled_from([(1, 1), (3, 3), (1, 3)])),
        strides=draw(st.sampled_from([(1, 1), (2, 2)])),
        padding=draw(st.tuples(*[st.integers(0, 1)] * 4)),
        zero_point=draw(st.sampled_from([0, 128, 7])),
        residual=draw(st.sampled_from([None, "uint8"])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    largest = draw(st.sampled_from([40, 64, 127]))
    weight = rng.standard_normal(layer.weights.weight.shape) * largest / 4
    weight = np.clip(np.rint(weight), -largest, largest).astype(np.int8)
    data = np.where(layer.data < 60, 0, 255).astype(np.uint8)
    return replace(layer, weights=replace(layer.weights, weight=weight), data=data)


@given(spread_layers(), st.sampled_from(["avx2", "avx512"]))
@examples(15)
def test_layers_with_two_dot_products_are_exact(layer, target):
    target = target_of(target)
    implementation = implement(layer, instruction_set(target), spatial_pack)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    library = build(implementation.build(), target)
    np.testing.assert_array_equal(run_implementation(library, implementation, layer), expected)


@given(spread_layers(), st.sampled_from([8, 16]))
@examples(60)
def test_the_table_is_the_proof_of_each_piece(layer, tile_channels):
    """Each entry says what the proof says of the same weights, cut out of the unpacked ones."""
    dots = choice(layer, AVX2, tile_channels)
    if dots.often is None:
        return
    quads = channel_quads(layer.weights.weight, 16)
    for tile, block, kh, kw in np.ndindex(*dots.proven.shape):
        channels = slice(tile * tile_channels, (tile + 1) * tile_channels)
        piece = quads[channels, kh, kw, 4 * block : 4 * block + 4]
        proven = proven_free_of_saturation(piece, chain=dots.often.chain)
        assert dots.proven[tile, block, kh, kw] == proven
