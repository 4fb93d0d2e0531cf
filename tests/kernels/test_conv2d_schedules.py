"""The study's other schedules: nchw_simd, nhwc_spatial_pack and nhwc_quantized_interleaved.

int8 bit for bit against the NumPy model, fp32 against PyTorch's float64, on the layers and by the
properties that the direct schedule is tested with.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxquant.kernels import blocking, implement_conv2d
from relaxquant.kernels import conv2d_nhwc_quantized_interleaved as interleaved
from relaxquant.kernels import conv2d_nhwc_spatial_pack as nhwc
from relaxquant.kernels.conv2d_nchw_simd import nchw_simd
from relaxquant.kernels.conv2d_nhwc_quantized_interleaved import quantized_interleaved
from relaxquant.kernels.conv2d_nhwc_spatial_pack import nhwc_spatial_pack
from relaxquant.kernels.intrinsics import INSTRUCTION_SETS, instruction_set
from relaxquant.kernels.tile import Tile
from tests.kernels import reference, test_conv2d_fp32
from tests.kernels.harness import (
    RUNNABLE,
    Layer,
    build,
    conv_layer,
    examples,
    implement,
    run_implementation,
    run_layer,
    target_of,
)
from tests.kernels.test_conv2d_fp32 import as_fp32
from tests.kernels.test_conv2d_int8 import DIRECT, PIXELS, direct_channels, epilogues, windows
from tests.kernels.test_instructions import resolve

ONE_GROUP = [name for name in DIRECT if DIRECT[name].get("groups", 1) == 1]
LARGER = {  # more than one task, part and panel in every direction
    "wide": dict(size=(5, 300), channels=64, out_channels=48, padding=(1, 1, 1, 1), zero_point=3),
    "tall": dict(size=(260, 3), channels=64, strides=(2, 1), kernel=(3, 2), zero_point=200),
    "deep": dict(size=(9, 9), channels=1040, out_channels=33, kernel=(3, 3), padding=(0, 1, 1, 0)),
}


def check_int8(layer: Layer, target: str, rule, tile: Tile | None = None) -> None:
    """The kernel's output is the model's."""
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    np.testing.assert_array_equal(run_layer(layer, target, rule, tile), expected)


def fp32_layer(layer: dict) -> dict:
    """The layer in fp32 and NHWC; an image of few channels stays plain NCHW."""
    return as_fp32(layer) | {"nhwc": True, "block": 1 if layer.get("block") == 4 else 16}


@pytest.mark.parametrize("target", ["generic", "native"])
@pytest.mark.parametrize("name", DIRECT)
def test_simd_on_nasty_layers(name, target):
    check_int8(conv_layer(**DIRECT[name]), target, nchw_simd)


@pytest.mark.parametrize("target", ["avx2", "native"])
@pytest.mark.parametrize("name", [*ONE_GROUP, *LARGER])
def test_interleaved_on_nasty_layers(name, target):
    layer = conv_layer(**(DIRECT | LARGER)[name], nhwc=True)
    check_int8(layer, target, quantized_interleaved)


@pytest.mark.parametrize("target", ["generic", "native"])
@pytest.mark.parametrize("name", [*ONE_GROUP, *LARGER])
def test_nhwc_fp32_on_nasty_layers(name, target):
    layer = conv_layer(**fp32_layer((DIRECT | LARGER)[name]))
    test_conv2d_fp32.check(layer, target, nhwc_spatial_pack)


@st.composite
def channels(draw):
    """Channels of one group, in whole blocks, or an image in fours."""
    sizes = {"channels": draw(st.integers(1, 40)), "out_channels": draw(st.integers(1, 70))}
    if sizes["channels"] <= 4:
        sizes["block"] = draw(st.sampled_from([4, 16]))
    return sizes


def draw_tile(draw, layer: Layer, target: str) -> Tile:
    """A register tile whose vectors divide the output channels."""
    vectors = layer.spec.out.padded_channels // instruction_set(target_of(target)).lanes
    counts = [count for count in (1, 2, 3, 4, 6) if vectors % count == 0]
    return Tile(draw(st.sampled_from(counts)), draw(st.sampled_from(PIXELS)))


@given(windows(), direct_channels(), epilogues(), st.sampled_from(RUNNABLE))
@examples(8)
def test_simd(window, sizes, epilogue, target):
    check_int8(conv_layer(**window, **sizes, **epilogue), target, nchw_simd)


@given(windows(), channels(), epilogues(), st.sampled_from(RUNNABLE), st.data())
@examples(20)
def test_interleaved(window, sizes, epilogue, target, data):
    layer = conv_layer(**window, **sizes, **epilogue, nhwc=True)
    check_int8(layer, target, quantized_interleaved, draw_tile(data.draw, layer, target))


@given(windows(), channels(), epilogues(), st.sampled_from(RUNNABLE), st.data())
@examples(15)
def test_nhwc_fp32(window, sizes, epilogue, target, data):
    sizes = sizes | {"block": 1 if sizes.get("block") == 4 else 16}
    layer = conv_layer(**window, **sizes, **epilogue, nhwc=True, dtype="float32")
    tile = draw_tile(data.draw, layer, target)
    test_conv2d_fp32.check(layer, target, nhwc_spatial_pack, tile)


@pytest.mark.parametrize("budget", [1, 700, 1 << 18])
@pytest.mark.parametrize("tasks", [1, 8])
def test_every_way_to_cut_the_work(budget, tasks, monkeypatch):
    """From one row a task to all, from one chunk of channels to one a tile."""
    monkeypatch.setattr(blocking, "PACKED_BYTES", budget)
    monkeypatch.setattr(blocking, "TASKS", tasks)
    layer = dict(size=(7, 11), out_channels=64, padding=(1, 1, 1, 1), zero_point=9, batch=2)
    check_int8(conv_layer(**layer, nhwc=True), "native", quantized_interleaved, Tile(1, 4))
    fp32 = conv_layer(**fp32_layer(layer))
    test_conv2d_fp32.check(fp32, "native", nhwc_spatial_pack, Tile(1, 4))


def test_parts_cover_the_whole_and_fit():
    for total in (1, 2, 7, 8, 9, 100):
        for item in (1, 1000, 100_000, 1_000_000):
            part = blocking.split(total, item)
            assert 1 <= part <= total
            assert part == 1 or part * item <= blocking.PACKED_BYTES
    assert blocking.channel_chunks(6, others=blocking.TASKS) == 1
    assert blocking.channel_chunks(6, others=1) == 6
    assert blocking.channel_chunks(4, others=blocking.TASKS // 2) == 2


def test_one_kernel_runs_every_batch():
    target = target_of("native")
    layers = [
        conv_layer(symbolic=True, batch=batch, zero_point=7, padding=(1,) * 4, nhwc=True)
        for batch in (1, 3)
    ]
    implementations = [implement(a, instruction_set(target), quantized_interleaved) for a in layers]
    assert implementations[0].key == implementations[1].key
    library = build(implementations[0].build(), target)
    for layer, implementation in zip(layers, implementations, strict=True):
        expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data)
        np.testing.assert_array_equal(run_implementation(library, implementation, layer), expected)


@pytest.mark.parametrize(
    "weights, dot",
    [(127, "vpmaddwd"), (64, "vpmaddubsw+vpmaddwd"), (16, "4 x vpmaddubsw+vpmaddwd")],
)
def test_interleaved_never_saturates(weights, dot):
    """All activations 255, all weights at the end of the range: the exact dot product is taken."""
    layer = conv_layer(channels=20, padding=(1, 1, 1, 1), out_dtype="float32", nhwc=True)
    full = replace(layer.weights, weight=np.full_like(layer.weights.weight, weights))
    layer = replace(layer, weights=full, data=np.full_like(layer.data, 255))
    check_int8(layer, "avx2", quantized_interleaved)
    isa = instruction_set(target_of("avx2"))
    assert implement(layer, isa, quantized_interleaved).instructions == dot


# CPU, schedule, instructions that multiply int8.
CODE = [
    ("znver3", quantized_interleaved, {"vpmaddubsw", "vpmaddwd"}),
    ("znver4", quantized_interleaved, {"vpdpbusd"}),
    ("znver3", nchw_simd, {"vpmaddwd"}),  # LLVM's int32 product of 16-bit factors
    ("skylake-avx512", nchw_simd, {"vpmaddwd"}),
    ("znver4", nchw_simd, {"vpdpwssd"}),
]


@pytest.mark.parametrize("cpu, rule, wanted", CODE)
def test_instructions_in_the_code(cpu, rule, wanted):
    target = resolve(cpu)
    layer = conv_layer(
        channels=32, out_channels=32, weight_max=64, nhwc=rule is quantized_interleaved
    )
    implementation = implement(layer, instruction_set(target), rule)
    code = build(implementation.build(), target).inspect_source("asm")
    pattern = r"\bvp(?:maddubsw|maddwd|dpbusd|dpwssd|mulld|mullw)\b"
    assert set(re.findall(pattern, code)) == wanted


@pytest.mark.parametrize("cpu", ["znver3", "znver4"])
def test_nhwc_fp32_runs_on_fused_multiply_adds(cpu):
    target = resolve(cpu)
    layer = conv_layer(channels=32, out_channels=32, dtype="float32", nhwc=True)
    isa = instruction_set(target)
    tile = Tile(2, 3)
    implementation = implement(layer, isa, nhwc_spatial_pack, tile)
    code = build(implementation.build(), target).inspect_source("asm")
    wide = "zmm" if isa.lanes == 16 else "ymm"
    found = re.findall(rf"vfmadd\d+ps.*%{wide}", code)
    assert len(found) >= 4 * tile.vectors * tile.pixels, "four channels are unrolled"


ISA = INSTRUCTION_SETS[0]


@pytest.mark.parametrize(
    "name, layer, kernel",
    [
        ("nhwc_spatial_pack", dict(dtype="float32", nhwc=True), "nhwc_spatial_pack"),
        ("nhwc_spatial_pack", dict(nhwc=True), "nhwc_quantized_interleaved"),
        ("nhwc_quantized_interleaved", dict(nhwc=True), "nhwc_quantized_interleaved"),
        ("nhwc_quantized_interleaved", dict(dtype="float32", nhwc=True), "nhwc_spatial_pack"),
        ("nhwc_quantized_interleaved", dict(groups=16, nhwc=True), "depthwise"),
        (
            "nhwc_quantized_interleaved",
            dict(channels=32, out_channels=32, groups=2, nhwc=True),
            "reference",
        ),
        ("nchw_simd", dict(), "nchw_simd"),
        ("nchw_simd", dict(groups=16), "depthwise"),
        ("nchw_simd", dict(dtype="float32", kernel=(1, 1)), "direct"),
        ("auto", dict(), "direct"),
        ("auto", dict(dtype="float32", kernel=(1, 1)), "direct"),
    ],
)
def test_which_kernel_a_layer_gets(name, layer, kernel):
    layer = conv_layer(**layer)
    assert implement_conv2d(layer.spec, layer.weights, ISA, name).key[0] == kernel


def test_several_blocks_of_channels_are_not_nhwc():
    blocked = conv_layer(channels=32, out_channels=32)
    assert not interleaved.applies(blocked.spec)
    assert not nhwc.applies(conv_layer(channels=32, out_channels=32, dtype="float32").spec)
    assert interleaved.applies(conv_layer(channels=32, out_channels=32, nhwc=True).spec)
