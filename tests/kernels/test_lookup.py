"""Convolutions by table look-up against the NumPy model, bit for bit; that no sum overflows."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import conv2d_nchw_lookup as schedule
from relaxquant.kernels import implement_conv2d
from relaxquant.kernels.conv2d_nchw_lookup import lookup_tables, possible_tiles
from relaxquant.kernels.ideal import lookup_speedup
from relaxquant.kernels.intrinsics import (
    AVX2,
    AVX512,
    AVX512_VBMI,
    AVX512_VNNI,
    GENERIC,
    NEON,
    instruction_set,
)
from relaxquant.kernels.lookup_plan import BYTE_MAX, cut, pack_indices, weight_planes
from relaxquant.kernels.lookup_tables import ChannelTables, indices
from tests.kernels import reference
from tests.kernels.harness import (
    RUNNABLE,
    Layer,
    build,
    conv_layer,
    examples,
    run_layer,
    target_of,
)
from tests.kernels.test_arm import arm_target, instructions
from tests.kernels.test_arm import pytestmark as needs_arm
from tests.kernels.test_conv2d_int8 import epilogues, windows
from tests.kernels.test_instructions import resolve

TARGETS = ["avx2", "avx512", "native"]
LOOKING_UP = [name for name in RUNNABLE if name != "generic"]
WIDTHS = [(1, 1), (1, 4), (1, 8), (2, 2), (2, 8), (3, 5), (4, 6)]


def few_bits(weight_bits: int, activation_bits: int, **layer) -> Layer:
    """A random layer whose weights and activations have so few bits."""
    layer = conv_layer(**layer)
    weight, bits = layer.weights.weight, 8 - weight_bits
    codes = weight.astype(np.int16) >> bits
    if weight_bits == 1:
        codes = np.where(weight < 0, -1, 1)
    largest = (1 << activation_bits) - 1
    shrunk = 255 / largest * (1 << bits)
    data = replace(
        layer.spec.data,
        largest=largest,
        zero_point=layer.spec.data.zero_point >> 8 - activation_bits,
    )
    weights = replace(
        layer.weights,
        weight=codes.astype(np.int8),
        bias=(layer.weights.bias / shrunk).astype(np.int32),
        multiplier=(layer.weights.multiplier * shrunk).astype(np.float32),
    )
    return replace(
        layer,
        spec=replace(layer.spec, data=data),
        weights=weights,
        data=layer.data >> 8 - activation_bits,
    )


def check(layer: Layer, target: str, tile=None) -> None:
    """The kernel's output is the model's."""
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(run_layer(layer, target, lookup_tables, tile), expected)


# For each, what a careless kernel would get wrong.
NASTY = {
    "borders count as zero point": dict(zero_point=130, padding=(1, 1, 1, 1)),
    "channels in a part of a block": dict(channels=3, out_channels=5, padding=(1, 1, 1, 1)),
    "sets of blocks, and part of one": dict(channels=104, out_channels=80, size=(3, 5)),
    "two blocks": dict(channels=32, kernel=(1, 1)),
    "asymmetric border": dict(
        zero_point=99, padding=(0, 2, 1, 0), kernel=(3, 2), strides=(2, 1), size=(8, 9)
    ),
    "border wider than the image": dict(
        zero_point=200, size=(2, 3), padding=(7, 6, 5, 9), kernel=(3, 5), strides=(2, 3)
    ),
    "stride skips pixels": dict(
        kernel=(1, 1), strides=(3, 2), padding=(1, 2, 0, 1), zero_point=90, channels=48
    ),
    "images of a batch as a row": dict(
        batch=5, size=(1, 1), kernel=(1, 1), channels=40, out_channels=20
    ),
    "feature vector": dict(size=(1, 1), kernel=(1, 1), channels=40, out_channels=200),
    "symbolic batch": dict(batch=3, symbolic=True, zero_point=128, padding=(1, 1, 1, 1)),
    "nhwc": dict(nhwc=True, channels=40, out_channels=24, padding=(1, 0, 1, 0), zero_point=3),
    "residual": dict(residual="uint8", residual_zero_point=131, out_zero_point=3, clip=True),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NASTY)
def test_nasty_layers(name, target):
    check(few_bits(*WIDTHS[list(NASTY).index(name) % len(WIDTHS)], **NASTY[name]), target)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weight_bits, activation_bits", WIDTHS)
def test_widths(weight_bits, activation_bits, target):
    check(few_bits(weight_bits, activation_bits, channels=20, padding=(1, 1, 1, 1)), target)


@given(
    windows(largest=5),
    epilogues(),
    st.tuples(st.integers(1, 60), st.integers(1, 150)),
    st.tuples(st.integers(1, 4), st.integers(1, 8)),
    st.sampled_from(LOOKING_UP),
    st.data(),
)
@examples(25)
def test_any_layer(window, epilogue, channels, widths, target, data):
    window = window | {"dilation": (1, 1)}
    epilogue = epilogue | {"weight_max": 127}
    layer = few_bits(*widths, **window, **epilogue, channels=channels[0], out_channels=channels[1])
    tiles = possible_tiles(layer.spec, instruction_set(target_of(target)))
    check(layer, target, data.draw(st.sampled_from(tiles)))


def full(channels: int, weight_bits: int = 1, activation_bits: int = 8, **layer) -> Layer:
    """The largest activations and the weights whose bits are all set."""
    layer = few_bits(weight_bits, activation_bits, channels=channels, out_dtype="float32", **layer)
    weight = np.full_like(layer.weights.weight, 1 if weight_bits == 1 else -1)
    return replace(
        layer,
        weights=replace(layer.weights, weight=weight),
        data=np.full_like(layer.data, layer.spec.data.largest),
    )


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation_bits", range(1, 9))
def test_sums_of_bytes_do_not_overflow(activation_bits, target):
    check(full(50, 1, activation_bits, kernel=(1, 1), size=(1, 2)), target)


@pytest.mark.parametrize("target", TARGETS)
def test_sums_of_16_bits_are_taken_a_kernel_row_at_a_time_where_a_window_overflows(target):
    """512 * 9 * 15 leaves 16 bits, 512 * 3 * 15 does not."""
    check(full(512, size=(3, 3)), target)


def test_layers_whose_rows_overflow_go_to_another_schedule():
    layer = full(1500, size=(3, 3))
    assert lookup_tables(layer.spec, layer.weights, AVX2) is None
    chosen = implement_conv2d(layer.spec, layer.weights, AVX2, "nchw_lookup")
    assert chosen.schedule == "nchw_spatial_pack"
    few = full(1500, 1, 2, size=(3, 3))
    assert lookup_tables(few.spec, few.weights, AVX2) is not None


def test_without_the_guard_the_sums_do_overflow(monkeypatch):
    layer = full(512, size=(3, 3))
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    monkeypatch.setattr(schedule, "SUM_MAX", 1 << 20)
    assert (run_layer(layer, "native", lookup_tables) != expected).all()


@pytest.mark.parametrize("index_bits", [4, 6])
@pytest.mark.parametrize("largest", [1, 2, 3, 7, 11, 15, 31, 63, 127, 200, 255])
def test_parts_hold_every_activation_and_their_sums_fit_bytes(largest, index_bits):
    parts = cut(largest, index_bits)
    x = np.arange(largest + 1)
    pieces = [x >> part.shift & (1 << part.bits) - 1 for part in parts]
    np.testing.assert_array_equal(
        sum(piece << part.shift for piece, part in zip(pieces, parts, strict=True)), x
    )
    for piece, part in zip(pieces, parts, strict=True):
        assert piece.max() == part.largest
        assert part.chain * index_bits * part.largest <= BYTE_MAX


@pytest.mark.parametrize("index_bits", [4, 6])
def test_every_channel_is_in_one_table(index_bits):
    for channels in range(1, 150):
        tables = ChannelTables(channels, index_bits)
        members = tables.members()
        assert members.shape == (tables.count, index_bits)
        assert sorted(members[members >= 0]) == list(range(channels))


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_planes_are_the_weights(bits):
    weight = few_bits(bits, 8).weights.weight
    planes = weight_planes(weight).astype(np.int64)
    assert len(planes) == bits
    if bits == 1:
        np.testing.assert_array_equal(2 * planes[0] - 1, weight)
        return
    coefficients = [*(1 << p for p in range(bits - 1)), -(1 << bits - 1)]
    np.testing.assert_array_equal(np.tensordot(coefficients, planes, 1), weight)


@pytest.mark.parametrize("isa", [AVX2, AVX512_VBMI])
def test_packed_indices_take_few_bytes(isa):
    """One bit a weight and plane; 6 of 8 bits of a byte are used where tables have 64 entries."""
    layer = few_bits(2, 4, channels=48, out_channels=128)
    tables = ChannelTables(48, isa.lookup.index_bits)
    planes = weight_planes(layer.weights.weight)
    packed = pack_indices(planes, tables, isa.lookup, 1)
    share = 8 / (isa.lookup.index_bits * (8 // isa.lookup.index_bits))
    assert packed.size == layer.weights.weight.size * 2 / 8 * share
    if isa is AVX512_VBMI:
        first = indices(planes, tables)[0, :64, 0, 0, 0]
        even = packed[0, 0, 0, 0, ::2]
        np.testing.assert_array_equal(even, first[:32])


DOES_NOT_APPLY = {
    "five bits": few_bits(5, 4),
    "groups": few_bits(1, 4, channels=32, out_channels=32, groups=2),
    "dilation": few_bits(1, 4, dilation=(2, 1), size=(9, 9)),
    "blocks of four channels": few_bits(1, 4, channels=3, block=4),
    "fp32": conv_layer(dtype="float32"),
}


@pytest.mark.parametrize("name", DOES_NOT_APPLY)
def test_where_it_does_not_apply(name):
    layer = DOES_NOT_APPLY[name]
    assert lookup_tables(layer.spec, layer.weights, AVX2) is None


def test_it_needs_an_instruction_that_looks_up():
    layer = few_bits(1, 4)
    assert lookup_tables(layer.spec, layer.weights, AVX2) is not None
    assert lookup_tables(layer.spec, layer.weights, GENERIC) is None


def chosen(isa, weight_bits: int, activation_bits: int, **layer) -> str:
    """The schedule that ``auto`` gives a layer."""
    layer = dict(channels=128, out_channels=128, size=(14, 14), padding=(1, 1, 1, 1)) | layer
    layer = few_bits(weight_bits, activation_bits, **layer)
    return implement_conv2d(layer.spec, layer.weights, isa).schedule


@pytest.mark.parametrize("isa", [AVX2, AVX512, AVX512_VBMI])
@pytest.mark.parametrize("widths", [(1, 2), (1, 4), (1, 8)])
def test_auto_takes_it_for_few_bits(isa, widths):
    assert chosen(isa, *widths) == "nchw_lookup"


@pytest.mark.parametrize("isa", [AVX2, AVX512, AVX512_VBMI])
def test_auto_weighs_it_against_winograd(isa):
    assert chosen(isa, 2, 4) == chosen(isa, 3, 1) == "nchw_winograd_int8"
    assert chosen(isa, 2, 2, size=(7, 7), channels=512, out_channels=512) == "nchw_lookup"


@pytest.mark.parametrize("isa", [AVX2, AVX512, AVX512_VBMI, AVX512_VNNI, GENERIC, NEON])
@pytest.mark.parametrize("widths", [(2, 8), (3, 1), (4, 4)])
def test_auto_leaves_more_bits_to_multiplications(isa, widths):
    assert chosen(isa, *widths) != "nchw_lookup"


def test_auto_asks_that_tables_are_read_often():
    pointwise = dict(kernel=(1, 1), padding=(0, 0, 0, 0))
    assert chosen(AVX512_VBMI, 1, 4, **pointwise, out_channels=64) == "nchw_spatial_pack"
    assert chosen(AVX512_VBMI, 1, 4, **pointwise, out_channels=512) == "nchw_lookup"
    assert chosen(AVX512_VNNI, 1, 2) == "nchw_lookup"
    assert chosen(AVX512_VNNI, 1, 8) == "nchw_spatial_pack", "one instruction multiplies bytes"


def test_ideal_speedup_falls_with_the_bits():
    assert lookup_speedup(AVX512_VBMI, 1, 4) == 64 * 6 / 3
    assert lookup_speedup(AVX2, 1, 4) == 32 * 4 / 2.5
    assert lookup_speedup(AVX2, 2, 8) == lookup_speedup(AVX2, 1, 4) / 4


@pytest.mark.parametrize(
    "cpu, instruction, wide",
    [
        ("znver4", "vpermb", True),
        ("cascadelake", "vpshufb", True),
        ("znver3", "vpshufb", False),
    ],
)
def test_look_ups_in_the_code(cpu, instruction, wide):
    """One instruction for each pixel, vector of outputs and table: a bit more, a pass more."""
    target = resolve(cpu)
    isa = instruction_set(target)

    def code(weight_bits: int):
        layer = few_bits(weight_bits, 4, channels=12, out_channels=64, size=(1, 2), kernel=(1, 1))
        implementation = lookup_tables(layer.spec, layer.weights, isa)
        text = build(implementation.build(), target).inspect_source("asm")
        assert instruction in implementation.instructions
        assert ("%zmm" in text) == wide
        return implementation.tile, len(re.findall(rf"\b{instruction}\b", text))

    (tile, fewer), (_, more) = code(2), code(3)
    tables = ChannelTables(12, isa.lookup.index_bits).count
    assert more - fewer == tile.vectors * tile.pixels * tables


@needs_arm
def test_look_ups_in_the_code_for_arm():
    layer = few_bits(1, 4, channels=64, out_channels=64, padding=(1, 1, 1, 1))
    counts = instructions(layer, arm_target("cortex-a76"), lookup_tables)
    assert counts["tbl"] > 0 and "mla" not in counts and "sdot" not in counts
