"""ARM: which instructions the code for it holds, and that what they are asked for is exact.

The code is compiled here and not run: LLVM's machine code is taken at its word, and the arithmetic
around an instruction is checked with the instruction written out in plain operations.
"""

from __future__ import annotations

import re

import pytest
from tvm.target import codegen

from relaxquant import target as targets
from relaxquant.errors import TargetError
from relaxquant.kernels import conv2d_nchw_spatial_pack as direct
from relaxquant.kernels.conv2d_nchw_spatial_pack import spatial_pack
from relaxquant.kernels.conv2d_nchw_winograd_int8 import winograd_int8
from relaxquant.kernels.depthwise_nchw_spatial_pack import depthwise_spatial_pack
from relaxquant.kernels.intrinsics import GENERIC, NEON_DOTPROD, arm, instruction_set
from relaxquant.kernels.tile import Tile
from relaxquant.kernels.tir import T, splat
from tests.kernels import reference
from tests.kernels.harness import (
    build,
    conv_layer,
    implement,
    run_implementation,
    stored_bits,
    target_of,
)
from tests.kernels.test_conv2d_int8 import DIRECT
from tests.kernels.test_saturation import SAFE, UNSAFE, extreme_layer
from tests.kernels.test_winograd_int8 import few_bits

TRIPLE = "aarch64-linux-gnu"
pytestmark = pytest.mark.skipif(
    not codegen.llvm_is_valid_cpu("generic", TRIPLE), reason="TVM's LLVM cannot compile for ARM"
)
CODE = [  # CPU, instruction set, what its dot product is made of
    ("cortex-a53", "neon", "mla"),
    ("cortex-a76", "neon_dotprod", "sdot"),
    ("neoverse-n1", "neon_dotprod", "sdot"),
    ("neoverse-n2", "neon_i8mm", "usdot"),
    ("apple-m2", "neon_i8mm", "usdot"),
]
DOTS = ("sdot", "udot", "usdot")


def arm_target(cpu: str):
    """The target of an ARM CPU."""
    return targets.resolve({"kind": "llvm", "mtriple": TRIPLE, "mcpu": cpu})


def instructions(layer, target, rule, tile: Tile | None = None) -> dict[str, int]:
    """How often each instruction is in the code of a layer."""
    implementation = implement(layer, instruction_set(target), rule, tile)
    code = build(implementation.build(), target).inspect_source("asm")
    counts: dict[str, int] = {}
    for name in re.findall(r"^\s+([a-z]\w*)", code, re.MULTILINE):
        counts[name] = counts.get(name, 0) + 1
    return counts


@pytest.mark.parametrize("cpu, isa, wanted", CODE)
def test_dot_products_in_the_code(cpu, isa, wanted):
    target = arm_target(cpu)
    assert instruction_set(target).name == isa
    layer = conv_layer(channels=32, out_channels=32, padding=(1, 1, 1, 1))
    counts = instructions(layer, target, spatial_pack)
    assert counts[wanted] > 0
    assert [name for name in DOTS if name in counts] == [name for name in DOTS if name == wanted]
    assert counts["fcvtns"] > 0 and "frinti" not in counts


@pytest.mark.parametrize("cpu, extra", [("neoverse-n2", 0), ("cortex-a76", 4)])
def test_dot_products_for_each_four_of_a_tile(cpu, extra):
    """One a pixel, vector and four; ``sdot`` needs one more a vector and four, not a pixel."""
    pixels = 3
    layer = conv_layer(channels=16, out_channels=16, kernel=(1, 1), size=(1, pixels))
    counts = instructions(layer, arm_target(cpu), spatial_pack, Tile(1, pixels))
    assert sum(counts.get(name, 0) for name in DOTS) == 4 * pixels + extra


@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a76"])
def test_other_layers_compile(cpu):
    target = arm_target(cpu)
    fp32 = conv_layer(dtype="float32", out_channels=32, padding=(1, 1, 1, 1), clip=True)
    assert instructions(fp32, target, spatial_pack)["fmla"] > 0
    depthwise = instructions(conv_layer(groups=16), target, depthwise_spatial_pack)
    assert depthwise["smlal"] > 0, "widened and multiplied in one"


@pytest.mark.parametrize("cpu, wanted", [("cortex-a76", "sdot"), ("neoverse-n2", "usdot")])
def test_winograd_of_bytes_compiles(cpu, wanted):
    layer = few_bits(channels=32, out_channels=32, padding=(1, 1, 1, 1))
    assert instructions(layer, arm_target(cpu), winograd_int8)[wanted] > 0


def signed_dot(acc, x, w):
    """What ``sdot`` does, by its definition: s8 x s8 products, four to an int32 lane."""
    x, w = (T.reinterpret("int32x4", operand) for operand in (x, w))
    for k in range(4):
        left, right = splat(24 - 8 * k, "int32", 4), splat(24, "int32", 4)
        x_k, w_k = (T.shift_right(T.shift_left(operand, left), right) for operand in (x, w))
        acc = acc + x_k * w_k
    return acc


SDOT_LAYERS = {name: conv_layer(**DIRECT[name]) for name in DIRECT} | {
    weights: extreme_layer(weights) for weights in UNSAFE + SAFE
}


@pytest.mark.parametrize("name", [*DIRECT, *UNSAFE, *SAFE])
def test_sdot_on_shifted_activations_is_exact(name, monkeypatch):
    """The direct schedule with ARM's dot product, ``sdot`` itself written out."""
    monkeypatch.setattr(arm, "_sdot_call", signed_dot)
    (dot,) = NEON_DOTPROD.dots
    target, layer, tile = target_of("generic"), SDOT_LAYERS[name], Tile(1, 2)
    implementation = implement(layer, GENERIC, spatial_pack, tile)
    bits = stored_bits(layer, tile.vectors * GENERIC.lanes)
    library = build(direct.build(layer.spec, GENERIC, dot, tile, bits=bits), target)
    expected = reference.conv2d_int8(layer.spec, layer.weights, layer.data, layer.residual)
    actual = run_implementation(library, implementation, layer)
    assert (actual == expected).all()


def test_the_proof_never_asks_for_anything_on_arm():
    """All dot products of ARM are exact for all weights, each alone: no guard is needed."""
    for isa in (arm.NEON, arm.NEON_DOTPROD, arm.NEON_I8MM):
        assert not any(dot.pairs_saturate for dot in isa.dots)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mtriple": TRIPLE, "mcpu": "cortex-z1"}, "no CPU 'cortex-z1' for aarch64-linux-gnu"),
        ({"mtriple": TRIPLE, "mcpu": "znver4"}, "no CPU 'znver4' for aarch64-linux-gnu"),
        ({"mcpu": "nonesuch"}, "no CPU 'nonesuch'.*needs its mtriple"),
        ({"mtriple": "vax-dec-ultrix", "mcpu": "generic"}, "no architecture 'vax-dec-ultrix'"),
    ],
)
def test_unknown_cpus_are_refused_and_not_replaced(options, message):
    with pytest.raises(TargetError, match=message):
        targets.resolve({"kind": "llvm"} | options)


@pytest.mark.parametrize("weight_dtype", ["int8", "int16"])
def test_int16_products_are_plain_multiply_adds(weight_dtype):
    """Without an int16 dot product 32-bit lanes are multiplied, as plain NEON does for int8."""
    layer = conv_layer(channels=32, out_channels=32, dtype="int16", weight_dtype=weight_dtype)
    counts = instructions(layer, arm_target("cortex-a53"), spatial_pack)
    assert counts.get("mla", 0) + counts.get("smlal", 0) > 0
