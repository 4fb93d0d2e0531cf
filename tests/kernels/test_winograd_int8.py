"""Winograd in bytes against the NumPy model, bit for bit; proofs that bytes and sums suffice."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import conv2d_nchw_winograd_int8 as schedule
from relaxquant.kernels import implement_conv2d, weight_bits, winograd_bytes
from relaxquant.kernels.conv2d_nchw_winograd_int8 import winograd_int8
from relaxquant.kernels.intrinsics import AVX2, AVX512, AVX512_VNNI, instruction_set
from relaxquant.kernels.tile import Tile
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
from tests.kernels.test_conv2d_int8 import epilogues
from tests.kernels.test_instructions import resolve
from tests.kernels.test_winograd import ALL_AROUND, DOES_NOT_APPLY, NASTY, winograd_layers
from tests.kernels.test_winograd_int import NASTY_INT


def few_bits(bits: int = 4, largest: int = 15, **layer) -> Layer:
    """A layer with weights of few bits and activations up to ``largest``."""
    layer = conv_layer(**layer)
    data = replace(
        layer.spec.data, largest=largest, zero_point=layer.spec.data.zero_point % (largest + 1)
    )
    codes = np.random.default_rng(bits).integers(0, 1 << bits, layer.weights.weight.shape)
    low = -(1 << bits - 1)
    weight = 2 * codes - 1 if bits == 1 else np.maximum(codes + low, -7 if bits == 4 else low)
    return replace(
        layer,
        spec=replace(layer.spec, data=data),
        weights=replace(layer.weights, weight=weight.astype(np.int8)),
        data=np.minimum(layer.data % (largest + 2), largest).astype(np.uint8),
    )


def with_values(layer: Layer, weight: np.ndarray, data: np.ndarray) -> Layer:
    """The layer with other weights and activations."""
    weights = replace(layer.weights, weight=weight.astype(np.int8))
    return replace(layer, weights=weights, data=data.astype(np.uint8))


def check(layer: Layer, target: str, tile: Tile | None = None) -> None:
    """The kernel's output is the model's."""
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(run_layer(layer, target, winograd_int8, tile), expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NASTY_INT)
def test_nasty_epilogues(name, target):
    check(few_bits(**NASTY_INT[name]), target)


@pytest.mark.parametrize("name", NASTY)
def test_nasty_layers(name):
    check(few_bits(zero_point=9, **NASTY[name]), "native")


@given(
    winograd_layers(),
    epilogues(),
    st.integers(1, 4),
    st.sampled_from([1, 3, 7, 15, 31, 63]),
    st.sampled_from(RUNNABLE),
    st.data(),
)
@examples(15)
def test_few_bits(layer, epilogue, bits, largest, target, data):
    layer = few_bits(bits, largest, **layer, **epilogue)
    tiles = schedule.tiles(layer.spec, layer.weights, instruction_set(target_of(target)))
    check(layer, target, data.draw(st.sampled_from(tiles)))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6])
def test_every_width_of_weights(bits):
    """Of 5 and 6 bits those whose transformed values fit."""
    layer = few_bits(min(bits, 4), channels=32, out_channels=32, padding=ALL_AROUND)
    if bits > 4:
        weight = layer.weights.weight.copy()
        weight[..., 0, 0] = np.where(weight[..., 0, 0] > 0, 1, -1) * ((1 << bits - 1) - 1)
        layer = with_values(layer, weight, layer.data)
    assert weight_bits.bits_of(layer.weights.weight) == bits
    packed = winograd_int8(layer.spec, layer.weights, AVX2).arguments[1]
    assert packed.nbytes == 32 * 32 * 9 * bits // 8
    check(layer, "native")


EXTREMES = {
    "highest": lambda shape, w: np.full(shape, w),
    "lowest": lambda shape, w: np.full(shape, -w),
    "signs": lambda shape, w: np.random.default_rng(0).choice([-w, w], shape),
    "by column": lambda shape, w: np.where(np.arange(3) == 1, -w, w) * np.ones(shape),
}
IMAGES = {
    "all": lambda shape, a: np.full(shape, a),
    "checkered": lambda shape, a: a * (np.indices(shape)[2:].sum(axis=0) % 2),
    "by row": lambda shape, a: a * (np.indices(shape)[2] // 2 % 2),
    "either": lambda shape, a: np.random.default_rng(1).choice([0, a], shape),
}


def extreme(weights: str, data: str, largest_weight: int, largest: int) -> Layer:
    """Weights and activations at the ends of their ranges."""
    layer = few_bits(
        largest=largest, channels=48, padding=ALL_AROUND, out_dtype="float32", zero_point=largest
    )
    weight = EXTREMES[weights](layer.weights.weight.shape, largest_weight)
    return with_values(layer, weight, IMAGES[data](layer.data.shape, largest))


@pytest.fixture(scope="module")
def extreme_kernels() -> dict:
    """One build for each target: the layers of `extreme` differ in values only."""
    layer = extreme("highest", "all", 14, 63)
    kernels = {}
    for name in RUNNABLE:
        isa = instruction_set(target_of(name))
        function = winograd_int8(layer.spec, layer.weights, isa).build()
        kernels[name] = build(function, target_of(name))
    return kernels


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("data", IMAGES)
@pytest.mark.parametrize("weights", EXTREMES)
def test_extreme_values_are_exact(weights, data, target, extreme_kernels):
    """14 and 63 are the largest that always fit bytes."""
    layer = extreme(weights, data, 14, 63)
    implementation = winograd_int8(layer.spec, layer.weights, instruction_set(target_of(target)))
    actual = run_implementation(extreme_kernels[target], implementation, layer)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", DOES_NOT_APPLY)
def test_where_it_does_not_apply(name):
    layer = few_bits(size=(9, 9), **DOES_NOT_APPLY[name])
    assert winograd_int8(layer.spec, layer.weights, AVX2) is None
    assert schedule.tiles(layer.spec, layer.weights, AVX2) == []


def takes(layer: Layer) -> bool:
    """Whether the schedule takes a layer."""
    return winograd_int8(layer.spec, layer.weights, AVX2) is not None


def test_what_bytes_do_not_hold_goes_to_another_schedule():
    assert takes(extreme("highest", "all", 14, 63))
    assert not takes(extreme("highest", "all", 15, 63)), "transformed weights of 135"
    assert not takes(extreme("highest", "all", 14, 64)), "transformed data of 256"
    layer = few_bits()
    border = replace(layer.spec.data, zero_point=64)
    assert takes(layer)
    assert not takes(replace(layer, spec=replace(layer.spec, data=border))), "64 in the border"
    wide = layer.weights.weight.copy()
    wide[0, 0, 1, 1] = 64
    assert not takes(with_values(layer, wide, layer.data)), "weights of 8 bits are not packed"


def test_without_the_guards_bytes_do_wrap_around(monkeypatch):
    layers = [extreme("highest", "all", 15, 63), extreme("signs", "checkered", 14, 100)]
    monkeypatch.setattr(schedule, "weights_fit", lambda transformed: True)
    monkeypatch.setattr(schedule, "UINT8_MAX", 1000)
    monkeypatch.setattr(schedule, "offsets", lambda largest: np.full((4, 4), 0))
    for layer in layers:
        expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
        assert (run_layer(layer, "native", winograd_int8) != expected).any()


def transformed_data(tile: np.ndarray) -> np.ndarray:
    """``B^T d B`` of (..., 4, 4)."""
    (rows,) = winograd_bytes.TRANSFORM.data
    return rows @ tile @ rows.T


@pytest.mark.parametrize("largest", [1, 15, 63])
def test_range_of_transformed_data_is_attained(largest):
    (rows,) = winograd_bytes.TRANSFORM.data
    offsets = schedule.offsets(largest)
    for a, b in np.ndindex(4, 4):
        signs = np.outer(rows[a], rows[b])
        ends = [transformed_data(largest * (signs * sign > 0))[a, b] for sign in (-1, 1)]
        assert min(ends) + offsets[a, b] == 0
        assert max(ends) + offsets[a, b] == schedule.largest_data(largest) == 4 * largest


def test_transformed_weights_of_four_bits_fit():
    signs = np.array(list(np.ndindex(*[2] * 9))).reshape(-1, 1, 3, 3)
    transformed = schedule.transform_weights(np.where(signs, 7, -7))
    assert schedule.weights_fit(transformed)
    assert np.abs(transformed).max() == 9 * 7


def random_start(channels: int, seed: int, largest: int = 63):
    """Weights, transformed, and what their sums start with."""
    layer = few_bits(largest=largest, channels=channels, out_channels=3)
    weight = np.random.default_rng(seed).choice([-14, -1, 0, 14], layer.weights.weight.shape)
    transformed = schedule.transform_weights(weight)
    form = winograd_bytes.Bytes(5, tuple(map(tuple, schedule.offsets(largest))))
    return transformed, winograd_bytes.start_sums(layer.spec, transformed, form)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_offsets_leave_no_trace_in_the_outputs(channels, seed):
    transformed, start = random_start(channels, seed)
    offsets = schedule.offsets(63).reshape(16)
    points = (transformed * offsets).sum(axis=1).reshape(-1, 4, 4)
    assert not start[:, 0].any() and not start[3:].any(), "other points, padded channels"
    points[:, 1:3, 1:3] += start[:3, 1:].reshape(-1, 2, 2)
    (rows,) = winograd_bytes.TRANSFORM.inverse
    assert not (rows @ points @ rows.T).any()


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_bound_holds_for_every_sum(channels, seed):
    """Sums and partial sums of random extremes, in an order of the test's own."""
    transformed, start = random_start(channels, seed)
    tile = np.random.default_rng(seed).choice([0, 63], (channels, 4, 4))
    data = (transformed_data(tile) + schedule.offsets(63)).reshape(channels, 16)
    first = np.zeros((3, 1, 4, 4), np.int64)
    first[:, 0, 1:3, 1:3] = start[:3, 1:].reshape(-1, 2, 2)
    sums = np.cumsum(np.concatenate([first.reshape(3, 1, 16), transformed * data], 1), axis=1)
    points = sums[:, -1].reshape(3, 4, 4)
    (rows,) = winograd_bytes.TRANSFORM.inverse
    half = rows @ points
    bound = schedule.largest_sum(transformed, start, 63)
    for values in (sums, half, half @ rows.T, np.cumsum(points.reshape(3, 16), axis=1)):
        assert np.abs(values).max() <= bound


def test_layers_that_could_overflow_go_to_another_schedule():
    for channels, fits in [(1024, True), (16384, False)]:
        layer = few_bits(largest=63, channels=channels, out_channels=1, size=(3, 3))
        weight = np.full_like(layer.weights.weight, 14)
        assert takes(with_values(layer, weight, layer.data)) == fits


def test_without_the_guard_the_sums_do_overflow(monkeypatch):
    """The 4 times larger sums leave int32 where those of the direct schedule do not."""
    layer = few_bits(largest=63, channels=68_000, out_channels=1, size=(4, 4), out_dtype="float32")
    weight = np.full_like(layer.weights.weight, 14)
    layer = with_values(layer, weight, np.full_like(layer.data, 63))
    monkeypatch.setattr(schedule, "sums_fit", lambda *_: True)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    assert (run_layer(layer, "native", winograd_int8) != expected).all()


CHAINS = [(7, 15, 4), (7, 31, 2), (7, 63, 1), (14, 63, None)]


@pytest.mark.parametrize("isa", [AVX2, AVX512], ids=lambda isa: isa.name)
@pytest.mark.parametrize("weight, largest, chain", CHAINS)
def test_int16_sums_of_transformed_values_are_proven(weight, largest, chain, isa):
    layer = extreme("highest", "all", weight, largest)
    dot = schedule.dot_product(layer.spec, schedule.transform_weights(layer.weights.weight), isa)
    assert (dot.chain if dot.pairs_saturate else None) == chain


@pytest.mark.parametrize("target", ["avx2", "avx512"])
@pytest.mark.parametrize("weight, largest, chain", CHAINS)
def test_int16_sums_are_exact_at_their_limit(weight, largest, chain, target, monkeypatch):
    layer = extreme("highest", "all", weight, largest)
    check(layer, target)
    if chain == 4:
        return
    longer = instruction_set(target_of(target)).dots[0]
    monkeypatch.setattr(schedule, "dot_product", lambda *_: longer)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    assert (run_layer(layer, target, winograd_int8) != expected).any(), "without the proof"


def test_auto_takes_it_for_few_bits():
    def chosen(isa, largest=15, bits=4, **layer):
        layer = {"channels": 64, "out_channels": 64, "size": (12, 12)} | layer
        layer = few_bits(bits, largest, **layer)
        return implement_conv2d(layer.spec, layer.weights, isa).schedule

    for isa in (AVX2, AVX512_VNNI):
        assert chosen(isa) == chosen(isa, 63) == chosen(isa, bits=2) == "nchw_winograd_int8"
        assert chosen(isa, channels=16) == chosen(isa, size=(7, 30)) == "nchw_spatial_pack"
        assert chosen(isa, 127) == "nchw_spatial_pack"


@pytest.mark.parametrize(
    "cpu, wanted, wide",
    [
        ("znver3", {"vpmaddubsw": 4, "vpmaddwd": 1}, False),
        ("skylake-avx512", {"vpmaddubsw": 4, "vpmaddwd": 1}, True),
        ("znver4", {"vpdpbusd": 4}, True),
        ("alderlake", {"vpdpbusd": 4}, False),
    ],
)
def test_products_in_the_code(cpu, wanted, wide):
    """Four bytes a lane in each dot product, four of them unrolled."""
    target = resolve(cpu)
    layer = few_bits(channels=64, out_channels=64, size=(16, 16), padding=ALL_AROUND)
    implementation = winograd_int8(layer.spec, layer.weights, instruction_set(target))
    code = build(implementation.build(), target).inspect_source("asm")
    found = re.findall(r"\bvp(?:maddubsw|maddwd|dp\w+|mulld|mullw)\b", code)
    tile = implementation.tile
    assert set(found) == set(wanted)
    unrolled = found.count("vpmaddwd") or found.count("vpdpbusd") // 4  # once or twice, by LLVM
    assert unrolled in (tile.vectors * tile.pixels, 2 * tile.vectors * tile.pixels)
    assert {name: found.count(name) / unrolled for name in wanted} == wanted
    assert ("%zmm" in code) == wide
    assert set(re.findall(r"vp\w+", implementation.instructions)) == set(wanted)
