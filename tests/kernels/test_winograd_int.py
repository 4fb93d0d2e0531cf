"""Integer Winograd convolutions against the NumPy model, bit for bit; proof of no overflow."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import conv2d_nchw_winograd_int as schedule
from relaxquant.kernels import implement_conv2d
from relaxquant.kernels.conv2d_nchw_winograd_int import sums_fit, winograd_int
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
from tests.kernels.test_winograd import (
    ALL_AROUND,
    DOES_NOT_APPLY,
    NASTY,
    draw_tile,
    winograd_layers,
)

NASTY_INT = {
    "borders count as zero point": dict(zero_point=128, padding=ALL_AROUND, size=(5, 8)),
    "odd zero points, residual": dict(
        zero_point=77,
        out_zero_point=3,
        residual="uint8",
        residual_zero_point=131,
        padding=(2, 0, 0, 1),
    ),
    "float residual into uint8": dict(residual="float32", out_zero_point=128, clip=True),
    "uint8 residual into float": dict(
        out_dtype="float32", residual="uint8", residual_zero_point=9, clip=True
    ),
}


def check(layer: Layer, target: str, tile: Tile | None = None) -> None:
    """The kernel's output is the model's."""
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(run_layer(layer, target, winograd_int, tile), expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NASTY_INT)
def test_nasty_epilogues(name, target):
    check(conv_layer(**NASTY_INT[name]), target)


@pytest.mark.parametrize("target", ["avx2", "native"])
@pytest.mark.parametrize("name", NASTY)
def test_nasty_layers(name, target):
    check(conv_layer(zero_point=99, **NASTY[name]), target)


@given(winograd_layers(), epilogues(), st.sampled_from(RUNNABLE), st.data())
@examples(25)
def test_int8(layer, epilogue, target, data):
    layer = conv_layer(**layer, **epilogue)
    transform, arithmetic = schedule.TRANSFORM, schedule.arithmetic
    check(layer, target, draw_tile(data.draw, layer, target, transform, arithmetic))


def largest_values(weights: str, data: str, channels: int = 48) -> Layer:
    """Weights and activations at the ends of their ranges."""
    layer = conv_layer(channels=channels, padding=ALL_AROUND, out_dtype="float32", zero_point=255)
    rng = np.random.default_rng(0)
    shape = layer.weights.weight.shape
    checkered = np.indices(layer.data.shape)[2:].sum(axis=0) % 2
    weight = {
        "127": np.full(shape, 127),
        "-128": np.full(shape, -128),
        "signs": rng.choice([-128, 127], shape),
        "by column": np.where(np.arange(3) == 1, -128, 127) * np.ones(shape),
    }[weights]
    values = {
        "255": np.full(layer.data.shape, 255),
        "checkered": 255 * checkered,
        "by row": 255 * (np.indices(layer.data.shape)[2] // 2 % 2),
        "either": rng.choice([0, 255], layer.data.shape),
    }[data]
    return replace(
        layer,
        weights=replace(layer.weights, weight=weight.astype(np.int8)),
        data=values.astype(np.uint8),
    )


@pytest.fixture(scope="module")
def extreme_kernels() -> dict:
    """One build for each target: the layers of `largest_values` differ in values only."""
    layer = largest_values("127", "255")
    kernels = {}
    for name in RUNNABLE:
        isa = instruction_set(target_of(name))
        function = winograd_int(layer.spec, layer.weights, isa).build()
        kernels[name] = build(function, target_of(name))
    return kernels


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("weights", ["127", "-128", "signs", "by column"])
@pytest.mark.parametrize("data", ["255", "checkered", "by row", "either"])
def test_extreme_values_are_exact(weights, data, target, extreme_kernels):
    layer = largest_values(weights, data)
    isa = instruction_set(target_of(target))
    implementation = winograd_int(layer.spec, layer.weights, isa)
    actual = run_implementation(extreme_kernels[target], implementation, layer)
    np.testing.assert_array_equal(
        actual, reference.conv2d_int8(layer.spec, layer.weights, layer.data)
    )


@pytest.mark.parametrize("name", DOES_NOT_APPLY)
def test_where_it_does_not_apply(name):
    layer = conv_layer(size=(9, 9), **DOES_NOT_APPLY[name])
    assert winograd_int(layer.spec, layer.weights, AVX2) is None


def test_it_needs_a_dot_product_of_pairs():
    layer = conv_layer()
    assert winograd_int(layer.spec, layer.weights, AVX2) is not None
    assert winograd_int(layer.spec, layer.weights, replace(AVX2, pair_dot=None)) is None


def transformed_data(tile: np.ndarray) -> np.ndarray:
    """``B^T d B`` of (..., 4, 4)."""
    (rows,) = schedule.TRANSFORM.data
    return rows @ tile @ rows.T


def test_bounds_of_transformed_data_are_attained_and_fit_int16():
    (rows,) = schedule.TRANSFORM.data
    bounds = schedule.data_bounds().reshape(4, 4)
    for a, b in np.ndindex(4, 4):
        signs = np.outer(rows[a], rows[b])
        ends = [transformed_data(255 * (signs * sign > 0))[a, b] for sign in (1, -1)]
        assert np.abs(ends).max() == bounds[a, b]
    assert bounds.max() == 1020 and np.sum(bounds == 1020) == 1


def test_transformed_weights_fit_int16():
    for sign in np.ndindex(*[2] * 9):
        weight = np.where(np.reshape(sign, (1, 1, 3, 3)), 127, -128)
        assert np.abs(schedule.TRANSFORM.weights(weight)).max() <= 9 * 128


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_bound_holds_for_every_sum(channels, seed):
    """Sums and partial sums of random extremes, in an order of the test's own."""
    rng = np.random.default_rng(seed)
    weight = rng.choice([-128, -1, 127], (2, channels, 3, 3))
    tile = rng.choice([0, 255], (channels, 4, 4))
    products = schedule.TRANSFORM.weights(weight) * transformed_data(tile).reshape(channels, 16)
    (rows,) = schedule.TRANSFORM.inverse
    sums = np.cumsum(products, axis=1)
    points = sums[:, -1].reshape(2, 4, 4)
    half = rows @ points
    bound = schedule.largest_sum(weight)
    for values in (sums, half, half @ rows.T, np.cumsum(points.reshape(2, 16), axis=1)):
        assert np.abs(values).max() <= bound


def test_layers_that_could_overflow_go_to_another_schedule():
    layer = conv_layer(channels=1024, size=(8, 8), out_channels=32)
    weight = np.full_like(layer.weights.weight, 127)
    for channels, fits in [(400, True), (1024, False)]:
        assert sums_fit(weight[:, :channels]) == fits
    weights = replace(layer.weights, weight=weight)
    assert winograd_int(layer.spec, weights, AVX2) is None
    chosen = implement_conv2d(layer.spec, weights, AVX2, "nchw_winograd_int")
    assert chosen.schedule == "nchw_spatial_pack"
    assert winograd_int(layer.spec, layer.weights, AVX2) is not None, "ordinary weights are safe"


def test_without_the_guard_the_sums_do_overflow(monkeypatch):
    """The 4 times larger sums leave int32 where those of the direct schedule do not."""
    layer = conv_layer(channels=2048, out_channels=1, size=(4, 4), out_dtype="float32")
    weights = replace(layer.weights, weight=np.full_like(layer.weights.weight, 127))
    layer = replace(layer, weights=weights, data=np.full_like(layer.data, 255))
    expected = reference.conv2d_int8(layer.spec, weights, layer.data)
    assert winograd_int(layer.spec, weights, AVX2) is None
    monkeypatch.setattr(schedule, "sums_fit", lambda weight: True)
    assert (run_layer(layer, "avx2", winograd_int) != expected).all()


def test_auto_takes_it_where_bytes_need_more_instructions_than_pairs():
    def chosen(isa, **layer):
        layer = conv_layer(**{"channels": 64, "out_channels": 64, "size": (12, 12)} | layer)
        return implement_conv2d(layer.spec, layer.weights, isa).schedule

    assert chosen(AVX2) == chosen(AVX512) == "nchw_winograd_int"
    assert chosen(AVX512_VNNI) == "nchw_spatial_pack"
    assert chosen(AVX2, channels=16) == chosen(AVX2, size=(9, 30)) == "nchw_spatial_pack"


@pytest.mark.parametrize(
    "cpu, wanted, wide",
    [
        ("znver3", {"vpmaddwd"}, False),
        ("skylake-avx512", {"vpmaddwd"}, True),
        # LLVM takes some dot products apart for it, to shorten the chain of additions.
        ("cascadelake", {"vpdpwssd", "vpmaddwd"}, True),
        ("znver4", {"vpdpwssd"}, True),
    ],
)
def test_products_in_the_code(cpu, wanted, wide):
    """Every multiply-add of the register tile is one instruction, or one and an addition."""
    target = resolve(cpu)
    isa = instruction_set(target)
    layer = conv_layer(channels=64, out_channels=64, size=(16, 16), padding=ALL_AROUND)
    implementation = winograd_int(layer.spec, layer.weights, isa)
    code = build(implementation.build(), target).inspect_source("asm")
    found = re.findall(r"\bvp(?:maddubsw|maddwd|dp\w+|mulld|mullw)\b", code)
    tile = implementation.tile
    assert set(found) == wanted
    assert len(found) == 4 * tile.vectors * tile.pixels, "four steps of the tile, unrolled"
    assert ("%zmm" in code) == wide
    assert implementation.instructions.split(",")[0] in wanted
