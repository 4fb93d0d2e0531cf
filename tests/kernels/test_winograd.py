"""Winograd's transforms, where the schedules apply, and the fp32 schedule against float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import conv2d_nchw_winograd as fp32
from relaxquant.kernels import implement_conv2d, winograd
from relaxquant.kernels.conv2d_nchw_winograd import choose_transform
from relaxquant.kernels.intrinsics import AVX2, AVX512, INSTRUCTION_SETS, instruction_set
from relaxquant.kernels.spec import EpilogueSpec
from relaxquant.kernels.tile import Tile
from relaxquant.kernels.winograd_plan import plan, possible_tiles
from tests.kernels.harness import (
    RUNNABLE,
    Layer,
    build,
    conv_layer,
    examples,
    run_implementation,
    run_layer,
    target_of,
)
from tests.kernels.test_conv2d_fp32 import convolution
from tests.kernels.test_conv2d_int8 import epilogues

TRANSFORMS = {2: winograd.f2x2(), 4: winograd.f4x4()}
ISA = INSTRUCTION_SETS[-1]


def product(factors) -> np.ndarray:
    """The matrix that sparse factors stand for."""
    total = np.eye(factors[0].shape[1])
    for factor in factors:
        total = factor @ total
    return total


@pytest.mark.parametrize("size, scale", [(2, 1), (2, 2), (4, 1)])
def test_transforms_compute_a_correlation(size, scale):
    transform = winograd.f2x2(2) if scale == 2 else TRANSFORMS[size]
    rng = np.random.default_rng(size)
    weight = rng.integers(-128, 128, (1, 1, 3, 3))
    data = rng.integers(0, 256, (size + 2, size + 2))
    forward, back = product(transform.data), product(transform.inverse)
    points = transform.weights(weight).reshape(transform.points, transform.points)
    actual = back @ (points * (forward @ data @ forward.T)) @ back.T
    windows = np.lib.stride_tricks.sliding_window_view(data, (3, 3))
    expected = scale**2 * np.einsum("yxij,ij->yx", windows, weight[0, 0])
    np.testing.assert_allclose(actual, expected, rtol=1e-13 if size == 4 else 0)


def test_weights_of_the_doubled_transform_are_integers():
    assert winograd.f2x2(2).weight.dtype == np.int64
    weight = np.random.default_rng(0).integers(-128, 128, (3, 5, 3, 3))
    exact = winograd.f2x2(1).weights(weight.astype(np.float64))
    np.testing.assert_array_equal(winograd.f2x2(2).weights(weight), 4 * exact)


DOES_NOT_APPLY = {
    "strides": dict(strides=(2, 2)),
    "stride of one axis": dict(strides=(1, 2)),
    "kernel": dict(kernel=(1, 1)),
    "long kernel": dict(kernel=(3, 5)),
    "dilation": dict(dilation=(2, 2)),
    "groups": dict(channels=32, out_channels=32, groups=2),
    "depthwise": dict(groups=16),
    "image": dict(channels=3, block=4),
    "plain layout": dict(channels=3, block=1),
}


@pytest.mark.parametrize("name", DOES_NOT_APPLY)
def test_where_it_does_not_apply(name):
    layer = conv_layer(dtype="float32", size=(9, 9), **DOES_NOT_APPLY[name])
    assert fp32.winograd(layer.spec, layer.weights, ISA) is None
    assert conv_layer(size=(9, 9)).spec.window.kernel == (3, 3), "the layer without the change"
    assert winograd.applies(conv_layer(size=(9, 9)).spec)


def test_it_leaves_images_with_a_halo_to_others():
    spec = conv_layer(size=(9, 9)).spec
    assert not winograd.applies(replace(spec, data=replace(spec.data, halo=(1, 1, 1, 1))))


@pytest.mark.parametrize(
    "height, width, batch, isa, size",
    [
        (56, 56, 1, AVX2, 4),
        (14, 14, 1, AVX2, 2),
        (14, 14, 1, AVX512, 4),
        (7, 7, 1, AVX512, 2),
        (7, 7, 8, AVX512, 4),
        (2, 90, 1, AVX512, 2),
    ],
)
def test_larger_transform_where_it_saves_products_and_weights_are_used_again(
    height, width, batch, isa, size
):
    layer = conv_layer(size=(height, width), padding=(1, 1, 1, 1), batch=batch, dtype="float32")
    assert choose_transform(layer.spec, isa).outputs == size


def test_a_symbolic_batch_counts_as_one_image():
    eight, symbolic = (
        conv_layer(size=(9, 9), batch=8, symbolic=symbolic).spec for symbolic in (False, True)
    )
    assert choose_transform(eight, AVX512).outputs == 4
    assert choose_transform(symbolic, AVX512).outputs == 2


def test_auto_takes_it_for_fp32_images_of_some_size():
    def chosen(**layer):
        layer = conv_layer(dtype="float32", padding=(1, 1, 1, 1), **layer)
        return implement_conv2d(layer.spec, layer.weights, ISA).schedule

    assert chosen(size=(4, 4)) == "nchw_winograd"
    assert chosen(size=(3, 20)) == chosen(strides=(2, 2), size=(20, 20)) == "nchw_spatial_pack"


@pytest.mark.parametrize("isa", INSTRUCTION_SETS, ids=lambda isa: isa.name)
@pytest.mark.parametrize("size", TRANSFORMS)
def test_plans_cover_the_layer(isa, size):
    arithmetic, transform = fp32.arithmetic(isa), TRANSFORMS[size]
    for channels, out_channels, edge in [(16, 16, 4), (64, 64, 56), (512, 512, 7), (32, 48, 13)]:
        layer = conv_layer(
            channels=channels, out_channels=out_channels, size=(edge, edge), padding=(1,) * 4
        )
        sizes = plan(layer.spec, isa, transform, arithmetic)
        tile_channels = sizes.tile.vectors * isa.lanes
        assert layer.spec.out.padded_channels // tile_channels % sizes.parts == 0
        assert sizes.group % sizes.tile.pixels == 0
        assert sizes.tile.vectors * (sizes.tile.pixels + 1) <= isa.tile_registers


def error(layer: Layer, actual: np.ndarray) -> float:
    """Largest error against float64, relative to the largest output before the clip."""
    expected = convolution(layer)
    open_ended = replace(
        layer,
        spec=replace(layer.spec, epilogue=replace(layer.spec.epilogue, clip=False)),
        weights=replace(layer.weights, low=-np.inf, high=np.inf),
    )
    return np.abs(actual - expected).max() / np.abs(convolution(open_ended)).max()


def rule_of(size: int, tile: Tile | None = None):
    """The fp32 schedule with the transform of the test's choice."""

    def rule(spec, weights, isa, _tile=None):
        return fp32.implement(spec, weights, isa, TRANSFORMS[size], tile)

    return rule


def check(layer: Layer, target: str, rule) -> None:
    """Within 1e-4 of the largest output for float32; within one step for uint8, seldom."""
    actual = run_layer(layer, target, rule).astype(np.float64)
    if layer.spec.out.dtype == "float32":
        assert error(layer, actual) < 1e-4
        return
    wrong = np.abs(actual - convolution(layer))
    assert wrong.max() <= 1
    assert np.mean(wrong > 0) < 0.01 or np.sum(wrong > 0) <= 1


# Layers chosen to hurt: for each, what a careless kernel would get wrong.
ALL_AROUND = (1, 1, 1, 1)
NASTY = {
    "one pixel": dict(size=(3, 3)),
    "one pixel, mostly border": dict(size=(1, 1), padding=ALL_AROUND),
    "no border": dict(size=(10, 12)),
    "last tiles in part": dict(size=(9, 11), padding=ALL_AROUND),
    "last tiles in part, in one axis": dict(size=(8, 7), padding=ALL_AROUND),
    "asymmetric border": dict(size=(7, 10), padding=(0, 2, 1, 0)),
    "border wider than the image": dict(size=(2, 3), padding=(5, 6, 7, 3)),
    "channels in a part of a block": dict(channels=3, out_channels=5, padding=ALL_AROUND),
    "channels over blocks": dict(channels=33, out_channels=70, padding=ALL_AROUND),
    "output channels in parts": dict(channels=17, out_channels=512, padding=ALL_AROUND),
    "groups of tiles over images": dict(batch=5, size=(5, 3), padding=ALL_AROUND, channels=20),
    "symbolic batch": dict(batch=3, symbolic=True, size=(6, 5), padding=ALL_AROUND),
    "many groups of tiles": dict(size=(26, 31), channels=130, padding=ALL_AROUND),
    "clip and residual": dict(residual="float32", clip=True, padding=ALL_AROUND),
}


@pytest.mark.parametrize("target", ["generic", "native"])
@pytest.mark.parametrize("size", TRANSFORMS)
@pytest.mark.parametrize("name", NASTY)
def test_nasty_layers(name, size, target):
    check(conv_layer(dtype="float32", out_dtype="float32", **NASTY[name]), target, rule_of(size))


@pytest.mark.parametrize("size", TRANSFORMS)
@pytest.mark.parametrize("pixels", [1, 2, 3, 5, 8, 11])
def test_every_width_of_a_register_tile(pixels, size):
    layer = conv_layer(
        size=(11, 13), padding=ALL_AROUND, batch=2, dtype="float32", out_dtype="float32"
    )
    check(layer, "native", rule_of(size, Tile(1, pixels)))


@st.composite
def winograd_layers(draw):
    """Windows, sizes and channels that the Winograd schedules take."""
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    top, left, bottom, right = padding
    height = draw(st.integers(max(1, 3 - top - bottom), 13))
    width = draw(st.integers(max(1, 3 - left - right), 20))
    channels = {"channels": draw(st.integers(1, 50)), "out_channels": draw(st.integers(1, 70))}
    return channels | {"padding": padding, "size": (height, width)}


def draw_tile(draw, layer: Layer, target: str, transform, arithmetic) -> Tile:
    """Any register tile that a tuner might try."""
    isa = instruction_set(target_of(target))
    return draw(st.sampled_from(possible_tiles(layer.spec, isa, transform, arithmetic(isa))))


@given(
    winograd_layers(),
    epilogues(),
    st.sampled_from(RUNNABLE),
    st.sampled_from(list(TRANSFORMS)),
    st.data(),
)
@examples(20)
def test_fp32(layer, epilogue, target, size, data):
    layer = conv_layer(**layer, **epilogue, dtype="float32")
    tile = draw_tile(data.draw, layer, target, TRANSFORMS[size], fp32.arithmetic)
    check(layer, target, rule_of(size, tile))


@pytest.mark.parametrize("size, bound", [(2, 2e-6), (4, 2e-5)])
def test_rounding_with_many_channels(size, bound):
    layer = conv_layer(
        channels=512, size=(14, 14), padding=ALL_AROUND, dtype="float32", out_dtype="float32"
    )
    assert error(layer, run_layer(layer, "native", rule_of(size))) < bound


def test_one_kernel_runs_every_batch():
    settings = dict(
        symbolic=True, residual="float32", padding=ALL_AROUND, dtype="float32", out_dtype="float32"
    )
    target = target_of("native")
    isa = instruction_set(target)
    first = conv_layer(**settings)
    library = build(rule_of(4)(first.spec, first.weights, isa).build(), target)
    for batch in (1, 2, 7):
        layer = conv_layer(batch=batch, **settings)
        assert layer.spec == first.spec and layer.spec.epilogue != EpilogueSpec()
        implementation = rule_of(4)(layer.spec, layer.weights, isa)
        actual = run_implementation(library, implementation, layer)
        assert error(layer, actual) < 1e-4
