"""Convolutions by AND and population count against the NumPy model, bit for bit."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import implement_conv2d
from relaxquant.kernels.conv2d_nchw_bit_serial import bit_serial, pack_words
from relaxquant.kernels.ideal import bit_serial_speedup
from relaxquant.kernels.intrinsics import AVX2, AVX512_VBMI, AVX512_VNNI, instruction_set
from relaxquant.kernels.lookup_plan import weight_planes
from relaxquant.kernels.tile import possible_tiles
from tests.kernels import reference
from tests.kernels.harness import Layer, build, examples, run_layer, target_of
from tests.kernels.test_conv2d_int8 import epilogues, windows
from tests.kernels.test_instructions import resolve
from tests.kernels.test_lookup import DOES_NOT_APPLY, NASTY, WIDTHS, few_bits, full


@pytest.fixture
def native():
    """This CPU's instruction set, if it counts bits."""
    isa = instruction_set(target_of("native"))
    if isa.bit_count is None:
        pytest.skip("this CPU has no instruction that counts the bits of every lane")
    return isa


def check(layer: Layer, tile=None) -> None:
    """The kernel's output is the model's."""
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(run_layer(layer, "native", bit_serial, tile), expected)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("name", NASTY)
def test_nasty_layers(name):
    check(few_bits(*WIDTHS[list(NASTY).index(name) % len(WIDTHS)], **NASTY[name]))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("weight_bits, activation_bits", WIDTHS)
def test_widths(weight_bits, activation_bits):
    check(few_bits(weight_bits, activation_bits, channels=20, padding=(1, 1, 1, 1)))


@given(
    windows(largest=5),
    epilogues(),
    st.tuples(st.integers(1, 80), st.integers(1, 70)),
    st.tuples(st.integers(1, 4), st.integers(1, 8)),
    st.data(),
)
@examples(15)
def test_any_layer(window, epilogue, channels, widths, data):
    isa = instruction_set(target_of("native"))
    if isa.bit_count is None:
        pytest.skip("this CPU has no instruction that counts the bits of every lane")
    layer = few_bits(
        *widths,
        **window | {"dilation": (1, 1)},
        **epilogue | {"weight_max": 127},
        channels=channels[0],
        out_channels=channels[1],
    )
    tiles = possible_tiles(layer.spec, isa, isa.bit_count)
    check(layer, data.draw(st.sampled_from(tiles)))


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("weight_bits", [1, 2, 4])
def test_all_bits_set(weight_bits):
    check(full(512, weight_bits, 8, size=(3, 3)))


@pytest.mark.parametrize("name", DOES_NOT_APPLY)
def test_where_it_does_not_apply(name):
    layer = DOES_NOT_APPLY[name]
    assert bit_serial(layer.spec, layer.weights, AVX512_VBMI) is None


def test_it_needs_an_instruction_that_counts():
    layer = few_bits(1, 1)
    assert bit_serial(layer.spec, layer.weights, AVX512_VBMI) is not None
    for isa in (AVX2, AVX512_VNNI):
        assert bit_serial(layer.spec, layer.weights, isa) is None


def test_weights_are_stored_as_bits():
    layer = few_bits(2, 1, channels=64, out_channels=64)
    planes = weight_planes(layer.weights.weight)
    packed = pack_words(layer.spec, planes, 32)
    assert packed.nbytes == layer.weights.weight.size * 2 / 8
    word = packed.view(np.uint32)[1, 0, 2, 1 * 2 + 1, 5]  # second word of the centre column
    bits = planes[0, 32 + 5, 32:, 2, 1]
    assert word == sum(int(bit) << k for k, bit in enumerate(bits))


def chosen(weight_bits: int, activation_bits: int, **layer) -> str:
    """The schedule that ``auto`` gives a layer."""
    layer = {"channels": 64, "out_channels": 64, "padding": (1, 1, 1, 1)} | layer
    layer = few_bits(weight_bits, activation_bits, size=(14, 14), **layer)
    return implement_conv2d(layer.spec, layer.weights, AVX512_VBMI).schedule


def test_auto_takes_it_where_there_are_fewest_products_of_bits():
    assert chosen(1, 1) == chosen(2, 1) == "nchw_bit_serial"
    assert chosen(1, 2) == "nchw_lookup"
    pointwise = dict(kernel=(1, 1), padding=(0, 0, 0, 0))
    assert chosen(1, 1, **pointwise) == chosen(1, 2, **pointwise) == "nchw_bit_serial"
    assert chosen(1, 4, **pointwise) == chosen(1, 8, **pointwise) == "nchw_spatial_pack"


def test_ideal_speedup_falls_with_the_products_of_bits():
    assert bit_serial_speedup(AVX512_VBMI, 1, 1) == 512 / 3
    assert bit_serial_speedup(AVX512_VBMI, 2, 3) == 512 / 18


@pytest.mark.parametrize("cpu", ["znver4", "icelake-server"])
def test_counts_in_the_code(cpu):
    """One for each pixel, vector of outputs and word; a bit of activations more, as many more."""
    target = resolve(cpu)
    isa = instruction_set(target)

    def code(activation_bits: int):
        layer = few_bits(1, activation_bits, channels=32, size=(1, 3), kernel=(1, 1))
        implementation = bit_serial(layer.spec, layer.weights, isa)
        text = build(implementation.build(), target).inspect_source("asm")
        assert "%zmm" in text and "vpopcntd" in implementation.instructions
        return implementation.tile, len(re.findall(r"\bvpopcntd\b", text))

    (tile, fewer), (_, more) = code(1), code(2)
    assert more - fewer == tile.vectors * tile.pixels > 0
